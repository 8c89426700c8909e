"""The last run that changed hosts, kept for `--limit @failed`: what became of each host, also where it was cut off.

Each inventory has its own: one beside it may have hosts of the same names.
"""

import json
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from envoymesh.events import Outcome, OutcomeKind
from envoymesh.model.mesh import HostName
from envoymesh.problems import Failed, Problem
from envoymesh.run.workspace import Workspace

_writes = threading.Lock()


def begin(workspace: Workspace, hosts: Iterable[HostName]) -> None:
    """Write that the run of this workspace has hosts to do; what it has done before counts on."""
    _write(workspace, {host: str(OutcomeKind.NOT_STARTED) for host in hosts})


def record(workspace: Workspace, outcomes: Iterable[Outcome]) -> None:
    """Write what became of hosts. Where that fails they count as not done: once too often, and no harm."""
    kinds = {o.host: str(o.kind) for o in outcomes}
    with suppress(OSError):
        if kinds:
            _write(workspace, kinds)


def _write(workspace: Workspace, kinds: dict[HostName, str]) -> None:
    path = _path(workspace)
    with _writes:
        last = _read(path) or {}
        known = last["hosts"] if last.get("run") == workspace.run.name else {}
        new = path.with_name(f".{path.name}.new")
        new.write_text(json.dumps({"run": workspace.run.name, "hosts": known | kinds}, indent=1), encoding="utf-8")
        new.replace(path)


def not_done(workspace: Workspace) -> frozenset[str]:
    """Return the hosts that the last run has not made as they are to be: failed, out of reach or not started.

    Raises:
        Failed: no run is known.
    """
    last = _read(_path(workspace))
    if last is None:
        what = "no run is known, so it cannot be said which hosts failed in the last one"
        raise Failed(Problem("run/none-known", what, "--limit", hint="leave `@failed` out: ./mesh provision"))
    done = (OutcomeKind.UNCHANGED, OutcomeKind.CHANGED)
    return frozenset(host for host, kind in last["hosts"].items() if kind not in done)


def _read(path: Path) -> Any:
    """Return what a run has written; None where there is nothing, or something else."""
    try:
        last = json.loads(path.read_text(encoding="utf-8"))
        return last if isinstance(last["run"], str) and isinstance(last["hosts"], dict) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _path(workspace: Workspace) -> Path:
    return workspace.state_dir / f"last-run-of-{workspace.inventory.resolve().name}.json"
