"""The benchmark's run: hosts for each case, contestants in turn, then the tables."""

import fcntl
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from benchmarks import contestants, environment, path, reliability
from benchmarks.cases import (
    ALL_OF_IT,
    ANSIBLE,
    CASES,
    FEW,
    FLOOR,
    FOUR_OF_MANY,
    INSIDE,
    MANY,
    MEMORY,
    OURS,
    PLANNED,
    PYINFRA,
    ROUND_TRIP_S,
    SOME,
    Result,
    planned,
)
from benchmarks.hosts import ROOT, Hosts, far_from, hosts, in_tens, missing
from benchmarks.measure import NOTHING_WRITTEN, Command, peak_mib, run
from benchmarks.report import document, terminal
from benchmarks.samples import Series, rounds
from benchmarks.traffic import Traffic
from benchmarks.variants import VARIANTS
from envoymesh.events import Event, Notify
from envoymesh.problems import Failed, Problem, did_you_mean
from envoymesh.report.terminal import Terminal, say

WORK = ROOT / ".envoymesh" / "bench"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
RELIABILITY = "reliability"
"""A case of its own: it is the tests under load, takes most of an hour, and has a page of its own."""
NOTES = ROOT / "benchmarks" / "notes"
LEAST_RUNS = 5
"""So many make a document: fewer are for a quick look."""

Measured = Mapping[str, Series]
Sampler = Callable[[], Mapping[str, float]]
"""Runs a contestant once; returns its sample, and others of the same run, by name."""


def bench(cases: Sequence[str], runs: int) -> int:
    """Measure these cases (none named: all), print the tables and, when all were measured, write the document.

    Returns:
        0: what was measured is measured, whether the bars are met or not.

    Raises:
        Failed: unknown cases, a box that cannot make hosts, a contestant that did not do its work.
    """
    told = Terminal()
    if list(cases) == [RELIABILITY]:
        with _alone():
            return _reliability(runs, told.notify)
    chosen = list(cases or CASES)
    _refuse(chosen, runs)
    with _alone(), _ended_by_signals():
        results = [_measured(name, runs, told.notify) for name in chosen]
    say(terminal(results))
    if set(chosen) == set(CASES) and runs >= LEAST_RUNS:
        notes = {path.stem: path.read_text("utf-8") for path in NOTES.glob("*.md")}
        DOCUMENT.write_text(document(results, environment.box(), notes), "utf-8")
        told.notify(Event("", "wrote docs/benchmarks.md"))
    else:
        told.notify(Event("", f"docs/benchmarks.md is as it was: it takes every case and {LEAST_RUNS} runs"))
    return 0


def _reliability(runs: int, notify: Notify) -> int:
    """Run the tests under load so often, print what came of them, and write their page.

    Returns:
        0, or what pytest exits with: a bound was not held, and the page says what was.

    Raises:
        Failed: nothing was measured.
    """
    told = WORK / "reliability.jsonl"
    told.unlink(missing_ok=True)
    argv = [contestants.PYTHON, "-m", "pytest", "-q", *UNDER_LOAD]
    status = 0
    for number in range(1, runs + 1):
        notify(Event(RELIABILITY, f"round {number} of {runs}"))
        environ = {**os.environ, "ENVOYMESH_FIGURES": str(told)}
        done = subprocess.run(argv, cwd=ROOT, env=environ, check=False, stdout=subprocess.PIPE, text=True)
        status = status or done.returncode
    if not told.exists():
        saw = tuple(done.stdout.splitlines()[-9:])
        raise Failed(Problem("bench/no-load", "the tests under load did not run", saw=saw, now=NOTHING_WRITTEN))
    measured = reliability.read(told.read_text("utf-8"))
    note = (NOTES / "reliability.md").read_text("utf-8")
    (ROOT / "docs" / "reliability.md").write_text(reliability.document(measured, environment.box(), note), "utf-8")
    say(reliability.table(measured))
    notify(Event("", "wrote docs/reliability.md"))
    return status


UNDER_LOAD = ("tests/lab/test_no_request_lost.py", "tests/lab/test_faults.py")


def _refuse(chosen: Sequence[str], runs: int) -> None:
    problems = [
        Problem(
            "bench/unknown-case",
            f"`{name}` is not a case of the benchmark",
            now="nothing was measured",
            hint=did_you_mean(name, CASES) or f"cases are: {', '.join(CASES)}; or alone: {RELIABILITY}",
        )
        for name in chosen
        if name not in CASES
    ]
    if runs < 1:
        problems.append(
            Problem("bench/no-runs", "there must be at least one run", "--runs", now="nothing was measured")
        )
    reason = missing()
    if reason and not set(chosen) <= set(_WITHOUT_HOSTS):
        hint = f"as root, on Debian or Ubuntu; without hosts: ./mesh bench --case {','.join(_WITHOUT_HOSTS)}"
        what = f"this box cannot make the hosts: {reason}"
        problems.append(Problem("bench/no-hosts", what, now="nothing was measured", hint=hint))
    if problems:
        raise Failed(*problems)


