"""The audit log of a host: a line for every apply, every reboot and every lock that was taken from somebody."""

import gzip
import json
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime

from envoymesh.plan.change import Change
from envoymesh.plan.generation import Run
from envoymesh.plan.writer import Entry
from envoymesh.problems import Failed, Problem
from envoymesh.wire.frames import frames_from
from envoymesh.wire.lock import WRITER


def audit_script(count: int) -> str:
    """Return the bash text that reads the last `count` lines of a host's audit log."""
    return f"{WRITER}audit {count:d}\n"


def entry(run: Run, changes: Iterable[Change], takes_back: int | None) -> str:
    """Return what the log will say of an apply; the host adds when and how it ended."""
    done = [f"{c.action} {c.address}" for c in changes]
    return _line("take-back" if takes_back else "apply", run, done)


def release_entry(run: Run) -> str:
    """Return what the log will say of a lock that a run takes from whoever has it."""
    return _line("lock release", run, [])


def reboot_entry(run: Run) -> str:
    """Return what the log will say of a reboot; the host adds when."""
    return _line("reboot", run, [])


def _line(what: str, run: Run, changes: list[str]) -> str:
    return json.dumps({"what": what, "run": run.name, "who": run.who, "why": run.why, "changes": changes})


def entries_from(host: str, lines: Iterable[str]) -> tuple[tuple[Entry, ...], int]:
    """Return what `audit_script` printed, oldest first, and how many lines of it are damaged.

    Raises:
        Failed: it ended too early.
    """
    frames = list(frames_from(lines))
    if not frames or frames[-1].kind != "end":
        hint = f"look at the host: ./mesh exec {host} 'tail -n 3 /var/lib/envoymesh/audit'"
        raise Failed(Problem("audit/unreadable", "reading its audit log ended too early", host, hint=hint))
    try:
        data = b"".join(gzip.decompress(f.data(0)) for f in frames if f.kind == "audit")
    except (OSError, EOFError, ValueError, zlib.error):
        return (), 1
    found = [_entry(line) for line in data.decode(errors="replace").split("\n") if line]
    return tuple(e for e in found if e is not None), sum(e is None for e in found)


def _entry(line: str) -> Entry | None:
    try:
        said = json.loads(line)
        at = datetime.fromisoformat(said["at"]).astimezone(UTC)
        words = {name: str(said[name]) for name in ("what", "ending", "run", "who", "why")}
        return Entry(at=at, changes=tuple(map(str, said["changes"])), **words)
    except (LookupError, ValueError, TypeError):
        return None
