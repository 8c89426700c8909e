"""Who has the lock of which host: a table for people, JSON for programs."""

import json
from collections.abc import Mapping, Sequence

from envoymesh.model.mesh import HostName
from envoymesh.plan.writer import Lock
from envoymesh.problems import ExitCode, Problem
from envoymesh.report.table import table
from envoymesh.report.terminal import problem_json

Locks = Mapping[HostName, Lock | None]


def locks_text(locks: Locks, free: str) -> str:
    """Return a table of at most 100 columns; `free` is said of a host whose lock nobody has."""
    rows = [(host, *(_cells(lock) if lock else (free, "", "", ""))) for host, lock in locks.items()]
    return "\n".join(table(("HOST", "LOCK OF", "SINCE (UTC)", "UNTIL", "WHY"), rows))


def _cells(lock: Lock) -> tuple[str, str, str, str]:
    return lock.who, f"{lock.since:%Y-%m-%d %H:%M:%S}", f"{lock.until:%H:%M:%S}", lock.why


def locks_json(locks: Locks, problems: Sequence[Problem], exit_code: ExitCode) -> str:
    """Return who has which lock as one JSON document; fields are only ever added to it."""
    document = {
        "version": 1,
        "exit_code": int(exit_code),
        "hosts": [{"host": host, "lock": _lock(lock) if lock else None} for host, lock in locks.items()],
        "problems": [problem_json(p) for p in problems],
    }
    return json.dumps(document, indent=2)


def _lock(lock: Lock) -> dict[str, str]:
    since, until = lock.since.isoformat(), lock.until.isoformat()
    return {"run": lock.run, "who": lock.who, "why": lock.why, "since": since, "until": until}
