"""What was changed on all hosts or tried, merged by time: a table for people, JSON for programs."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from envoymesh.model.mesh import HostName
from envoymesh.plan.writer import Entry
from envoymesh.problems import ExitCode, Problem, counted
from envoymesh.report.table import table
from envoymesh.report.terminal import problem_json

Logs = Mapping[HostName, tuple[Sequence[Entry], int]]

_ENDINGS = {
    "done": "",
    "refused": ": refused, nothing was replaced",
    "restored": ": failed, put back",
    "stuck": ": failed, could not be put back",
    "unfinished": ": live, but not all that goes is gone",
}


def audit_text(logs: Logs, last: int) -> str:
    """Return a table of at most 100 columns, the last line first, and how many lines are damaged."""
    rows = [(f"{e.at:%Y-%m-%d %H:%M:%S}", host, e.who, _what(e), e.why) for host, e in merged(logs, last)]
    lines = table(("WHEN (UTC)", "HOST", "WHO", "WHAT", "WHY"), rows) if rows else ["no host has noted a change"]
    damaged = [f"{host}: {count}" for host, (_, count) in logs.items() if count]
    return "\n".join([*lines, *([f"damaged lines, left out: {', '.join(damaged)}"] if damaged else [])])


def merged(logs: Logs, last: int) -> list[tuple[HostName, Entry]]:
    """Return the last lines of all hosts together, the last one first; of one host they stay in its own order."""
    lines = [(host, entry) for host, (entries, _) in logs.items() for entry in reversed(entries)]
    return sorted(lines, key=lambda line: line[1].at, reverse=True)[:last]


def _what(entry: Entry) -> str:
    if entry.what == "lock release":
        return "lock taken from its holder"
    if entry.what == "reboot":
        return "reboot"
    taken_back = " taken back" if entry.what == "take-back" else ""
    return counted(len(entry.changes), "change") + taken_back + _ENDINGS.get(entry.ending, f": {entry.ending}")


def audit_json(logs: Logs, last: int, problems: Sequence[Problem], exit_code: ExitCode) -> str:
    """Return the lines as one JSON document, the last one first; fields are only ever added to it."""
    document = {
        "version": 1,
        "exit_code": int(exit_code),
        "entries": [_entry(host, entry) for host, entry in merged(logs, last)],
        "damaged": {host: count for host, (_, count) in logs.items() if count},
        "problems": [problem_json(p) for p in problems],
    }
    return json.dumps(document, indent=2)


def _entry(host: HostName, entry: Entry) -> dict[str, Any]:
    return {"host": host, **dataclasses.asdict(entry), "at": entry.at.isoformat()}
