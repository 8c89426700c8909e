"""Cases: what is measured, and what must be reached."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import path
from benchmarks.samples import Series, medians

OURS, FLOOR, PYINFRA, ANSIBLE = "envoymesh", "floor", "pyinfra", "ansible-core"
INSIDE = "floor, without start"
"""The same runs as `FLOOR`, without the start of Python and its imports: connections and commands alone."""

FEW, SOME, MANY = 4, 20, 50
"""How many hosts the cases have."""

ALL_OF_IT = f"{OURS}, all of its own work"
FOUR_OF_MANY = f"{OURS}, 4 of the hosts"
MEMORY = f"{OURS}, peak memory"
ROUND_TRIP_S = 0.1
TIMES = " times"
PLANNED = (500, 1000, 2000)

Medians = Mapping[str, float]


@dataclass(frozen=True)
class Bar:
    """A figure that must be reached: at most `limit`, or at least that. `unit` is printed behind both."""

    what: str
    measured: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


@dataclass(frozen=True)
class Case:
    """One row of the benchmark; `bars` makes of the medians what must be reached.

    `table` makes head and rows of what was measured, where one line for each contestant would not tell it.
    """

    name: str
    title: str
    how: str
    bars: Callable[[Medians], list[Bar]]
    table: tuple[Sequence[str], Callable[[Mapping[str, Series]], list[Sequence[str]]]] | None = None


@dataclass(frozen=True)
class Result:
    """What was measured of a case, by contestant."""

    case: Case
    measured: Mapping[str, Series]

    @property
    def bars(self) -> list[Bar]:
        """What must be reached, and what was."""
        return self.case.bars(medians(self.measured))


def planned(hosts: int, *, whole: bool) -> str:
    """Return the name of the series for planning that many hosts: of the whole process, or of the planning alone."""
    return f"{hosts} hosts, {'whole process' if whole else 'planning alone'}"


def _times_the_floor(of: Medians, limit: float) -> Bar:
    return Bar("as long as the floor", of[OURS] / of[FLOOR], limit, TIMES)


def _faster(than: str, of: Medians, limit: float) -> Bar:
    return Bar(f"faster than {than}", of[than] / of[OURS], limit, TIMES, at_least=True)


def _nothing(of: Medians) -> list[Bar]:
    return [_times_the_floor(of, 2), _faster(PYINFRA, of, 8), _faster(ANSIBLE, of, 40)]


def _everything(of: Medians) -> list[Bar]:
    return [_faster(PYINFRA, of, 2.5), _faster(ANSIBLE, of, 10)]


def _fleet(of: Medians) -> list[Bar]:
    growth = (of[OURS] / MANY) / (of[FOUR_OF_MANY] / FEW)
    return [
        _times_the_floor(of, 1.5),
        Bar(f"cost per host, {MANY} to {FEW}", growth, 1, TIMES),
        Bar("peak memory (RSS)", of[MEMORY], 200, " MiB"),
    ]


def _far(of: Medians) -> list[Bar]:
    return [Bar("round trips of wall time", of[OURS] / ROUND_TRIP_S, 12, "")]


def _planning(of: Medians) -> list[Bar]:
    least, most = PLANNED[0], PLANNED[-1]
    growth = (of[planned(most, whole=False)] / most) / (of[planned(least, whole=False)] / least)
    return [
        Bar(f"{most} hosts, whole process", of[planned(most, whole=True)], 3, " s"),
        Bar(f"cost per host, {most} to {least}", growth, 1.2, TIMES),
    ]


def _path(of: Medians) -> list[Bar]:
    return [
        Bar(
            f"as many requests as the sandbox, {connections} open",
            path.requests(of, path.MESH, connections) / path.requests(of, path.SANDBOX, connections),
            1,
            TIMES,
            at_least=True,
        )
        for connections in path.CONNECTIONS
    ]


def _list(of: Medians) -> list[Bar]:
    return [Bar("whole process", of[OURS], 0.4, " s")]


CASES = {
    case.name: case
    for case in (
        Case(
            "nothing",
            f"{FEW} hosts, nothing to do",
            "Every host is already as it should be; each tool finds that out and changes nothing. The floor "
            "connects to each host with bare Paramiko and runs `true`, all at once.",
            _nothing,
        ),
        Case(
            "everything",
            f"{FEW} stock hosts, everything to do",
            "The hosts are made anew before every run. Each contestant makes the same 14 resources on each: a user, 4 "
            "directories, the Envoy binary, 3 Envoy files, an application's file, 2 units, and both of them started; "
            "envoymesh waits, besides, until both answer. A second line is all that `./mesh provision` does: "
            "these and the application's packages, certificates, validation by Envoy, and waiting until "
            "all of it serves. The floor sends each host Envoy alone, as `gzip -dc > FILE` over bare Paramiko.",
            _everything,
        ),
        Case(
            "fleet",
            f"{MANY} hosts, nothing to do",
            f"As with {FEW} hosts; the cost per host is compared with a run on {FEW} of these hosts. Peak memory is "
            "that of the tool's process, from runs of their own.",
            _fleet,
        ),
        Case(
            "far",
            f"{SOME} hosts, 50 ms away, nothing to do",
            "Every packet between the tool and the hosts is held back for 50 ms each way. Wall time of the whole "
            "process, in round trips of 100 ms.",
            _far,
        ),
        Case(
            "planning",
            f"planning {PLANNED[-1]} hosts without a network",
            "Reading the inventory, what each host must have, and the plan for it, for stock hosts, given what would "
            "have been read of them.",
            _planning,
        ),
        Case("list", "`invoke --list`", "Listing the tasks.", _list),
        Case(
            "path",
            "the data path",
            "A client (wrk, plain HTTP/1.1 with keep-alive) beside the hosts sends requests through front and sidecar "
            "to the application; to the application alone, from its own host; and through the front and sidecar of "
            "Envoy's front-proxy sandbox, which run beside the mesh's from the same binary, with one worker each as "
            "well, and lead to the same application. Medians; a run counts if no request has failed.",
            _path,
            (path.HEAD, path.rows),
        ),
        Case(
            "settings",
            "what the data path's settings cost",
            "The mesh's configuration, the same with one of its settings left out or another, and the sandbox's, on "
            f"the same hosts over {path.OPEN} connections. Each is sampled right after the mesh's own configuration; "
            "the second figure is its requests divided by that one's, the median of all rounds. CPU is the processor "
            "time of both Envoys for each request.",
            lambda of: [],
            (path.SETTINGS_HEAD, path.settings_rows),
        ),
    )
}
