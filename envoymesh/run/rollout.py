"""Rollout: changes reach hosts in batches, each seen to be well before the next; what is not is taken back."""

from collections.abc import Mapping
from dataclasses import replace

from envoymesh.events import Event, Notify, Outcome, OutcomeKind
from envoymesh.model.mesh import HostName
from envoymesh.plan.rollout import batches, concerns_clients
from envoymesh.problems import Failed, Problem, listed
from envoymesh.run.converge import Reading, apply, apply_all, read
from envoymesh.run.fleet import Fleet
from envoymesh.run.generations import had, kept_by
from envoymesh.run.health import stay_healthy
from envoymesh.run.workspace import Workspace


def roll_out(
    workspace: Workspace, fleet: Fleet, readings: Mapping[HostName, Reading], notify: Notify
) -> dict[HostName, Outcome]:
    """Make the plans of hosts that were read true, in batches; what the inventory says of `rollout` counts.

    A host that a front does not find healthy after its change gets back what it had. When more hosts than
    `max_failed` have failed, no other one is begun. One that is out of reach has not failed: it stops nobody.
    """
    mesh = workspace.mesh
    changing = {h: r for h, r in readings.items() if r.plan.changes}
    serving = {h for h, r in changing.items() if r.observed.manifest}
    outcomes = {h: Outcome(h, OutcomeKind.UNCHANGED) for h in readings if h not in changing}
    planned = list(batches(mesh, changing, serving))
    for number, batch in enumerate(planned, 1):
        if sum(o.kind is OutcomeKind.FAILED for o in outcomes.values()) > mesh.rollout.max_failed:
            outcomes |= {h: Outcome(h, OutcomeKind.NOT_STARTED, changing[h].plan.changes) for h in batch}
            continue
        if len(planned) > 1:
            notify(Event("", f"batch {number} of {len(planned)}: {_named(batch)}"))
        done = {o.host: o for o in apply_all(fleet, (changing[h] for h in batch), workspace, notify)}
        changed = [mesh.hosts[h] for h in batch if h in serving and done[h].kind is OutcomeKind.CHANGED]
        gated = [h for h in changed if not h.is_edge and concerns_clients(changing[h.name].plan)]
        for host, why in stay_healthy(fleet, mesh.edges, gated, notify).items() if gated else ():
            done[host] = replace(
                done[host], kind=OutcomeKind.FAILED, problem=_taken_back(workspace, fleet, host, why, notify)
            )
        outcomes |= done
    return outcomes


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
        hint=f"see the change: ./mesh plan --limit {host}    and how it is: ./mesh check --limit {host}",
    )
    try:
        kept = kept_by(fleet, host)
        if len(kept) < 2 or kept[-1].run != workspace.run:
            return replace(problem, now=f"{host}: the change is live; it does not keep what it had before")
        reading = read(fleet, host, had(fleet, host, kept[-2].number))
        apply(fleet, reading, workspace, notify, takes_back=True)
    except Failed as failed:
        saw = (why, *(f"{p.code}: {p.what}" for p in failed.problems))
        return replace(problem, saw=saw, now=f"{host}: the change is live, and could not be taken back")
    return problem
