"""History: what hosts were made to have, run by run, and back to it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from envoymesh.events import Event, Notify, Outcome, OutcomeKind
from envoymesh.model.mesh import Host, HostName
from envoymesh.plan.generation import Generation, Run, after, before, last_run, run_named
from envoymesh.problems import Failed, Problem, counted, did_you_mean
from envoymesh.run.generations import History, had, history_of, kept_by
from envoymesh.run.lock import taken
from envoymesh.run.provision import converge
from envoymesh.run.workspace import Workspace

T = TypeVar("T")


def history(workspace: Workspace, hosts: Sequence[Host]) -> History:
    """Return the generations that `hosts` keep."""
    with workspace.fleet(hosts) as fleet:
        return history_of(fleet, [h.name for h in hosts])


def rollback(workspace: Workspace, hosts: Sequence[Host], to: str, notify: Notify) -> list[Outcome]:
    """Make `hosts` as they were before the last run that changed one of them, or as a run left them.

    A host that the last run has not changed stays as it is.

    Args:
        workspace: the mesh.
        hosts: whom it concerns.
        to: the name of a run; empty for the state before the last one.
        notify: takes what happens.

    Raises:
        Failed: a host cannot be read, keeps nothing that old, or there is no such run; nothing was changed.
    """
    with workspace.fleet([*hosts, *(e for e in workspace.mesh.edges if e not in hosts)], notify) as fleet:
        notify(Event("", f"reading what {counted(len(hosts), 'host')} had"))
        names = [h.name for h in hosts]
        kept = _all_of(taken(workspace, fleet, names, lambda h: kept_by(fleet, h, workspace.run), notify))
        run = _run(kept, to)
        concerned = {h: k for h, k in kept.items() if to or (k and k[-1].run == run)}
        wanted = {h: (after if to else before)(generations, run) for h, generations in concerned.items()}
        numbers = {h: g.number for h, g in wanted.items() if g is not None}
        too_new = [_nothing_older(h, run) for h in wanted if h not in numbers]
        if too_new:
            raise Failed(*too_new)
        contents = _all_of(fleet.each(numbers, lambda h: had(fleet, h, numbers[h])))
        outcomes = converge(workspace, fleet, contents, notify)
    return [outcomes.get(h.name) or Outcome(h.name, OutcomeKind.UNCHANGED) for h in hosts]


def _all_of(read: Mapping[HostName, T | Problem]) -> dict[HostName, T]:
    """Return what was read of each host.

    Raises:
        Failed: with the problem of every host that could not be read.
    """
    problems = [replace(r, now="nothing was changed") for r in read.values() if isinstance(r, Problem)]
    if problems:
        raise Failed(*problems)
    return {host: r for host, r in read.items() if not isinstance(r, Problem)}


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
            saw=tuple(f"run: {name}" for name in names[-10:]),
            now="nothing was changed",
            hint=did_you_mean(name, names) or "./mesh history",
        )
    )


def _nothing_older(host: HostName, run: Run) -> Problem:
    return Problem(
        code="history/nothing-older",
        what=f"`{host}` keeps nothing that old: {run.name}",
        at=host,
        now="nothing was changed",
        hint=f"see what it keeps: ./mesh history --limit {host}\nleave it out: --limit with the others",
    )
