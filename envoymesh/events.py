"""Events: what happened while a task works, as data; and outcomes, what became of each host."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from envoymesh.model.mesh import HostName, Rollout
from envoymesh.plan.change import Change
from envoymesh.plan.saved import Known
from envoymesh.problems import ExitCode, Problem


class OutcomeKind(StrEnum):
    """What became of a host in a run."""

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    NOT_STARTED = "not started"


@dataclass(frozen=True)
class Outcome:
    """A host after a run: the changes that were made or would be, or the problem that stopped it."""

    host: HostName
    kind: OutcomeKind
    changes: tuple[Change, ...] = ()
    problem: Problem | None = None

    @property
    def ok(self) -> bool:
        """Whether the host is as it is to be."""
        return self.kind in (OutcomeKind.UNCHANGED, OutcomeKind.CHANGED)


class EventKind(StrEnum):
    """What an event says of its host."""

    WAITS = "waits"
    STEP = "step"
    SENT = "sent"
    ENDS = "ends"


@dataclass(frozen=True)
class Planned:
    """What `provision` would make of hosts, and in which batches.

    `known` are the hosts that could be read, as they were and with what they need; `left_out` those of the mesh that
    were not asked for.
    """

    outcomes: Sequence[Outcome]
    known: Known = field(repr=False)
    batches: Sequence[Sequence[HostName]]
    rollout: Rollout
    left_out: Sequence[HostName]

    @property
    def new(self) -> frozenset[HostName]:
        """Hosts that nothing was put on yet."""
        return frozenset(host for host, (observed, _) in self.known.items() if not observed.manifest)


@dataclass(frozen=True)
class Event:
    """Something happened, on `host` (empty: on the operator's box). For people; nothing is decided by it.

    `minor` is what only those want who follow every step. Of an event of bytes, `sent` and `total` count them.
    """

    host: str
    text: str
    kind: EventKind = EventKind.STEP
    minor: bool = False
    sent: int = 0
    total: int = 0


Notify = Callable[[Event], None]
"""Takes events as they happen, from any thread."""


def megabytes_sent(sent: int, total: int) -> str:
    """Return `12 of 40 MB sent`."""
    return f"{sent / 1e6:.0f} of {total / 1e6:.0f} MB sent"


def failed_outcome(host: HostName, problem: Problem) -> Outcome:
    """Return the outcome of a host that `problem` stopped."""
    unreachable = problem.exit_code is ExitCode.UNREACHABLE
    return Outcome(host, OutcomeKind.UNREACHABLE if unreachable else OutcomeKind.FAILED, problem=problem)


def end_of(outcome: Outcome) -> Event:
    """Return the event that a run is done with a host."""
    text = f"{outcome.kind}: {outcome.problem.code}" if outcome.problem else str(outcome.kind)
    minor = outcome.kind in (OutcomeKind.UNCHANGED, OutcomeKind.NOT_STARTED)
    return Event(outcome.host, "done" if outcome.kind is OutcomeKind.CHANGED else text, EventKind.ENDS, minor=minor)


def exit_code_of(outcomes: Sequence[Outcome]) -> ExitCode:
    """Return the exit code of a run that changed hosts: a failed host counts before one out of reach."""
    kinds = {o.kind for o in outcomes}
    if kinds & {OutcomeKind.FAILED, OutcomeKind.NOT_STARTED}:
        return ExitCode.PROBLEM
    return ExitCode.UNREACHABLE if OutcomeKind.UNREACHABLE in kinds else ExitCode.DONE
