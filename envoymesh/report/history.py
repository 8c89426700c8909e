"""What runs have made of hosts: a table for people, JSON for programs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from envoymesh.model.mesh import HostName
from envoymesh.plan.generation import Generation, Run
from envoymesh.problems import DEFAULT_INVENTORY, ExitCode, Problem, counted, of_inventory
from envoymesh.report.table import table
from envoymesh.report.terminal import problem_json

Known = Mapping[HostName, Sequence[Generation]]


def history_text(known: Known, inventory: str = DEFAULT_INVENTORY) -> str:
    """Return a table of at most 100 columns, the last run first, and how to go back."""
    rows = [(run.name, run.who, _hosts(hosts), run.why) for run, hosts in _runs(known)]
    if not rows:
        return "no host keeps what a run made of it"
    back = "before the last run: ./mesh rollback    as a run left it: ./mesh rollback --to RUN"
    return "\n".join([*table(("RUN", "WHO", "HOSTS: CHANGES", "WHY"), rows), of_inventory(back, inventory)])


def _runs(known: Known) -> Iterator[tuple[Run, dict[HostName, Generation]]]:
    """Yield each run with what it made of each host, the last run first."""
    runs = sorted({g.run for kept in known.values() for g in kept}, reverse=True)
    for run in runs:
        yield run, {h: g for h, kept in known.items() for g in kept if g.run == run}


def _hosts(hosts: Mapping[HostName, Generation]) -> str:
    if len(hosts) > MOST_HOSTS:
        return f"{len(hosts)} hosts: {counted(sum(len(g.changes) for g in hosts.values()), 'change')}"
    return ", ".join(f"{host}: {len(generation.changes)}" for host, generation in hosts.items())


MOST_HOSTS = 5
"""Hosts that a table names for one run; more of them are counted."""


def history_json(known: Known, problems: Sequence[Problem], exit_code: ExitCode) -> str:
    """Return the runs as one JSON document; fields are only ever added to it."""
    document = {
        "version": 1,
        "exit_code": int(exit_code),
        "runs": [_run(run, hosts) for run, hosts in _runs(known)],
        "problems": [problem_json(p) for p in problems],
    }
    return json.dumps(document, indent=2)


def _run(run: Run, hosts: Mapping[HostName, Generation]) -> dict[str, Any]:
    kept = {host: {"generation": g.number, "changes": list(g.changes)} for host, g in hosts.items()}
    return {"run": run.name, "at": run.at.isoformat(), "who": run.who, "why": run.why, "hosts": kept}
