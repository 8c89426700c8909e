"""Rollout: changes reach hosts in batches, each seen to be well before the next; what is not is taken back."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from envoymesh.events import Event, Notify, Outcome, OutcomeKind, end_of
from envoymesh.model.mesh import Host, HostName, Mesh
from envoymesh.plan.change import Action
from envoymesh.plan.leave import leaving
from envoymesh.plan.rollout import batches, concerns_clients
from envoymesh.problems import Failed, Problem, listed
from envoymesh.run.converge import Reading, apply, apply_all, read
from envoymesh.run.fleet import Fleet
from envoymesh.run.generations import had, kept_by
from envoymesh.run.health import HEALTHY_FOR_S, ailments, another_serves, stay_healthy
from envoymesh.run.interrupt import first_one_stops
from envoymesh.run.last_run import record
from envoymesh.run.workspace import Workspace


def roll_out(
    workspace: Workspace, fleet: Fleet, readings: Mapping[HostName, Reading], notify: Notify
) -> dict[HostName, Outcome]:
    """Make the plans of hosts that were read true, in batches; what the inventory says of `rollout` counts.

    A host that a front found healthy before its change, and does not after it, gets back what it had. When more hosts
    than `max_failed` have failed, no other one is begun. One that is out of reach has not failed: it stops nobody.
    After Ctrl-C, the hosts in hand are seen to their end, and no other one is begun.
    """
    mesh = workspace.mesh
    changing = {h: r for h, r in readings.items() if r.plan.changes}
    serving = {h for h, r in changing.items() if _serves(mesh.hosts[h], r)}
    outcomes = {h: Outcome(h, OutcomeKind.UNCHANGED) for h in readings if h not in changing}
    ended(workspace, outcomes.values(), notify)
    planned = list(batches(mesh, changing, serving))
    with first_one_stops(workspace.stop, notify):
        for number, batch in enumerate(planned, 1):
            failed = sum(o.kind is OutcomeKind.FAILED for o in outcomes.values())
            if failed > mesh.rollout.max_failed or workspace.stop.is_set():
                outcomes |= {h: Outcome(h, OutcomeKind.NOT_STARTED, changing[h].plan.changes) for h in batch}
                continue
            if number > 1 and (leave_s := _left_for(changing, planned[number - 2])):
                notify(Event("", f"gives the clients of {_named(planned[number - 2])} {leave_s} s to come back"))
                workspace.stop.wait(leave_s)
            if len(planned) > 1:
                notify(Event("", f"batch {number} of {len(planned)}: {_named(batch)}"))
            changing |= {h: _left_or_alone(mesh, fleet, changing[h]) for h in batch}
            outcomes |= _changed(workspace, fleet, {h: changing[h] for h in batch}, notify)
    return outcomes


def _serves(host: Host, reading: Reading) -> bool:
    """Return whether a host was provisioned before, and, where it is an edge, its front runs."""
    stopped = any(c.action is Action.START for c in reading.plan.changes)
    return bool(reading.observed.manifest) and not (host.is_edge and stopped)


def _left_or_alone(mesh: Mesh, fleet: Fleet, reading: Reading) -> Reading:
    """Return a reading whose plan tells clients to leave only where another front serves them meanwhile."""
    if not any(leaving(reading.plan)) or another_serves(fleet, mesh.edges, reading.plan.host):
        return reading
    return replace(reading, plan=replace(reading.plan, alone=True))


def _left_for(readings: Mapping[HostName, Reading], batch: Sequence[HostName]) -> int:
    """Return for how many seconds clients were told to leave a host of this batch; they need as long to come back."""
    return max((unit.leave_s for host in batch for unit, _ in leaving(readings[host].plan)), default=0)


def _changed(
    workspace: Workspace, fleet: Fleet, batch: Mapping[HostName, Reading], notify: Notify
) -> dict[HostName, Outcome]:
    """Change the hosts of a batch, and take back what is not well."""
    gated = [h for h, r in batch.items() if r.observed.manifest and concerns_clients(r.plan)]
    well, fronts = _well(workspace, fleet, gated)
    outcomes = {o.host: o for o in apply_all(fleet, batch.values(), workspace, notify)}
    changed = [h for h in well if outcomes[h.name].kind is OutcomeKind.CHANGED]
    ailing = _not_healthy(workspace, fleet, fronts, changed, notify)
    bad = {h: replace(outcomes[h], kind=OutcomeKind.FAILED, problem=problem) for h, problem in ailing.items()}
    ended(workspace, bad.values(), notify)
    return outcomes | bad


def ended(workspace: Workspace, outcomes: Collection[Outcome], notify: Notify) -> None:
    """Keep and tell what became of hosts."""
    record(workspace, outcomes)
    for outcome in outcomes:
        notify(end_of(outcome))


def _well(workspace: Workspace, fleet: Fleet, hosts: Sequence[HostName]) -> tuple[list[Host], list[Host]]:
    """Return those service hosts that the fronts find healthy now, and the fronts that say so."""
    members = [h for name in hosts if not (h := workspace.mesh.hosts[name]).is_edge]
    if not members:
        return [], []
    found, fronts = ailments(fleet, workspace.mesh.edges, members)
    return [h for h in members if found.get(h.name) == ""], fronts


def _not_healthy(
    workspace: Workspace, fleet: Fleet, fronts: Sequence[Host], hosts: Sequence[Host], notify: Notify
) -> dict[HostName, Problem]:
    """Take the change of those hosts back that the fronts do not find healthy after it; return their problems."""
    if not hosts:
        return {}
    notify(Event("", f"waits until {_named([h.name for h in hosts])} stayed healthy for {HEALTHY_FOR_S} s"))
    ailing = stay_healthy(fleet, fronts, hosts)
    return fleet.each(ailing, lambda host: _taken_back(workspace, fleet, host, ailing[host], notify))


def _named(hosts: list[HostName]) -> str:
    return listed(hosts) if len(hosts) < 6 else f"{len(hosts)} hosts"


def _taken_back(workspace: Workspace, fleet: Fleet, host: HostName, why: str, notify: Notify) -> Problem:
    """Give a host back what it had before this run; return the problem that tells of it."""
    notify(Event(host, f"is not healthy ({why}): its change is taken back"))
    problem = Problem(
        code="rollout/not-healthy",
        what=f"a front sends nothing to `{host}` after its change",
        at=host,
        saw=(why,),
        now=f"{host}: it was given back what it had before",
        hint=f"see the change: ./mesh plan --limit {host}\nand how it is: ./mesh check --limit {host}",
    )
    try:
        done = apply(fleet, read_as_before(workspace, fleet, host), workspace, notify)
    except Failed as failed:
        saw = (why, *(f"{p.code}: {p.what}" for p in failed.problems))
        return replace(problem, saw=saw, now=failed.problems[0].now or f"{host}: its change was not taken back")
    if done.kind is OutcomeKind.UNCHANGED:
        return replace(problem, now=f"{host}: the change is live; what it had before is no different")
    return problem


def read_as_before(workspace: Workspace, fleet: Fleet, host: HostName) -> Reading:
    """Read a host to give it back what it had before this run, whether the run has got as far as a generation or not.

    Raises:
        Failed: it cannot be read, or does not keep that.
    """
    kept = kept_by(fleet, host)
    its_own = kept[-1].number if kept and kept[-1].run == workspace.run else 0
    earlier = kept[:-1] if its_own else kept
    if not earlier:
        what, now = f"`{host}` does not keep what it had before", f"{host}: the change is live"
        raise Failed(Problem("rollout/nothing-kept", what, host, now=now, hint=f"./mesh plan --limit {host}"))
    reading = read(fleet, host, had(fleet, host, earlier[-1].number), run=workspace.run)
    return replace(reading, takes_back=its_own)
