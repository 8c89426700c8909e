"""What a load came to: the answers of its clients, counted and timed. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Sample:
    """One request: when it was due and how long until its answer was whole, in seconds; `kind` is empty when good."""

    at: float
    took: float
    kind: str = ""

    @property
    def answered(self) -> float:
        """When its answer was whole, or it was given up."""
        return self.at + self.took


@dataclass(frozen=True)
class Figures:
    """What a load came to.

    Attributes:
        sent: requests of all clients.
        failed: those without a good answer, by kind of client and what they got instead.
        longest_gap_s: between two good answers to one kind of client, of all kinds the longest.
        disturbed_s: from the first failed request to the end of the last one.
        p99_s: of the good answers to requests that were due before, during and after the operation.
        took_s: how long the operation took.
    """

    sent: int
    failed: Mapping[str, int]
    longest_gap_s: float
    disturbed_s: float
    p99_s: tuple[float, float, float]
    took_s: float

    @property
    def lost(self) -> int:
        """How many requests failed."""
        return sum(self.failed.values())


def figures(clients: Mapping[str, Sequence[Sample]], begun: float, ended: float) -> Figures:
    """Return what a load came to.

    Args:
        clients: what became of the requests, by kind of client.
        begun: when the operation began.
        ended: when it ended.
    """
    everything = [sample for samples in clients.values() for sample in samples]
    failed = Counter(f"{name}: {s.kind}" for name, samples in clients.items() for s in samples if s.kind)
    good = [sample for sample in everything if not sample.kind]
    bad = [sample for sample in everything if sample.kind]
    return Figures(
        len(everything),
        dict(failed),
        max((longest_gap(s.answered for s in samples if not s.kind) for samples in clients.values()), default=math.inf),
        max((s.answered for s in bad), default=0) - min((s.at for s in bad), default=0),
        (
            p99(s.took for s in good if s.at < begun),
            p99(s.took for s in good if begun <= s.at <= ended),
            p99(s.took for s in good if s.at > ended),
        ),
        ended - begun,
    )


def longest_gap(times: Iterable[float]) -> float:
    """Return the longest time between two neighbours of `times`, or infinity when there are no two."""
    ordered = sorted(times)
    return max((later - earlier for earlier, later in pairwise(ordered)), default=math.inf)


def p99(values: Iterable[float]) -> float:
    """Return the value that 99 of 100 do not exceed (nearest rank), or NaN when there are none."""
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * 0.99) - 1] if ordered else math.nan
