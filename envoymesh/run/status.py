"""Status: every host of the inventory, in one execution each."""

from collections.abc import Iterator, Mapping, Sequence

from envoymesh.findings import HostStatus, State
from envoymesh.model.mesh import Host, HostName, Mesh, ServiceName
from envoymesh.plan.observed import Observed
from envoymesh.problems import ExitCode, Problem, listed
from envoymesh.run import envoy
from envoymesh.run.converge import Reading, read_all
from envoymesh.run.provision import meanwhile_desired
from envoymesh.run.workspace import Workspace

View = Mapping[tuple[str, str], str]
"""A front's members: `envoy.health` of an edge."""


def status(workspace: Workspace, hosts: Sequence[Host]) -> list[HostStatus]:
    """Return how each of `hosts` is; one that is out of reach is so in its turn.

    Raises:
        Failed: it cannot be said what the hosts must have.
    """
    with workspace.fleet(hosts) as fleet, meanwhile_desired(workspace, hosts) as wanted:
        readings = read_all(fleet, wanted, envoy.QUESTIONS)
    return statuses(workspace.mesh, hosts, readings)


def statuses(mesh: Mesh, hosts: Sequence[Host], readings: Mapping[HostName, Reading | Problem]) -> list[HostStatus]:
    """Return how `hosts` are, from what was read of them. Pure."""
    fronts = [r.observed for h, r in readings.items() if mesh.hosts[h].is_edge and isinstance(r, Reading)]
    views = [envoy.health(observed) for observed in fronts if envoy.server(observed).state]
    return [_status(host, mesh, readings[host.name], views) for host in hosts]


def _status(host: Host, mesh: Mesh, reading: Reading | Problem, views: Sequence[View]) -> HostStatus:
    if isinstance(reading, Problem):
        away = reading.exit_code is ExitCode.UNREACHABLE
        state = State.UNREACHABLE if away else State.DEGRADED
        return HostStatus(host.name, host.role, str(host.address), state, notes=(reading.what,))
    observed = reading.observed
    server = envoy.server(observed)
    updates = envoy.updates(observed, reading.plan.desired)
    ails = [*_own_ails(mesh, observed, updates), *_member_ails(host, mesh, observed, views)]
    drift = [f"{len(reading.plan.changes)} to change: ./mesh plan --limit {host.name}"] if reading.plan.changes else []
    return HostStatus(
        host=host.name,
        role=host.role,
        address=str(host.address),
        state=State.DEGRADED if ails else State.DRIFTED if drift else State.OK,
        units={name: unit.active for name, unit in observed.units.items()},
        version=server.version,
        envoy=server.state,
        synced=all(u.is_loaded for u in updates) if server.state else None,
        members=_members(mesh, observed) if host.is_edge and server.state else {},
        seen_by=(len(views) - len(_refusals(host, views)), len(views)) if host.service else None,
        certificate_days=envoy.certificate_days(observed),
        notes=(*ails, *drift),
    )


def _own_ails(mesh: Mesh, observed: Observed, updates: Sequence[envoy.Update]) -> Iterator[str]:
    """Yield what is wrong with a host's own units and Envoy."""
    yield from (f"{name} is {unit.active}" for name, unit in observed.units.items() if unit.active != "active")
    server = envoy.server(observed)
    if not server.state:
        yield "Envoy does not answer"
        return
    if server != envoy.Server(mesh.envoy_version, "LIVE"):
        yield f"Envoy {server.version} is {server.state}; wanted is {mesh.envoy_version}, LIVE"
    if stale := [u.name for u in updates if not u.is_loaded]:
        yield f"Envoy does not run what is on disk for {listed(stale)}"
    if refused := [u.name for u in updates if u.is_refused]:
        yield f"Envoy refuses the update of {listed(refused)}"


def _member_ails(host: Host, mesh: Mesh, observed: Observed, views: Sequence[View]) -> Iterator[str]:
    """Yield what is wrong with the members of a front, or with a host as a member of the fronts."""
    if host.service is None:
        for service, (healthy, total) in _members(mesh, observed).items() if envoy.server(observed).state else ():
            wanted = len(mesh.hosts_of(service))
            if (healthy, total) != (wanted, wanted):
                yield f"{service} has {total} members, {healthy} healthy; the inventory has {wanted}"
    for reason in _refusals(host, views):
        yield f"a front sends it nothing: {reason}"


def _members(mesh: Mesh, observed: Observed) -> dict[ServiceName, tuple[int, int]]:
    """Return healthy and all members of each service, as the front of an edge counts them."""
    counts = envoy.counts(observed)

    def count(service: ServiceName, name: str) -> int:
        return counts.get(f"cluster.{service}.membership_{name}", 0)

    return {service: (count(service, "healthy"), count(service, "total")) for service in mesh.services}


def _refusals(host: Host, views: Sequence[View]) -> list[str]:
    """Return why fronts send nothing to a service host: a reason for each front that does not."""
    if host.service is None:
        return []
    key = (host.service, str(host.address))
    return [reason for view in views if (reason := view.get(key, "it is no member"))]
