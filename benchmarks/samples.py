"""Samples: what repeated measurements come to, and the order in which they are taken."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Series:
    """Repeated measurements of one thing, in the order in which they were taken; there is at least one.

    `unit` is `s`, `MiB`, or one that is printed as it is.
    """

    values: tuple[float, ...]
    unit: str = "s"

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        """The smallest one."""
        return min(self.values)

    @property
    def most(self) -> float:
        """The largest one."""
        return max(self.values)


def medians(measured: Mapping[str, Series]) -> dict[str, float]:
    """Return the median of each series."""
    return {name: series.median for name, series in measured.items()}


def rounds(names: Sequence[T], runs: int) -> list[tuple[T, ...]]:
    """Return who runs in which order, round by round.

    Each runs once a round, so that noise hits all the same, and each round begins with another, so that nobody always
    comes after the same one.
    """
    return [(*names[i % len(names) :], *names[: i % len(names)]) for i in range(runs)]


def ratio(value: float, unit: str) -> str:
    """Return a figure with three digits, and its unit: `1.62 times`, `104 MiB`."""
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}{unit}"
