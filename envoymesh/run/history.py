"""History: what hosts were made to have, run by run, and back to it."""

from collections.abc import Mapping, Sequence

from envoymesh.events import Event, Notify, Outcome, OutcomeKind, failed_outcome
from envoymesh.model.mesh import Host, HostName
from envoymesh.plan.generation import Generation, Run, after, before, last_run, run_named
from envoymesh.problems import Failed, Problem, counted, did_you_mean
from envoymesh.run.generations import History, had, history_of
from envoymesh.run.provision import converge
from envoymesh.run.workspace import Workspace


def history(workspace: Workspace, hosts: Sequence[Host]) -> History:
    """Return the generations that `hosts` keep."""
    with workspace.fleet(hosts) as fleet:
        return history_of(fleet, [h.name for h in hosts])


def rollback(workspace: Workspace, hosts: Sequence[Host], to: str, notify: Notify) -> list[Outcome]:
    """Make `hosts` as they were before the last run that changed one of them, or as a run left them.

    Service hosts come before edges. A host that the last run has not changed stays as it is, and so does one that
    keeps nothing that old, with a problem.

    Args:
        workspace: the mesh.
        hosts: whom it may concern.
        to: the name of a run; empty for the state before the last one.
        notify: takes what happens.

    Raises:
        Failed: no host keeps anything, or nothing of that run.
    """
    with workspace.fleet([*hosts, *(e for e in workspace.mesh.edges if e not in hosts)]) as fleet:
        notify(Event("", f"reading what {counted(len(hosts), 'host')} had"))
        kept = history_of(fleet, [h.name for h in hosts])
        known = {h: k for h, k in kept.items() if not isinstance(k, Problem)}
        run = _run(known, to)
        choose = after if to else before
        wanted = {h: choose(generations, run) for h, generations in known.items() if generations}
        outcomes = {h: failed_outcome(h, k) for h, k in kept.items() if isinstance(k, Problem)}
        outcomes |= {h: failed_outcome(h, _nothing_older(h, k)) for h, k in known.items() if wanted.get(h) is None}
        outcomes |= {h: Outcome(h, OutcomeKind.UNCHANGED) for h, g in wanted.items() if g is known[h][-1]}
        numbers = {h: g.number for h, g in wanted.items() if g is not None and h not in outcomes}
        contents = fleet.each(numbers, lambda h: had(fleet, h, numbers[h]))
        outcomes |= {h: failed_outcome(h, c) for h, c in contents.items() if isinstance(c, Problem)}
        desired = {h: c for h, c in contents.items() if not isinstance(c, Problem)}
        outcomes |= converge(workspace, fleet, desired, notify)
    return [outcomes[h.name] for h in hosts]


def _run(kept: Mapping[HostName, Sequence[Generation]], name: str) -> Run:
    found = run_named(kept, name) if name else last_run(kept)
    if found is not None:
        return found
    names = sorted({g.run.name for generations in kept.values() for g in generations})
    what = f"no host keeps anything of a run `{name}`" if name else "no host keeps what an earlier run made of it"
    raise Failed(
        Problem(
            code="history/unknown-run",
            what=what,
            at="rollback --to" if name else "rollback",
            saw=(f"runs: {', '.join(names) or 'none'}",),
            now="nothing was changed",
            hint=did_you_mean(name, names) or "./mesh history",
        )
    )


def _nothing_older(host: HostName, kept: Sequence[Generation]) -> Problem:
    what, hint = f"`{host}` keeps nothing that old", f"see what it keeps: ./mesh history --limit {host}"
    if kept and kept[0].number == 1:
        what = f"`{host}` had nothing before {kept[0].run.name}: that run set it up"
        hint = f"./mesh remove-service-host {host}    or go forward again: ./mesh provision"
    return Problem("history/nothing-older", what, host, now=f"{host}: nothing was changed", hint=hint)
