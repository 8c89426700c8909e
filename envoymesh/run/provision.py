"""Plan and provision: what would change, and making it so."""

import datetime
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace

import roles
from envoymesh import certificates
from envoymesh.events import Event, Notify, Outcome, OutcomeKind, Planned, failed_outcome
from envoymesh.model.mesh import Host, HostName, Mesh
from envoymesh.plan.rollout import batches
from envoymesh.plan.saved import Known, SavedPlan, refuse_what_differs
from envoymesh.problems import Problem, counted
from envoymesh.resources import File
from envoymesh.run.authority import refuse_another, refuse_successor
from envoymesh.run.converge import Desired, Reading, meanwhile, read_all
from envoymesh.run.fleet import Fleet
from envoymesh.run.last_run import begin
from envoymesh.run.lock import read_to_change
from envoymesh.run.releases import code_of
from envoymesh.run.rollout import ended, roll_out
from envoymesh.run.workspace import Workspace

Readings = Mapping[HostName, Reading | Problem]


def desired_of(workspace: Workspace, hosts: Sequence[Host]) -> Desired:
    """Return what `hosts` must have; makes the certificate authority and the front's certificates when missing."""
    now = datetime.datetime.now(datetime.UTC)
    compiled = workspace.cache / "templates"
    with suppress(OSError):
        compiled.mkdir(parents=True, exist_ok=True)
    roles.keep_compiled(compiled)
    secrets = certificates.front_secrets(workspace.mesh, workspace.state_dir, now)
    code = code_of(workspace.state_dir, workspace.mesh.services, hosts)
    return roles.desired(workspace.mesh, secrets, code, hosts)


def meanwhile_desired(workspace: Workspace, hosts: Sequence[Host]) -> AbstractContextManager[Desired]:
    """Give what `hosts` must have, which is found out while they are connected to."""
    return meanwhile([h.name for h in hosts], lambda: desired_of(workspace, hosts))


def plan(workspace: Workspace, hosts: Sequence[Host], notify: Notify) -> Planned:
    """Return, for each host, the changes that `provision` would make, and in which order; changes nothing."""
    with workspace.fleet(hosts, notify) as fleet, meanwhile_desired(workspace, hosts) as wanted:
        notify(Event("", f"reading {counted(len(hosts), 'host')}"))
        readings = read_all(fleet, wanted)
    refuse_another(readings)
    return planned(workspace.mesh, readings)


def planned(mesh: Mesh, readings: Readings) -> Planned:
    """Return what the plans of hosts that were read say together. Pure."""
    known = known_of(readings)
    serving = {h for h, (observed, _) in known.items() if observed.manifest}
    return Planned(
        outcomes=[_planned(host, reading) for host, reading in readings.items()],
        known=known,
        batches=tuple(batches(mesh, {h for h, (_, plan) in known.items() if plan.changes}, serving)),
        rollout=mesh.rollout,
        left_out=[h for h in mesh.hosts if h not in readings],
    )


def known_of(readings: Readings) -> Known:
    """Return the hosts that could be read."""
    return {h: (r.observed, r.plan) for h, r in readings.items() if isinstance(r, Reading)}


def _planned(host: HostName, reading: Reading | Problem) -> Outcome:
    if isinstance(reading, Problem):
        return failed_outcome(host, reading)
    changes = reading.plan.changes
    return Outcome(host, OutcomeKind.CHANGED if changes else OutcomeKind.UNCHANGED, changes)


def provision(
    workspace: Workspace, hosts: Sequence[Host], notify: Notify, saved: SavedPlan | None = None
) -> list[Outcome]:
    """Make `hosts` as desired, in batches; one that is out of reach does not stop the others.

    The fronts are asked how they find their members, whether they are among `hosts` or not.

    Raises:
        Failed: the plan would not be the `saved` one, or another has the lock of a host; nothing was changed.
    """
    with workspace.fleet([*hosts, *(e for e in workspace.mesh.edges if e not in hosts)], notify) as fleet:
        return provision_over(workspace, fleet, hosts, notify, saved)


def provision_over(
    workspace: Workspace, fleet: Fleet, hosts: Sequence[Host], notify: Notify, saved: SavedPlan | None = None
) -> list[Outcome]:
    """Do what `provision` does over connections of the caller, with whom the locks stay."""
    notify(Event("", f"reading {counted(len(hosts), 'host')}"))
    with meanwhile_desired(workspace, hosts) as wanted:
        readings = read_to_change(workspace, fleet, wanted, notify)
    refuse_another(readings)
    if saved is not None:
        refuse_what_differs(saved, known_of(readings))
        readings = {h: replace(r, exact=True) if isinstance(r, Reading) else r for h, r in readings.items()}
    outcomes = made_so(workspace, fleet, readings, notify)
    return [outcomes[h.name] for h in hosts]


def renew(workspace: Workspace, notify: Notify, *, authority: bool) -> list[Outcome]:
    """Give every front a new certificate; with `authority`, by a new one, which clients of the old one accept, too.

    A new authority is made once every front is locked and known to have the old one. What is cut off is completed by
    `provision`.

    Raises:
        Failed: the authority's files are damaged, a front could not follow to a new authority, or as `provision`.
    """
    now, edges = datetime.datetime.now(datetime.UTC), workspace.mesh.edges
    with workspace.fleet(edges, notify) as fleet:
        if authority:
            ours = File(roles.AUTHORITY, certificates.authority_of(workspace.mesh, workspace.state_dir, now))
            notify(Event("", f"reading {counted(len(edges), 'front')}"))
            refuse_successor(read_to_change(workspace, fleet, {e.name: [ours] for e in edges}, notify))
        certificates.renew(workspace.mesh, workspace.state_dir, now, authority=authority)
        return provision_over(workspace, fleet, edges, notify)


def converge(
    workspace: Workspace, fleet: Fleet, wanted: Desired, notify: Notify, *, for_now: bool = False
) -> dict[HostName, Outcome]:
    """Make the hosts of `wanted` so, over connections that may be open already; what is `for_now` is no generation."""
    readings = read_to_change(workspace, fleet, wanted, notify)
    if for_now:
        readings = {h: replace(r, takes_back=0) if isinstance(r, Reading) else r for h, r in readings.items()}
    return made_so(workspace, fleet, readings, notify)


def made_so(workspace: Workspace, fleet: Fleet, readings: Readings, notify: Notify) -> dict[HostName, Outcome]:
    """Make the plans of hosts that were read true, in batches; return what became of all."""
    begin(workspace, readings)
    outcomes = {h: failed_outcome(h, r) for h, r in readings.items() if isinstance(r, Problem)}
    ended(workspace, outcomes.values(), notify)
    return outcomes | roll_out(workspace, fleet, {h: r for h, r in readings.items() if isinstance(r, Reading)}, notify)
