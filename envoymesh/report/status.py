"""The state of every host: a table for people, JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from envoymesh.findings import HostStatus, State
from envoymesh.report.table import table

_WORST_FIRST = list(State)


def status_text(rows: Sequence[HostStatus]) -> str:
    """Return a table of at most 100 columns, the worst hosts first, and a line for each thing that is wrong."""
    ordered = sorted(rows, key=lambda r: _WORST_FIRST.index(r.state))
    titles = ("HOST", "ROLE", "ADDRESS", "STATE", "ACTIVE", "ENVOY", "XDS", "HEALTHY", "CERT")
    return "\n".join([*table(titles, map(_cells, ordered)), *_notes(ordered), summary(rows)])


def _cells(row: HostStatus) -> list[str]:
    state = row.state if row.state is State.OK else row.state.upper()
    envoy = f"{row.version} {row.envoy}".strip() or "-"
    xds = {True: "synced", False: "STALE", None: "-"}[row.synced]
    members = " ".join(f"{name} {healthy}/{total}" for name, (healthy, total) in row.members.items())
    seen = f"seen by {row.seen_by[0]}/{row.seen_by[1]}" if row.seen_by else "-"
    days = "-" if row.certificate_days is None else f"{row.certificate_days}d"
    return [row.host, row.role, row.address, state, _active(row), envoy, xds, members or seen, days]


def _active(row: HostStatus) -> str:
    """Return the units that are active, in short: `app` whatever its release. What another is, a note says."""
    active = (name for name, word in row.units.items() if word == "active")
    short = (name.removeprefix("envoymesh-").removesuffix(".service").partition("-")[0] for name in active)
    return ", ".join(short) or "-"


def _notes(rows: Sequence[HostStatus]) -> list[str]:
    return [f"{row.host}: {note}" for row in rows for note in row.notes]


def summary(rows: Sequence[HostStatus]) -> str:
    """Return `1 unreachable, 2 ok`: how many hosts are in which state."""
    counts = ((state, sum(r.state is state for r in rows)) for state in State)
    return ", ".join(f"{count} {state}" for state, count in counts if count) or "no hosts"


def status_json(rows: Sequence[HostStatus]) -> str:
    """Return the hosts as one JSON document; fields are only ever added to it.

    `version` 1 and `hosts`, in the inventory's order: the attributes of `HostStatus`, and `reachable`.
    """
    return json.dumps({"version": 1, "hosts": [_host(row) for row in rows]}, indent=2)


def _host(row: HostStatus) -> dict[str, Any]:
    return {
        **asdict(row),
        "members": {name: {"healthy": healthy, "total": total} for name, (healthy, total) in row.members.items()},
        "seen_by": {"healthy": row.seen_by[0], "fronts": row.seen_by[1]} if row.seen_by else None,
        "reachable": row.reachable,
    }
