"""Plan and provision: what would change, and making it so."""

import datetime
from collections.abc import Sequence

from envoymesh.certificates import front_secrets
from envoymesh.events import Event, Notify, Outcome, OutcomeKind, failed_outcome
from envoymesh.model.mesh import Host, HostName
from envoymesh.problems import Problem, counted
from envoymesh.run.converge import Desired, Reading, apply_all, read_all
from envoymesh.run.fleet import Fleet
from envoymesh.run.workspace import Workspace
from roles import desired


def desired_of(workspace: Workspace, hosts: Sequence[Host]) -> Desired:
    """Return what `hosts` must have; makes the certificate authority and the front's certificates when missing."""
    now = datetime.datetime.now(datetime.UTC)
    return desired(workspace.mesh, front_secrets(workspace.mesh, workspace.state_dir, now), hosts)


def plan(workspace: Workspace, hosts: Sequence[Host]) -> list[Outcome]:
    """Return, for each host, the changes that `provision` would make; changes nothing."""
    with workspace.fleet(hosts) as fleet:
        readings = read_all(fleet, desired_of(workspace, hosts))
    return [_planned(host, reading) for host, reading in readings.items()]


def _planned(host: HostName, reading: Reading | Problem) -> Outcome:
    if isinstance(reading, Problem):
        return failed_outcome(host, reading)
    changes = reading.plan.changes
    return Outcome(host, OutcomeKind.CHANGED if changes else OutcomeKind.UNCHANGED, changes)


def provision(workspace: Workspace, hosts: Sequence[Host], notify: Notify) -> list[Outcome]:
    """Make `hosts` as desired; one that fails or is out of reach does not stop the others."""
    with workspace.fleet(hosts) as fleet:
        notify(Event("", f"reading {counted(len(hosts), 'host')}"))
        outcomes = converge(workspace, fleet, desired_of(workspace, hosts), notify)
    return [outcomes[h.name] for h in hosts]


def converge(workspace: Workspace, fleet: Fleet, wanted: Desired, notify: Notify) -> dict[HostName, Outcome]:
    """Make the hosts of `wanted` so, over connections that may be open already.

    Service hosts come before edges, so that no front learns of an endpoint before it serves.
    """
    readings = read_all(fleet, wanted)
    outcomes = {h: failed_outcome(h, r) for h, r in readings.items() if isinstance(r, Problem)}
    for wave in (False, True):
        ready = [
            r for r in readings.values() if isinstance(r, Reading) and workspace.mesh.hosts[r.plan.host].is_edge is wave
        ]
        outcomes |= {o.host: o for o in apply_all(fleet, ready, workspace, notify)}
    return outcomes
