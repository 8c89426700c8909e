"""The mesh: what the inventory says, typed, frozen and cross-checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import NewType

HostName = NewType("HostName", str)
ServiceName = NewType("ServiceName", str)


@dataclass(frozen=True)
class SshSettings:
    """How to log in where it differs from the defaults; `None` leaves it to `~/.ssh/config`.

    `address` is a name or an IP address; `key` a path on the operator's box; `jump` is a host name as
    `ssh -J` takes it. `host_keys` says what happens with a key never seen before: `accept-new` keeps it,
    `strict` refuses; a changed key is always refused. `timeout` is how many seconds a login may take.
    """

    address: str | None = None
    port: int | None = None
    user: str | None = None
    key: str | None = None
    jump: str | None = None
    host_keys: str = "accept-new"
    timeout: int | None = None


@dataclass(frozen=True)
class MachineSettings:
    """How a host is made, and what Envoy takes for its size.

    Addresses are from `network`; only Vagrant has a `box`, and only it holds a machine to its memory (in MiB) and
    processors. On every host, Envoy's heap is a share of `memory_mib`, and a front has `cpus` workers.
    """

    network: IPv4Network
    box: str
    memory_mib: int
    cpus: int


@dataclass(frozen=True)
class Publish:
    """Ports of 127.0.0.1 on the operator's box at which the first edge host answers."""

    http: int
    https: int
    admin: int


@dataclass(frozen=True)
class Rollout:
    """How a change reaches hosts that serve; the names are those of Nomad's `update` block.

    Attributes:
        max_parallel: how many hosts of a service change at a time, a number (`3`) or a share (`25%`) of all.
        canary: how many hosts change before all others.
        max_failed: how many hosts may fail before no other one is begun.
    """

    max_parallel: str = "25%"
    canary: int = 1
    max_failed: int = 0


@dataclass(frozen=True)
class Service:
    """A service: `path` is the path segment prefix that the front routes to it (`/service/1`).

    `release` names what runs; `None` is what is in the project's folder `service/`.
    """

    name: ServiceName
    path: str
    release: str | None = None


@dataclass(frozen=True)
class Host:
    """A machine that we can run commands on: an edge (`service` is None) or a host of one service.

    `address` is the mesh address: the front reaches the sidecar there, and Envoy listens on it.
    """

    name: HostName
    address: IPv4Address
    service: ServiceName | None
    ssh: SshSettings

    @property
    def is_edge(self) -> bool:
        """Whether a front runs here."""
        return self.service is None

    @property
    def role(self) -> str:
        """`edge`, or the name of the service: for tables."""
        return self.service or "edge"


@dataclass(frozen=True)
class Mesh:
    """The whole inventory. Hosts and services keep the inventory's order.

    `identifier` is the name plus a digest of where the inventory lies: machines, networks and namespaces
    on the operator's box are named after it, so that two checkouts do not meet. It never reaches a host.
    `leave_s` is how long an edge reports that it goes before it goes: 0 where there is no other.
    """

    name: str
    identifier: str
    provider: str
    envoy_version: str
    http_port: int
    https_port: int
    certificate_names: tuple[str, ...]
    leave_s: int
    publish: Publish
    machines: MachineSettings
    rollout: Rollout
    services: Mapping[ServiceName, Service]
    hosts: Mapping[HostName, Host]

    @property
    def edges(self) -> tuple[Host, ...]:
        """Hosts that run a front."""
        return tuple(h for h in self.hosts.values() if h.is_edge)

    def hosts_of(self, service: ServiceName) -> tuple[Host, ...]:
        """Hosts of one service."""
        return tuple(h for h in self.hosts.values() if h.service == service)