@contextmanager
def _alone() -> Iterator[None]:
    """Hold off another benchmark of this checkout."""
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = "another benchmark of this checkout is at work"
            raise Failed(Problem("bench/held", what, now="nothing was measured", hint="wait until it ends")) from None
        yield


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end it as Ctrl-C does: all that was made is taken away."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        raise Failed(Problem("run/interrupted", "interrupted", now=NOTHING_WRITTEN)) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _measured(name: str, runs: int, notify: Notify) -> Result:
    def told(event: Event) -> None:
        notify(Event(name, event.text))

    return Result(CASES[name], _MEASURES[name](runs, told))


def _interleaved(samplers: Mapping[str, Sampler], runs: int, notify: Notify) -> dict[str, Series]:
    """Run each contestant `runs` times, in turn."""
    samples: dict[str, list[float]] = {}
    for number, names in enumerate(rounds(list(samplers), runs), 1):
        for name in names:
            sample = samplers[name]()
            notify(Event("", f"round {number} of {runs}: {name} {sample[name]:.2f}"))
            for key, value in sample.items():
                samples.setdefault(key, []).append(value)
    order = [*samplers, *(key for key in samples if key not in samplers)]
    return {key: Series(tuple(samples[key]), "MiB" if key == MEMORY else "s") for key in order}


def _sampler(name: str, command: Command, inside: str = "") -> Sampler:
    """Return how a command is timed; `inside` names a second sample: what it says it took without its own start."""

    def sample() -> Mapping[str, float]:
        ran = run(command)
        return {name: ran.seconds, **({inside: ran.inside_s} if inside else {})}

    return sample


def _ansible(made: Hosts, command: Command) -> Sampler:
    def sample() -> Mapping[str, float]:
        try:
            return {ANSIBLE: run(command).seconds}
        finally:
            contestants.hang_up(made)

    return sample


def _anew(made: Hosts, sampler: Sampler) -> Sampler:
    """Return a sampler that is given hosts as they come from their image, and a disk with nothing left to write."""

    def sample() -> Mapping[str, float]:
        made.make()
        os.sync()
        return sampler()

    return sample


@contextmanager
def _given(name: str, count: int, notify: Notify) -> Iterator[Hosts]:
    with hosts(WORK / name, count, notify) as made:
        yield made


@contextmanager
def _envoy() -> Iterator[tuple[Path, Path]]:
    """Give Envoy packed and unpacked."""
    packed = environment.packed_envoy()
    unpacked = environment.unpack(packed, WORK / "envoy")
    try:
        yield packed, unpacked
    finally:
        unpacked.unlink()


def _provision(made: Hosts, notify: Notify) -> None:
    notify(Event("", "provisioning them"))
    for some in in_tens(list(made.addresses)):
        run(contestants.envoymesh(made, f"{len(some)} changed", "--limit", ",".join(some)))


def _unchanged(made: Hosts, count: int, *words: str, namespace: str = "") -> Command:
    return contestants.envoymesh(made, f"{count} unchanged", *words, namespace=namespace)


def _measure_nothing(runs: int, notify: Notify) -> Measured:
    environment.make_peers(notify)
    with _given("nothing", FEW, notify) as made, _envoy() as (_, envoy):
        _provision(made, notify)
        notify(Event("", "provisioning them with the peers"))
        run(contestants.pyinfra(made, envoy))
        samplers = {
            OURS: _sampler(OURS, _unchanged(made, FEW)),
            FLOOR: _sampler(FLOOR, contestants.floor(made), INSIDE),
            PYINFRA: _sampler(
                PYINFRA, contestants.pyinfra(made, envoy, rf"Grand total +{_RESOURCES} +- +- +{_RESOURCES}")
            ),
            ANSIBLE: _ansible(made, contestants.ansible(made, envoy, r"changed=0\b")),
        }
        _warm(samplers, notify)
        return _interleaved(samplers, runs, notify)


def _measure_everything(runs: int, notify: Notify) -> Measured:
    environment.make_peers(notify)
    with _given("everything", FEW, notify) as made, _envoy() as (packed, envoy):
        samplers = {
            OURS: _sampler(OURS, contestants.same_work(made, f"{FEW} changed")),
            FLOOR: _sampler(FLOOR, contestants.stream(made, packed), INSIDE),
            PYINFRA: _sampler(
                PYINFRA, contestants.pyinfra(made, envoy, rf"Grand total +{_RESOURCES} +{_RESOURCES} +- +-")
            ),
            ANSIBLE: _ansible(made, contestants.ansible(made, envoy, r"changed=14\b")),
            ALL_OF_IT: _sampler(ALL_OF_IT, contestants.envoymesh(made, f"{FEW} changed")),
        }
        return _interleaved({name: _anew(made, sampler) for name, sampler in samplers.items()}, runs, notify)


