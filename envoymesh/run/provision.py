"""Plan and provision: what would change, and making it so."""

import datetime
from collections.abc import Mapping, Sequence

from envoymesh.certificates import front_secrets
from envoymesh.events import Event, Notify, Outcome, OutcomeKind, Planned, failed_outcome
from envoymesh.model.mesh import Host, HostName, Mesh
from envoymesh.plan.rollout import batches
from envoymesh.problems import Problem, counted
from envoymesh.run.converge import Desired, Reading, read_all
from envoymesh.run.fleet import Fleet
from envoymesh.run.rollout import roll_out
from envoymesh.run.workspace import Workspace
from roles import desired


def desired_of(workspace: Workspace, hosts: Sequence[Host]) -> Desired:
    """Return what `hosts` must have; makes the certificate authority and the front's certificates when missing."""
    now = datetime.datetime.now(datetime.UTC)
    return desired(workspace.mesh, front_secrets(workspace.mesh, workspace.state_dir, now), hosts)


def plan(workspace: Workspace, hosts: Sequence[Host]) -> Planned:
    """Return, for each host, the changes that `provision` would make, and in which order; changes nothing."""
    with workspace.fleet(hosts) as fleet:
        readings = read_all(fleet, desired_of(workspace, hosts))
    return planned(workspace.mesh, readings)


def planned(mesh: Mesh, readings: Mapping[HostName, Reading | Problem]) -> Planned:
    """Return what the plans of hosts that were read say together. Pure."""
    known = {h: r for h, r in readings.items() if isinstance(r, Reading)}
    serving = {h for h, r in known.items() if r.observed.manifest}
    return Planned(
        outcomes=[_planned(host, reading) for host, reading in readings.items()],
        known={h: (r.observed, r.plan) for h, r in known.items()},
        batches=tuple(batches(mesh, {h for h, r in known.items() if r.plan.changes}, serving)),
        rollout=mesh.rollout,
        left_out=[h for h in mesh.hosts if h not in readings],
    )


def _planned(host: HostName, reading: Reading | Problem) -> Outcome:
    if isinstance(reading, Problem):
        return failed_outcome(host, reading)
    changes = reading.plan.changes
    return Outcome(host, OutcomeKind.CHANGED if changes else OutcomeKind.UNCHANGED, changes)


def provision(workspace: Workspace, hosts: Sequence[Host], notify: Notify) -> list[Outcome]:
    """Make `hosts` as desired, in batches; one that is out of reach does not stop the others.

    The fronts are asked how they find their members, whether they are among `hosts` or not.
    """
    with workspace.fleet([*hosts, *(e for e in workspace.mesh.edges if e not in hosts)]) as fleet:
        notify(Event("", f"reading {counted(len(hosts), 'host')}"))
        outcomes = converge(workspace, fleet, desired_of(workspace, hosts), notify)
    return [outcomes[h.name] for h in hosts]


def converge(workspace: Workspace, fleet: Fleet, wanted: Desired, notify: Notify) -> dict[HostName, Outcome]:
    """Make the hosts of `wanted` so, over connections that may be open already."""
    readings = read_all(fleet, wanted)
    outcomes = {h: failed_outcome(h, r) for h, r in readings.items() if isinstance(r, Problem)}
    return outcomes | roll_out(workspace, fleet, {h: r for h, r in readings.items() if isinstance(r, Reading)}, notify)
