"""Labs: meshes of a test's own, on real machines that are always destroyed."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from envoymesh.machines.base import MachineMaker, Provider
from envoymesh.machines.nspawn import Nspawn
from envoymesh.model.mesh import (
    Host,
    HostName,
    MachineSettings,
    Mesh,
    Publish,
    Rollout,
    Service,
    ServiceName,
    SshSettings,
)
from envoymesh.problems import Failed
from envoymesh.transport.ssh import connect

M = TypeVar("M", bound=MachineMaker)
T = TypeVar("T")


def small_mesh(service_hosts: int = 1, *, network: str = "10.97.0.0/24") -> Mesh:
    """Return a mesh of one edge and some hosts of `service1`, with an identifier and ports of its own."""
    subnet, service = IPv4Network(network), ServiceName("service1")
    edge = Host(HostName("front-envoy"), subnet[10], None, SshSettings())
    others = [
        Host(HostName(f"service1-{i}"), subnet[10 + i], service, SshSettings()) for i in range(1, service_hosts + 1)
    ]
    return Mesh(
        name="lab",
        identifier=f"lab-{uuid4().hex[:6]}",
        provider="nspawn",
        envoy_version="1.40.0",
        http_port=8080,
        https_port=8443,
        certificate_names=(),
        leave_s=0,
        publish=Publish(*free_ports(3)),
        machines=MachineSettings(subnet, box="debian/bookworm64", memory_mib=512, cpus=1),
        rollout=Rollout(),
        services={service: Service(service, "/service/1")},
        hosts={host.name: host for host in (edge, *others)},
    )


@contextmanager
def lab(mesh: Mesh, state_dir: Path) -> Iterator[Nspawn]:
    """Create all machines of `mesh`, and destroy them in the end, whatever happened."""
    with destroyed_after(Nspawn(mesh, state_dir)) as maker:
        maker.create(list(mesh.hosts.values()), quiet)
        yield maker


@contextmanager
def destroyed_after(maker: M) -> Iterator[M]:
    """Destroy all machines of `maker` in the end."""
    try:
        yield maker
    finally:
        maker.destroy(maker.machines(), quiet)


def quiet(host: str, text: str) -> None:
    """Take progress and show nothing."""


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 at which nothing listens."""
    with_ports = [socket.socket() for _ in range(count)]
    try:
        for opened in with_ports:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in with_ports]
    finally:
        for opened in with_ports:
            opened.close()


def run(provider: Provider, host: Host, script: str, timeout_s: float = 30) -> str:
    """Run `script` on a host as root, over the provider's login; return what it printed. It must succeed."""
    with connect(replace(provider.logins([host])[host.name], timeout_s=timeout_s)) as session:
        done = session.exec(script, timeout_s=timeout_s)
    if done.exit_status != 0:
        raise Unsuccessful(done)
    return done.stdout.decode().strip()


class Unsuccessful(Exception):  # noqa: N818 - says what came of it
    """A script on a host did not exit with 0."""


def eventually(wanted: Callable[[], T], within_s: float = 30, what: str = "") -> T:
    """Return the first true value of `wanted`.

    A problem, a socket's error and a script on a host that fails count as not yet. A false assertion does not: it
    fails the test at once.
    """
    last: object = None
    end = time.monotonic() + within_s
    while True:
        try:
            value = wanted()
            if value:
                return value
            last = value
        except (Failed, OSError, Unsuccessful) as error:
            last = error.problems[0] if isinstance(error, Failed) else error
        assert time.monotonic() < end, f"not within {within_s} s: {what or wanted}; last: {last!r}"
        time.sleep(0.02)