def _measure_fleet(runs: int, notify: Notify) -> Measured:
    with _given("fleet", MANY, notify) as made:
        _provision(made, notify)
        few = ["--limit", ",".join(list(made.addresses)[:FEW])]
        all_of_them = _unchanged(made, MANY)
        samplers: dict[str, Sampler] = {
            OURS: _sampler(OURS, all_of_them),
            FLOOR: _sampler(FLOOR, contestants.floor(made), INSIDE),
            FOUR_OF_MANY: _sampler(FOUR_OF_MANY, _unchanged(made, FEW, *few)),
            MEMORY: lambda: {MEMORY: peak_mib(all_of_them)},
        }
        _warm(samplers, notify)
        return _interleaved(samplers, runs, notify)


def _measure_far(runs: int, notify: Notify) -> Measured:
    with ExitStack() as stack:
        made = stack.enter_context(_given("far", SOME, notify))
        _provision(made, notify)
        far = stack.enter_context(far_from(made, ROUND_TRIP_S / 2))
        samplers = {
            OURS: _sampler(OURS, _unchanged(made, SOME, namespace=far)),
            FLOOR: _sampler(FLOOR, contestants.floor(made, namespace=far), INSIDE),
        }
        _warm(samplers, notify)
        return _interleaved(samplers, runs, notify)


def _measure_planning(runs: int, notify: Notify) -> Measured:
    def sampler(hosts_: int) -> Sampler:
        argv = [contestants.PYTHON, "-m", "benchmarks.planning", str(hosts_)]
        return _sampler(planned(hosts_, whole=True), Command("planning", argv, ROOT), planned(hosts_, whole=False))

    samplers = {planned(count, whole=True): sampler(count) for count in PLANNED}
    _warm(samplers, notify)
    return _interleaved(samplers, runs, notify)


def _measure_list(runs: int, notify: Notify) -> Measured:
    command = Command("invoke --list", [contestants.PYTHON, "-m", "invoke", "--list"], ROOT, "provision")
    samplers = {OURS: _sampler(OURS, command)}
    _warm(samplers, notify)
    return _interleaved(samplers, runs, notify)


@contextmanager
def _traffic(name: str, notify: Notify) -> Iterator[Traffic]:
    """Give the data path of two hosts, and the sandbox's beside it."""
    with _given(name, 2, notify) as made:
        _provision(made, notify)
        traffic = Traffic(made)
        traffic.start_sandbox()
        yield traffic


def _measure_path(runs: int, notify: Notify) -> Measured:
    with _traffic("path", notify) as traffic:
        turns = [partial(traffic.sample, who, n) for n in path.CONNECTIONS for who in path.CONTESTANTS]
        return _in_turn(turns, runs, notify)


def _measure_settings(runs: int, notify: Notify) -> Measured:
    with _traffic("settings", notify) as traffic:

        def own() -> Mapping[str, float]:
            return traffic.sample(path.MESH, path.OPEN)

        def sandbox() -> Mapping[str, float]:
            return path.beside(own(), traffic.sample(path.SANDBOX, path.OPEN), path.SANDBOX)

        def variant(name: str) -> Mapping[str, float]:
            before = own()
            with traffic.changed(VARIANTS[name]):
                return path.beside(before, traffic.sample(path.MESH, path.OPEN, name), name)

        return _in_turn([own, sandbox, *(partial(variant, name) for name in VARIANTS)], runs, notify)


def _in_turn(turns: Sequence[Sampler], runs: int, notify: Notify) -> Measured:
    """Take a sample of each in turn, after one of each that does not count."""
    samples: dict[str, list[float]] = {}
    for number, order in enumerate(rounds(range(len(turns)), runs + 1)):
        notify(Event("", f"round {number} of {runs}" if number else "each once, unmeasured"))
        for turn in order:
            for series, value in turns[turn]().items():
                samples.setdefault(series, []).append(value)
    return {name: Series(tuple(values[1:]), path.unit(name)) for name, values in samples.items()}


def _warm(samplers: Mapping[str, Sampler], notify: Notify) -> None:
    notify(Event("", "each once, unmeasured"))
    for sampler in samplers.values():
        sampler()
    os.sync()


_MEASURES: Mapping[str, Callable[[int, Notify], Measured]] = {
    "nothing": _measure_nothing,
    "everything": _measure_everything,
    "fleet": _measure_fleet,
    "far": _measure_far,
    "planning": _measure_planning,
    "list": _measure_list,
    "path": _measure_path,
    "settings": _measure_settings,
}

_WITHOUT_HOSTS = ("planning", "list")

_RESOURCES = 14 * FEW
"""What the peers make, on all the hosts."""
