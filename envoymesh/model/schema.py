"""From inventory.yaml to a mesh, or to every problem that it has, each with its line."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

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
from envoymesh.model.names import NAME, NAME_RULE, RELEASE
from envoymesh.model.ports import ADMIN_PORT, HEALTH_PATH
from envoymesh.problems import Failed, Problem, did_you_mean

Name = Annotated[str, Field(pattern=NAME)]
Port = Annotated[int, Field(ge=1, le=65535)]
UserName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$")]
SshAddress = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}$")]
_PORT = "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
Jump = Annotated[str, Field(pattern=rf"^([A-Za-z_][A-Za-z0-9_.-]*@)?[A-Za-z0-9][A-Za-z0-9._-]{{0,252}}(:({_PORT}))?$")]
RoutePath = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)+$")]
Version = Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$"), BeforeValidator(str)]
DnsName = Annotated[str, Field(pattern=r"^(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,249}[A-Za-z0-9])?$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class _Envoy(_Section):
    version: Version = "1.40.0"


class _Front(_Section):
    http_port: Port = 8080
    https_port: Port = 8443
    certificate_names: tuple[DnsName, ...] = ()
    leave_s: Annotated[int, Field(ge=0, le=120)] = 10


class _Publish(_Section):
    http: Port = 8080
    https: Port = 8443
    admin: Port = 8001


class _Machines(_Section):
    network: IPv4Network = IPv4Network("10.77.0.0/24")
    box: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,252}$")] = "debian/bookworm64"
    memory_mib: Annotated[int, Field(ge=256)] = 512
    cpus: Annotated[int, Field(ge=1)] = 1


MaxParallel = Annotated[str, Field(pattern=r"^([1-9][0-9]{0,5}|([1-9][0-9]?|100)%)$"), BeforeValidator(str)]
"""A number of hosts, or a share of those of a service."""


class _Rollout(_Section):
    max_parallel: MaxParallel = "25%"
    canary: Annotated[int, Field(ge=0)] = 1
    max_failed: Annotated[int, Field(ge=0)] = 0


class _Ssh(_Section):
    address: SshAddress | None = None
    port: Port | None = None
    user: UserName | None = None
    key: str | None = None
    jump: Jump | None = None
    host_keys: Literal["accept-new", "strict"] = "accept-new"
    timeout: Annotated[int, Field(ge=1, le=600)] | None = None


class _Service(_Section):
    path: RoutePath
    release: Annotated[str, Field(pattern=RELEASE)] | None = None


class _Host(_Section):
    address: IPv4Address
    role: Literal["edge"] | None = None
    service: str | None = None
    ssh: _Ssh = _Ssh()


MAX_SERVICES = 100
"""A front watches a file per service, each with an inotify instance of its own; Linux gives a user 128 of them
(fs.inotify.max_user_instances)."""


class _Inventory(_Section):
    name: Name
    provider: Literal["auto", "vagrant", "nspawn", "existing"] = "auto"
    envoy: _Envoy = _Envoy()
    front: _Front = _Front()
    publish: _Publish = _Publish()
    machines: _Machines = _Machines()
    rollout: _Rollout = _Rollout()
    ssh: _Ssh = _Ssh()
    services: Annotated[dict[Name, _Service], Field(min_length=1, max_length=MAX_SERVICES)]
    hosts: Annotated[dict[Name, _Host], Field(min_length=1)]


def parse(text: str, file: str, *, seed: str) -> Mesh:
    """Do what `envoymesh.model.inventory.parse` says."""
    data = _loaded(text, file)
    # Only problems have places, and to find them takes as long as all else.
    root = cache(lambda: YAML(typ="safe", pure=True).compose(text))
    try:
        inventory = _Inventory.model_validate(data)
    except ValidationError as errors:
        raise Failed(*sorted((_schema_problem(e, root(), file) for e in errors.errors()), key=_line)) from None
    problems = sorted(_cross_problems(inventory, root, file), key=_line)
    if problems:
        raise Failed(*problems)
    return _mesh(inventory, seed)


def rollout_with(rollout: Rollout, settings: Mapping[str, str]) -> Rollout:
    """Return a rollout with some of its settings as they are given on a command line; empty ones stay.

    Raises:
        Failed: one of them is not what the inventory could have.
    """
    given = {name: text for name, text in settings.items() if text}
    try:
        return Rollout(**dict(_Rollout.model_validate({**asdict(rollout), **given})))
    except ValidationError as errors:
        raise Failed(*(_bad_flag(str(e["loc"][0]), e) for e in errors.errors())) from None


def _bad_flag(name: str, error: ErrorDetails) -> Problem:
    flag, what = f"--{name.replace('_', '-')}", f"`{error['input']}` is not a valid value for `{name}`"
    hint = "a number such as 3, or a share such as 25%" if name == "max_parallel" else _expectation(error)
    return Problem("task/bad-argument", what, flag, now="nothing was changed", hint=hint)


def _loaded(text: str, file: str) -> Any:
    """Return what the YAML says; a duplicate key or broken YAML is one problem."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise Failed(_broken_yaml(error, text, file)) from None


