"""Converge: read hosts, plan, apply; one execution to read a host and one to change it."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from typing_extensions import override

from envoymesh.events import Event, EventKind, Notify, Outcome, OutcomeKind, end_of, failed_outcome, megabytes_sent
from envoymesh.model.mesh import HostName
from envoymesh.plan.change import HostPlan
from envoymesh.plan.generation import Run
from envoymesh.plan.observed import Observed
from envoymesh.plan.planner import plan_for
from envoymesh.problems import Failed, Problem, counted
from envoymesh.resources import Artifact, Resource
from envoymesh.run.artifacts import blob_for
from envoymesh.run.fleet import Fleet
from envoymesh.run.last_run import record
from envoymesh.run.workspace import Workspace
from envoymesh.wire.apply import APPLY_SCRIPT, Call, Parcel, Payload, payload_for
from envoymesh.wire.frames import Frame, frame_from, frames_from
from envoymesh.wire.gather import Asked, Dial, gather_script, observed_from
from envoymesh.wire.lock import locking, refuse_held

GATHER_TIMEOUT_S = 60.0
APPLY_TIMEOUT_S = 600.0
"""So long an apply may take, and longer for what is to be sent."""

SLOWEST_BYTES_PER_S = 20_000.0
"""What a host gets at least of a line that many share: 1 Mbit/s among six hosts."""

SLICE_BYTES = 256 * 1024

Desired = Mapping[HostName, Sequence[Resource]]


@dataclass(frozen=True)
class Reading:
    """A host as it was read, and what would have to change on it.

    With `exact` it is this plan that is wanted, no other: a host that has moved meanwhile is left as it is.

    `lock` names the run that has taken the host's lock to read it; empty where none was taken.

    What the host is made to have is a generation of its own, unless it `takes_back` one: the number of that one, which
    the host forgets, or 0 where there is none to forget.
    """

    observed: Observed
    plan: HostPlan
    exact: bool = False
    lock: str = ""
    takes_back: int | None = None


def read(  # noqa: PLR0913, PLR0917 - what to read, where, and whether to take the lock
    fleet: Fleet,
    host: HostName,
    resources: Sequence[Resource],
    asked: Asked = (),
    dial: Dial = (),
    run: Run | None = None,
) -> Reading:
    """Read `host` in one execution and plan it; for a `run` that will change it, take its lock first.

    Raises:
        Failed: the host is out of reach, cannot be read, cannot have what is desired, or another has its lock.
    """
    script = gather_script(resources, asked, dial)
    executed = fleet.session(host).exec(locking(run, script) if run else script, timeout_s=GATHER_TIMEOUT_S)
    lines = executed.stdout.decode(errors="replace").split("\n")  # splitlines would split at a frame's mark
    refuse_held(host, lines)
    try:
        observed = observed_from(host, lines, resources, asked, dial)
    except Failed as failed:
        saw = tuple(executed.stderr.decode(errors="replace").splitlines()[-5:])
        raise Failed(*(replace(p, saw=saw) for p in failed.problems)) from None
    return Reading(observed, plan_for(host, resources, observed), lock=run.name if run else "")


class _Meanwhile(Mapping[HostName, Sequence[Resource]]):
    """What hosts must have, which whoever asks first may have to wait for."""

    def __init__(self, hosts: Sequence[HostName], found: Future[Desired]) -> None:
        self._hosts, self._found = hosts, found

    @override
    def __getitem__(self, host: HostName) -> Sequence[Resource]:
        return self._found.result()[host]

    @override
    def __iter__(self) -> Iterator[HostName]:
        return iter(self._hosts)

    @override
    def __len__(self) -> int:
        return len(self._hosts)


@contextmanager
def meanwhile(hosts: Sequence[HostName], find: Callable[[], Desired]) -> Iterator[Desired]:
    """Give what `hosts` must have, which is found out while they are connected to.

    Raises:
        Failed: what `find` raises, in the end.
    """
    with ThreadPoolExecutor(max_workers=1) as beside:
        found = beside.submit(find)
        yield _Meanwhile(hosts, found)
        found.result()


def read_all(fleet: Fleet, desired: Desired, asked: Asked = ()) -> dict[HostName, Reading | Problem]:
    """Read the hosts of `desired`, all at once."""
    return fleet.each(desired, reader(fleet, desired, asked))


def reader(fleet: Fleet, desired: Desired, asked: Asked = (), run: Run | None = None) -> Callable[[HostName], Reading]:
    """Return how to read a host of `desired` once all are to be read, and tell of them: what `read` does, connected."""

    def work(host: HostName) -> Reading:
        fleet.session(host)
        fleet.notify(Event(host, "is read", minor=True))
        reading = read(fleet, host, desired[host], asked, run=run)
        fleet.notify(Event(host, "", EventKind.WAITS, minor=True))
        return reading

    for host in desired:
        fleet.notify(Event(host, "", EventKind.WAITS, minor=True))
    return work


def apply(fleet: Fleet, reading: Reading, workspace: Workspace, notify: Notify) -> Outcome:
    """Make the plan of a reading true, in one execution; nothing is executed where nothing changes.

    A host on which another apply was at work meanwhile is read once more, unless its reading is exact or a generation
    is to be taken back: then it is left as it is.

    Raises:
        Failed: the host was lost, refused, or put back what it had begun; the problem says which.
    """
    plan = reading.plan
    while plan.changes:
        parcels = dict(_parcels(reading, workspace.cache, notify))
        payload = payload_for(plan, workspace.run, parcels, lock=reading.lock, takes_back=reading.takes_back)
        bulk = f", {payload.size_bytes / 1e6:.0f} MB to send" if payload.size_bytes > 1e6 else ""
        notify(Event(plan.host, counted(len(plan.changes), "change") + bulk))
        lines = _executed(fleet, payload, notify)
        if _ending(lines) != "moved":
            problem = apply_problem(payload, lines)
            if problem is not None:
                raise Failed(problem)
            return Outcome(plan.host, OutcomeKind.CHANGED, plan.changes)
        if reading.takes_back or reading.exact:
            raise Failed(_moved(plan.host))
        notify(Event(plan.host, "another apply has changed it meanwhile; reading once more"))
        once_more = read(fleet, plan.host, plan.desired, run=workspace.run if reading.lock else None)
        plan = replace(once_more.plan, alone=plan.alone)
        reading = replace(once_more, plan=plan, takes_back=reading.takes_back)
    return Outcome(plan.host, OutcomeKind.UNCHANGED)


def _moved(host: HostName) -> Problem:
    what, now = f"another apply has changed `{host}` meanwhile", f"{host}: it is as that apply has left it"
    return Problem("apply/moved", what, host, now=now, hint=f"./mesh history --limit {host}")


def _executed(fleet: Fleet, payload: Payload, notify: Notify) -> list[str]:
    """Return the lines that an apply printed; tell its longer steps as they begin."""
    host, lines = HostName(payload.host), list[str]()

    def on_line(line: str) -> None:
        lines.append(line)
        frame = frame_from(line)
        if frame is not None and frame.kind == "unnoted":
            notify(Event(host, f"its audit log could not be written: {frame.text(0).strip()}"))
        call = _call_of(payload, frame)
        if call is not None:
            word = _WORDS.get(call.verb, f"{call.verb.replace('_', ' ')}:")
            notify(Event(host, f"{word} {call.address}", minor=call.verb not in _LONG))

    session = fleet.session(host)
    try:
        timeout_s = APPLY_TIMEOUT_S + payload.size_bytes / SLOWEST_BYTES_PER_S
        session.exec(APPLY_SCRIPT, stdin=_told(payload, notify), on_line=on_line, timeout_s=timeout_s)
    except Failed as failed:
        raise Failed(*(_lost(p, host) for p in failed.problems)) from None
    return lines


def _ending(lines: Sequence[str]) -> str:
    """Return how an apply says that it ended: done, refused, restored, stuck, moved, or nothing."""
    return next((f.fields[0] for f in frames_from(lines) if f.kind == "end"), "")


_LONG = ("artifact", "validate", "leave", "restart", "hot_restart", "ready", "await_idle")
"""Steps that take long enough to be told to everybody."""

_WORDS = {
    **{"artifact": "receives", "validate": "validates", "ready": "waits for"},
    **{"restart": "starts", "hot_restart": "hot restarts"},
    **{"leave": "lets its clients leave", "come_back": "takes clients again:"},
    **{"begin": "takes", "remember": "writes", "user": "makes", "directory": "makes", "stage": "stages"},
    **{"generation": "stages", "commit": "renames", "settle": "has settled", "keep": "keeps", "drop": "drops"},
    **{"reload": "reloads", "enable": "enables", "rename_again": "renames once more", "forget": "forgets"},
    "await_idle": "lets finish",
    **{f"remove_{kind}": "removes" for kind in ("unit", "file", "artifact", "directory", "user")},
}

SENT_EVERY_S, SENT_TO_ALL_EVERY_S = 0.5, 10.0
"""How often it is told how much has been sent; the second one, also to those who do not follow every step."""


def _told(payload: Payload, notify: Notify) -> Iterator[bytes]:
    """Yield what is sent, and tell how much of it has been."""
    sent, to_all = 0, time.monotonic()
    told = to_all
    for piece in payload.stream():
        yield piece
        sent, now = min(sent + len(piece), payload.size_bytes), time.monotonic()
        if now - told < SENT_EVERY_S:
            continue
        told, minor = now, now - to_all < SENT_TO_ALL_EVERY_S
        to_all = to_all if minor else now
        event = Event(payload.host, megabytes_sent(sent, payload.size_bytes), EventKind.SENT, minor=minor)
        notify(replace(event, sent=sent, total=payload.size_bytes))


def _call_of(payload: Payload, frame: Frame | None) -> Call | None:
    """Return the step that a frame names."""
    if frame is None or frame.kind not in ("at", "problem"):
        return None
    return payload.calls[int(frame.fields[-1 if frame.kind == "at" else 1])]


def apply_all(fleet: Fleet, readings: Iterable[Reading], workspace: Workspace, notify: Notify) -> list[Outcome]:
    """Apply the plans of `readings`, all at once; once the run is to stop, no further one is begun."""
    by_host = {r.plan.host: r for r in readings}

    def work(host: HostName) -> Outcome:
        if workspace.stop.is_set():
            return Outcome(host, OutcomeKind.NOT_STARTED, by_host[host].plan.changes)
        try:
            outcome = apply(fleet, by_host[host], workspace, notify)
        except Failed as failed:
            outcome = failed_outcome(host, failed.problems[0])
        record(workspace, [outcome])
        notify(end_of(outcome))
        return outcome

    results = fleet.each(by_host, work)
    return [failed_outcome(h, r) if isinstance(r, Problem) else r for h, r in results.items()]


def _parcels(reading: Reading, cache: Path, notify: Notify) -> Iterator[tuple[str, Parcel]]:
    plan, platform = reading.plan, reading.observed.platform
    for change in plan.changes:
        if isinstance(change.resource, Artifact):
            blob = blob_for(change.resource.source, platform, cache, lambda text: notify(Event(plan.host, text)))
            yield change.address, Parcel(blob.size, blob.sha256, partial(_slices, blob.path))


def _slices(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(SLICE_BYTES):
            yield part


_NOW = {
    "refused": "{host}: nothing was replaced; what served before still serves",
    "restored": "{host}: what had been replaced was put back and serves again",
    "stuck": "{host}: some of the change is live and could not be put back",
    "unfinished": "{host}: the change is live and serves; of what nothing asks for any more, some is still there",
}

_WHAT = {
    "lock/held": "another apply is at work on `{host}`",
    "lock/lost": "this run no longer has the lock of `{host}`",
    "apply/not-begun": "no change could be begun on `{host}`",
    "apply/not-stored": "`{host}` could not store {step}",
    "envoy/refused": "Envoy refuses the new configuration of `{host}`, so it was not installed",
    "unit/not-started": "systemd could not start {step} on `{host}`",
    "unit/not-replaced": "no new process could take over {step} on `{host}`",
    "unit/not-ready": "{step} did not become ready on `{host}`",
    "apply/cut-off": "`{host}` did not receive the whole change",
}

_ROOM = (
    'look for space, and for what is mounted read-only: ./mesh exec {host} "df -h; findmnt -O ro"    '
    "then: ./mesh provision --limit {host}"
)

_HINTS = {
    "lock/held": "wait until it has ended, then: ./mesh provision --limit {host}",
    "lock/lost": "see who has it: ./mesh lock-status    then: ./mesh provision --limit {host}",
    "apply/not-begun": _ROOM,
    "apply/not-stored": _ROOM,
    "envoy/refused": "mend what Envoy names in inventory.yaml or templates/, then: ./mesh plan --limit {host}",
}

_HINT = 'look at the host: ./mesh exec {host} "journalctl -n 30 --no-pager"    then: ./mesh provision --limit {host}'


def apply_problem(payload: Payload, lines: Sequence[str]) -> Problem | None:
    """Return what went wrong in an apply that printed `lines`, or None when it was done. Pure."""
    end = _ending(lines)
    if end == "done":
        return None
    said = next((f for f in frames_from(lines) if f.kind == "problem"), None)
    call = _call_of(payload, said)
    code, step = (said.fields[0] if said else "apply/cut-off"), (call.address if call else "host:apply")
    words = {"host": payload.host, "step": step}
    return Problem(
        code=code,
        what=_WHAT.get(code, "{step} failed on `{host}`").format(**words),
        at=f"{payload.host}  {step}",
        saw=tuple(said.text(2).splitlines()) if said else tuple(line for line in lines if line)[-5:],
        now=_NOW.get(end, "{host}: its apply was cut off; the next provision completes it").format(**words),
        hint=_HINTS.get(code, _HINT).format(**words),
    )


def _lost(problem: Problem, host: str) -> Problem:
    now = f"{host}: its apply was cut off; the next provision completes it"
    return replace(problem, now=now, hint=f"./mesh provision --limit {host}")
