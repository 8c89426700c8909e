"""Generations: what one apply made of a host, told to people and found again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from envoymesh.model.mesh import HostName


@dataclass(frozen=True, order=True)
class Run:
    """A run of the tool that changes hosts: when by the clock of the operator's box (UTC), its name, who and why."""

    at: datetime
    name: str
    who: str
    why: str


@dataclass(frozen=True)
class Generation:
    """What a host has had since one run; `number` counts on each host, `changes` says what was done to get there."""

    number: int
    run: Run
    changes: tuple[str, ...]


def last_run(generations: Mapping[HostName, Sequence[Generation]]) -> Run | None:
    """Return the last run that changed one of the hosts; their generations are in order.

    A run that another one follows on any host is not the last, whatever the clocks of the two operators say.
    """
    newest = {kept[-1].run for kept in generations.values() if kept}
    followed = {g.run for kept in generations.values() for g in kept[:-1] if g.run != kept[-1].run}
    return max(newest - followed or newest, default=None)


def run_named(generations: Mapping[HostName, Sequence[Generation]], name: str) -> Run | None:
    """Return the run of that name, if a host still has it."""
    return next((g.run for kept in generations.values() for g in kept if g.run.name == name), None)


def before(kept: Sequence[Generation], run: Run) -> Generation | None:
    """Return the generation that a host had before `run`, None if it had none or keeps it no more.

    Clocks of operators differ: they count only where the host has not seen the run itself.
    """
    at = next((i for i, g in enumerate(kept) if g.run == run), None)
    if at is not None:
        return kept[at - 1] if at else None
    return next((g for g in reversed(kept) if g.run < run), None)


def after(kept: Sequence[Generation], run: Run) -> Generation | None:
    """Return the generation that a host had once `run` had ended, None if it had none or keeps it no more."""
    its_own = next((g for g in reversed(kept) if g.run == run), None)
    return its_own or next((g for g in reversed(kept) if g.run < run), None)