def _broken_yaml(error: YAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark if isinstance(error, MarkedYAMLError) else None
    said = (error.problem or error.context or "") if isinstance(error, MarkedYAMLError) else str(error)
    lines = text.splitlines()
    return Problem(
        code="inventory/broken-yaml",
        what=f"this is not YAML: {said.splitlines()[0] if said else 'it cannot be read'}",
        at=f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file,
        saw=(lines[mark.line],) if mark and mark.line < len(lines) else (),
        hint="mend the line; nothing was read beyond it",
    )


def _place(root: Node | None, location: Sequence[str | int], file: str) -> str:
    """Return `file:line:column` of the node that `location` names, or of its nearest parent."""
    if root is None:
        return f"{file}:1:1"
    node, mark = root, root.start_mark
    for step in location:
        found = _child(node, step)
        if found is None:
            break
        mark, node = found
    return f"{file}:{mark.line + 1}:{mark.column + 1}"


def _child(node: Node, step: str | int) -> tuple[Any, Node] | None:
    """Return the mark of the key (or item) `step` and its node."""
    if isinstance(node, MappingNode):
        return next(((k.start_mark, v) for k, v in node.value if k.value == str(step)), None)
    if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark, node.value[step]
    return None


def _line(problem: Problem) -> tuple[int, int]:
    numbers = re.findall(r":(\d+)", problem.at)
    return (int(numbers[0]), int(numbers[1])) if len(numbers) > 1 else (0, 0)


def _settings_at(location: Sequence[str | int]) -> list[str]:
    """Return the settings that the section at `location` knows."""
    sections: dict[str, type[BaseModel]] = {
        "envoy": _Envoy,
        "front": _Front,
        "publish": _Publish,
        "machines": _Machines,
        "rollout": _Rollout,
        "ssh": _Ssh,
    }
    entries: dict[str, type[BaseModel]] = {"services": _Service, "hosts": _Host}
    if not location:
        model: type[BaseModel] = _Inventory
    elif location[-1] in sections:
        model = sections[str(location[-1])]
    else:
        model = entries.get(str(location[0]), _Inventory)
    return sorted(model.model_fields)


def _schema_problem(error: ErrorDetails, root: Node | None, file: str) -> Problem:
    """Return the problem for one of pydantic's findings, told by its type, never by its text."""
    location = [step for step in error["loc"] if step != "[key]"]
    at = f"{_place(root, location, file)}  {'.'.join(map(str, location))}"
    key = str(location[-1]) if location else ""
    if error["type"] == "extra_forbidden":
        known = _settings_at(location[:-1])
        saw = (f"settings here: {', '.join(known)}",)
        return Problem("inventory/unknown-key", f"`{key}` is not a setting", at, saw, hint=did_you_mean(key, known))
    if error["type"] == "missing":
        return Problem("inventory/missing-key", f"`{key}` is missing", at, hint=f"add `{key}:`")
    if error["loc"][-1:] == ("[key]",):
        return Problem("inventory/bad-name", f"`{key}` cannot be a name", at, hint=NAME_RULE)
    value = error["input"]
    shown = "nothing" if value is None else f"`{value}`" if isinstance(value, str | int | float) else "this"
    what = f"{shown} is not a valid value for `{key}`" if key else "the inventory is not a mapping of settings"
    return Problem("inventory/bad-value", what, at, hint=_expectation(error))


def _expectation(error: ErrorDetails) -> str:
    """Return what pydantic expected, as it says it: its messages are made to be read."""
    return error["msg"][:1].lower() + error["msg"][1:]


def _cross_problems(inventory: _Inventory, root: Callable[[], Node | None], file: str) -> Iterator[Problem]:
    """Yield what is wrong between settings that are each right."""

    def at(*location: str) -> str:
        return f"{_place(root(), location, file)}  {'.'.join(location)}"

    yield from _host_problems(inventory, at)
    yield from _path_problems(inventory, at)
    for section, ports in (("front", inventory.front), ("publish", inventory.publish)):
        yield from _port_problems(section, ports, at)
    for key in ("http_port", "https_port"):
        if getattr(inventory.front, key) == ADMIN_PORT:
            what = f"{ADMIN_PORT} is the port of Envoy's admin interface on every host"
            yield Problem("inventory/port-taken", what, at("front", key), hint="give the front another port")
    if not any(h.role == "edge" for h in inventory.hosts.values()):
        yield Problem("inventory/no-edge", "no host is an edge", at("hosts"), hint="give one host `role: edge`")


SMALLEST_NETWORK = 29
"""Prefix of a network with room for an edge and a service host beside the addresses that no machine can have."""


def _host_problems(inventory: _Inventory, at: Any) -> Iterator[Problem]:
    network = inventory.machines.network
    made = inventory.provider != "existing"
    if made and network.prefixlen > SMALLEST_NETWORK:
        what, hint = f"{network} has no room for machines", f"use a network of /{SMALLEST_NETWORK} or larger"
        yield Problem("inventory/bad-value", what, at("machines", "network"), hint=hint)
        return
    seen: dict[IPv4Address, str] = {}
    for name, host in inventory.hosts.items():
        if (host.role is None) == (host.service is None):
            hint = "an edge host has `role: edge`, a service host has `service: NAME`"
            yield Problem(
                "inventory/no-role",
                f"`{name}` needs one of `role` and `service`",
                at("hosts", name),
                hint=hint,
            )
        if host.service is not None and host.service not in inventory.services:
            saw = (f"services: {', '.join(inventory.services)}",)
            hint = did_you_mean(host.service, inventory.services)
            what = f"there is no service `{host.service}`"
            yield Problem("inventory/unknown-service", what, at("hosts", name, "service"), saw, hint=hint)
        if host.address in seen:
            what = f"`{name}` and `{seen[host.address]}` have the same address {host.address}"
            yield Problem(
                "inventory/address-taken", what, at("hosts", name, "address"), hint="give one of them another"
            )
        seen.setdefault(host.address, name)
        reserved = (network[0], network[1], network[-1])
        if made and (host.address not in network or host.address in reserved):
            what = f"{host.address} cannot be a machine's address in {network}"
            hint = f"use an address from {network[2]} to {network[-2]}, or change machines.network"
            yield Problem("inventory/address-outside", what, at("hosts", name, "address"), hint=hint)


def _path_problems(inventory: _Inventory, at: Any) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name, service in inventory.services.items():
        if service.path in seen:
            what = f"services `{seen[service.path]}` and `{name}` have the same path {service.path}"
            yield Problem(
                "inventory/path-taken",
                what,
                at("services", name, "path"),
                hint="give one of them another path",
            )
        seen.setdefault(service.path, name)
        if service.path == HEALTH_PATH or {".", ".."} & set(service.path.split("/")):
            what = f"{service.path} cannot be the path of a service"
            hint = f"{HEALTH_PATH} is the health check's; `.` and `..` are taken out of a request's path"
            yield Problem("inventory/bad-value", what, at("services", name, "path"), hint=hint)


def _port_problems(section: str, ports: BaseModel, at: Any) -> Iterator[Problem]:
    seen: dict[int, str] = {}
    for key, port in ports.model_dump().items():
        if isinstance(port, int) and key != "leave_s":
            if port in seen:
                what = f"`{seen[port]}` and `{key}` are the same port {port}"
                yield Problem("inventory/port-taken", what, at(section, key), hint="give one of them another port")
            seen.setdefault(port, key)


def _mesh(inventory: _Inventory, seed: str) -> Mesh:
    def host(name: str, entry: _Host) -> Host:
        ssh = SshSettings(**{**inventory.ssh.model_dump(), **entry.ssh.model_dump(exclude_unset=True)})
        return Host(HostName(name), entry.address, ServiceName(entry.service) if entry.service else None, ssh)

    return Mesh(
        name=inventory.name,
        identifier=f"{inventory.name}-{hashlib.sha256(seed.encode()).hexdigest()[:6]}",
        provider=inventory.provider,
        envoy_version=inventory.envoy.version,
        http_port=inventory.front.http_port,
        https_port=inventory.front.https_port,
        certificate_names=inventory.front.certificate_names,
        leave_s=inventory.front.leave_s if sum(h.role == "edge" for h in inventory.hosts.values()) > 1 else 0,
        publish=Publish(**inventory.publish.model_dump()),
        machines=MachineSettings(**dict(inventory.machines)),
        rollout=Rollout(**dict(inventory.rollout)),
        services={ServiceName(n): Service(ServiceName(n), s.path, s.release) for n, s in inventory.services.items()},
        hosts={HostName(n): host(n, h) for n, h in inventory.hosts.items()},
    )


__all__ = ["MAX_SERVICES", "parse", "rollout_with"]
