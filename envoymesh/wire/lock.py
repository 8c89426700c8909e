"""The lock of a host: taken with the reading of a run that will change it, free when its connection ends."""

import json
import shlex
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.resources import files

from envoymesh.plan.generation import Run
from envoymesh.plan.writer import Lock
from envoymesh.problems import Failed, Problem
from envoymesh.wire.frames import Frame, frames_from

WRITER = (files("envoymesh.wire") / "writer.sh").read_text(encoding="utf-8")
"""The bash functions of the lock and the audit log."""

EXPIRES_AFTER_S = 3600
"""How long a lock holds at most. For a box that lost its power: the host's sshd would notice after two hours."""

STATUS_SCRIPT = f"{WRITER}lock_status\n"
"""The bash text that tells who has the lock of a host."""


def locking(run: Run, script: str) -> str:
    """Return a script that takes the lock of a host for a run and goes on with `script` if it has it."""
    record = json.dumps({"who": run.who, "why": run.why})
    return f"{WRITER}{shlex.join(('lock', run.name, str(EXPIRES_AFTER_S), record))}\n{script}"


def giving_back(run: Run) -> str:
    """Return the bash text that gives the lock of a run back."""
    return f"{WRITER}give_back {shlex.quote(run.name)}\nframe end\n"


def releasing(entry: str) -> str:
    """Return the bash text that takes the lock from whoever has it, and notes that in the audit log as `entry`."""
    return f"{WRITER}if give_back ''; then note released {shlex.quote(entry)}; fi\nframe end\n"


def lock_from(lines: Iterable[str]) -> Lock | None:
    """Return the lock that a script tells of, None if nobody has it."""
    frame = _frame(lines)
    return None if frame is None else _lock(frame.text(1))


def refuse_held(host: str, lines: Iterable[str]) -> None:
    """See that a script of `locking` has the lock.

    Raises:
        Failed: another has it (`lock/held`), or the host could not keep it (`lock/failed`).
    """
    frame = _frame(lines)
    if frame is None:
        return
    if frame.fields[0] == "held":
        raise Failed(held_problem(host, _lock(frame.text(1))))
    what, hint = f"the lock of `{host}` could not be taken", f'./mesh exec {host} "df -h /run; mount | grep /run"'
    saw = tuple(frame.text(1).strip().splitlines())
    raise Failed(Problem("lock/failed", what, host, saw, f"{host}: nothing was changed", hint))


def held_problem(host: str, lock: Lock) -> Problem:
    """Return what stops a run on a host whose lock another has."""
    until = f"since {lock.since:%Y-%m-%d %H:%M:%S} UTC, until {lock.until:%H:%M:%S} at the latest"
    return Problem(
        code="lock/held",
        what="another operator is changing these hosts",
        at=host,
        saw=(f"{lock.who}: {lock.why}", f"{until}  (run {lock.run})"),
        now="this command has changed nothing on them",
        hint="wait for it: the same command with --lock-wait 300\n"
        "if nobody is at work any more: ./mesh lock-release, then the same command",
    )


def _frame(lines: Iterable[str]) -> Frame | None:
    return next((f for f in frames_from(lines) if f.kind == "lock"), None)


def _lock(text: str) -> Lock:
    """Return what a host keeps of a lock; what is missing there, as it was being written, is unknown."""
    first, _, record = text.partition("\n")
    try:
        _, _, run, since, until = first.split(" ")
        said = json.loads(record)
        times = (datetime.fromtimestamp(int(since), UTC), datetime.fromtimestamp(int(until), UTC))
        return Lock(run, str(said["who"]), str(said["why"]), *times)
    except (LookupError, ValueError, TypeError, OverflowError, OSError):
        epoch = datetime.fromtimestamp(0, UTC)
        return Lock("unknown", "unknown", "unknown", epoch, epoch)
