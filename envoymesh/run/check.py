"""Check: proves that a mesh works, from inside its hosts, from between them and through its fronts."""

import ssl
import time
from collections.abc import Iterator, Mapping, Sequence

from envoymesh.events import Event, EventKind, Notify
from envoymesh.findings import Finding, exit_code_of_findings
from envoymesh.model.mesh import Host, HostName, Mesh
from envoymesh.problems import ExitCode, Problem, counted, listed
from envoymesh.run import envoy, proofs
from envoymesh.run.converge import Reading, read
from envoymesh.run.fleet import Fleet
from envoymesh.run.fronts import Front, front_findings, published_findings
from envoymesh.run.proofs import Scope
from envoymesh.run.provision import desired_of
from envoymesh.run.workspace import Workspace

__all__ = ["Finding", "check", "exit_code_of_findings"]

SETTLE_S = 2.0
"""So long a front may take to notice that a host is well again: a health check and its timeout."""

Readings = Mapping[HostName, Reading | Problem]


def check(workspace: Workspace, hosts: Sequence[Host], notify: Notify) -> list[Finding]:
    """Return what was found about `hosts` and the services that they have to do with.

    Each host is read in one execution; what is asked of the fronts goes through the same connections. A host
    that is out of reach is a finding, and all else is looked at. Where every host is well and a front is not,
    as just after a repair, the fronts are looked at once more.

    Raises:
        Failed: it cannot be said what the hosts must have.
    """
    scope = proofs.scope_of(workspace.mesh, hosts)
    everyone = proofs.to_read(scope, workspace.mesh)
    with workspace.fleet(everyone, notify) as fleet:
        notify(Event("", f"reading {counted(len(everyone), 'host')}"))
        readings, looks_at = _readings(fleet, workspace, everyone)
        of_hosts = [*_inside(workspace.mesh, scope, readings), *_between(scope, readings, looks_at)]
        notify(Event("", f"asking for {listed([s.name for s in scope.services])}"))
        of_fronts = _of_fronts(fleet, workspace, scope, readings)
        if all(f.ok for f in of_hosts) and not all(f.ok for f in of_fronts):
            notify(Event("", f"looking at the fronts again in {SETTLE_S:g} s: every host is well"))
            time.sleep(SETTLE_S)
            again, _ = _readings(fleet, workspace, scope.edges)
            of_fronts = _of_fronts(fleet, workspace, scope, {**readings, **again})
    return of_hosts + of_fronts


def _readings(fleet: Fleet, workspace: Workspace, hosts: Sequence[Host]) -> tuple[Readings, Mapping[HostName, Host]]:
    """Read all hosts that can be reached, each looking at another one of them; return also which at which."""
    desired = desired_of(workspace, hosts)
    sessions = fleet.each(desired, fleet.session)
    looks_at = proofs.ring([h for h in hosts if not isinstance(sessions[h.name], Problem)])

    def read_one(host: HostName) -> Reading:
        dial = proofs.inner_ports(looks_at[host]) if host in looks_at else ()
        fleet.notify(Event(host, "is read", minor=True))
        reading = read(fleet, host, desired[host], envoy.QUESTIONS, dial)
        fleet.notify(Event(host, "was read", EventKind.ENDS, minor=True))
        return reading

    problems = {host: s for host, s in sessions.items() if isinstance(s, Problem)}
    return {**problems, **fleet.each([h for h in desired if h not in problems], read_one)}, looks_at


def _inside(mesh: Mesh, scope: Scope, readings: Readings) -> Iterator[Finding]:
    """Yield what the hosts tell of themselves, and which cannot be read."""
    for host in dict.fromkeys((*scope.hosts, *scope.edges)):
        reading = readings[host.name]
        if isinstance(reading, Problem):
            yield proofs.unreachable(host.name, reading)
        elif host in scope.hosts:
            yield from proofs.host_findings(host.name, mesh, reading)


def _between(scope: Scope, readings: Readings, looks_at: Mapping[HostName, Host]) -> Iterator[Finding]:
    """Yield whether hosts keep to themselves what is behind their Envoy."""
    for neighbour, host in looks_at.items():
        reading = readings[neighbour]
        if host in scope.hosts and isinstance(reading, Reading):
            yield proofs.keeps_to_itself(host, neighbour, reading.observed.dialled)


def _of_fronts(fleet: Fleet, workspace: Workspace, scope: Scope, readings: Readings) -> list[Finding]:
    """Return whom each front sends requests to, and what its clients get."""
    mesh = workspace.mesh
    away = {h for h, r in readings.items() if isinstance(r, Problem) and r.exit_code is ExitCode.UNREACHABLE}
    authority = ssl.create_default_context(cafile=str(workspace.state_dir / "ca.pem"))

    def ask(name: HostName) -> list[Finding]:
        reading = readings[name]
        if isinstance(reading, Problem):
            return []
        edge, observed = mesh.hosts[name], reading.observed
        members = [proofs.has_its_members(edge, s, mesh.hosts_of(s.name), observed, away) for s in scope.services]
        return members + front_findings(Front(fleet.session(name), edge, mesh, authority), scope.services, away)

    results = fleet.each([e.name for e in scope.edges], ask)
    found = [f for e, r in results.items() for f in ([proofs.unreachable(e, r)] if isinstance(r, Problem) else r)]
    if workspace.maker() is not None and mesh.edges[0] in scope.edges:
        found += published_findings(mesh.publish, authority)
    return found
