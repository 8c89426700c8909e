"""Check: proves that a mesh works, from inside its hosts, from between them and through its fronts."""

import ssl
from collections.abc import Iterator, Mapping, Sequence

from envoymesh.events import Event, Notify
from envoymesh.findings import Finding, exit_code_of_findings
from envoymesh.model.mesh import Host, HostName, Mesh
from envoymesh.problems import ExitCode, Problem, listed
from envoymesh.run import envoy, proofs
from envoymesh.run.converge import Reading, read
from envoymesh.run.fleet import Fleet
from envoymesh.run.fronts import Front, front_findings, published_findings
from envoymesh.run.proofs import Scope
from envoymesh.run.provision import desired_of
from envoymesh.run.workspace import Workspace

__all__ = ["Finding", "check", "exit_code_of_findings"]

Readings = Mapping[HostName, Reading | Problem]


def check(workspace: Workspace, hosts: Sequence[Host], notify: Notify) -> list[Finding]:
    """Return what was found about `hosts` and the services that they have to do with.

    Each host is read in one execution; what is asked of the fronts goes through the same connections. A host
    that is out of reach is a finding, and all else is looked at.

    Raises:
        Failed: it cannot be said what the hosts must have.
    """
    mesh = workspace.mesh
    scope = proofs.scope_of(mesh, hosts)
    everyone = proofs.to_read(scope, mesh)
    with workspace.fleet(everyone) as fleet:
        notify(Event("", f"reading {len(everyone)} hosts"))
        readings, looks_at = _readings(fleet, workspace, everyone)
        notify(Event("", f"asking for {listed([s.name for s in scope.services])}"))
        return [
            *_inside(mesh, scope, readings),
            *_between(scope, readings, looks_at),
            *_through_fronts(fleet, workspace, scope, readings),
        ]


def _readings(fleet: Fleet, workspace: Workspace, hosts: Sequence[Host]) -> tuple[Readings, Mapping[HostName, Host]]:
    """Read all hosts that can be reached, each looking at another one of them; return also which at which."""
    desired = desired_of(workspace, hosts)
    sessions = fleet.each(desired, fleet.session)
    looks_at = proofs.ring([h for h in hosts if not isinstance(sessions[h.name], Problem)])

    def read_one(host: HostName) -> Reading:
        dial = proofs.inner_ports(looks_at[host]) if host in looks_at else ()
        return read(fleet, host, desired[host], envoy.QUESTIONS, dial)

    problems = {host: s for host, s in sessions.items() if isinstance(s, Problem)}
    return {**problems, **fleet.each([h for h in desired if h not in problems], read_one)}, looks_at


def _away(readings: Readings) -> set[HostName]:
    """Return the hosts that are out of reach."""
    return {h for h, r in readings.items() if isinstance(r, Problem) and r.exit_code is ExitCode.UNREACHABLE}


def _inside(mesh: Mesh, scope: Scope, readings: Readings) -> Iterator[Finding]:
    """Yield what the hosts tell of themselves, and the fronts of their members."""
    for host in dict.fromkeys((*scope.hosts, *scope.edges)):
        reading = readings[host.name]
        if isinstance(reading, Problem):
            yield proofs.unreachable(host.name, reading)
            continue
        if host in scope.hosts:
            yield from proofs.host_findings(host.name, mesh, reading)
        for service in scope.services if host.is_edge else ():
            members = mesh.hosts_of(service.name)
            yield proofs.has_its_members(host, service, members, reading.observed, _away(readings))


def _between(scope: Scope, readings: Readings, looks_at: Mapping[HostName, Host]) -> Iterator[Finding]:
    """Yield whether hosts keep to themselves what is behind their Envoy."""
    for neighbour, host in looks_at.items():
        reading = readings[neighbour]
        if host in scope.hosts and isinstance(reading, Reading):
            yield proofs.keeps_to_itself(host, neighbour, reading.observed.dialled)


def _through_fronts(fleet: Fleet, workspace: Workspace, scope: Scope, readings: Readings) -> Iterator[Finding]:
    """Yield what clients get."""
    away = _away(readings)
    authority = ssl.create_default_context(cafile=str(workspace.state_dir / "ca.pem"))
    edges = {e.name: e for e in scope.edges if isinstance(readings[e.name], Reading)}

    def ask(edge: HostName) -> list[Finding]:
        front = Front(fleet.session(edge), edges[edge], workspace.mesh, authority)
        return front_findings(front, scope.services, away)

    for edge, found in fleet.each(edges, ask).items():
        yield from [proofs.unreachable(edge, found)] if isinstance(found, Problem) else found
    if workspace.maker() is not None and workspace.mesh.edges[0] in scope.edges:
        yield from published_findings(workspace.mesh.publish, authority)
