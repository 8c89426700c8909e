"""Text for people: progress on standard error, answers on standard output.

What is put together here fits 100 columns; paths, diffs and what others have said are as long as they are.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text
from typing_extensions import override

from envoymesh.events import Event, Outcome, OutcomeKind
from envoymesh.plan.change import Action, Change
from envoymesh.problems import ExitCode, Problem, counted

WIDTH = 100
_MARKS = {Action.CREATE: "+", Action.DELETE: "-"}
_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


class _Pipe(Console):
    """A console whose reader may go (`| head`): the work and its exit code do not depend on being read."""

    @override
    def on_broken_pipe(self) -> None:
        _discard(sys.stderr.fileno() if self.stderr else sys.stdout.fileno())


def _discard(descriptor: int) -> None:
    """Let all that is still written there go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def say(data: bytes | str) -> None:
    """Write to standard output as it is, whatever the terminal's encoding."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data.encode() if isinstance(data, str) else data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _discard(sys.stdout.fileno())


class Terminal:
    """Prints events as they come, and results when they are there."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._out = _Pipe(width=WIDTH, highlight=False, soft_wrap=True)
        self._err = _Pipe(width=WIDTH, highlight=False, soft_wrap=True, stderr=True)
        self._quiet = quiet
        self._lock = threading.Lock()
        self._began = time.monotonic()

    def notify(self, event: Event) -> None:
        """Print one event with the seconds since the start."""
        if not self._quiet:
            seconds = f"{time.monotonic() - self._began:5.1f}s"
            with self._lock:
                self._err.print(
                    Text.assemble((seconds, "dim"), "  ", (f"{event.host or '-':<16}", "bold"), " ", event.text)
                )

    def line(self, text: str, style: str = "") -> None:
        """Print a line of the answer."""
        self._out.print(Text(text, style))

    def problems(self, problems: Sequence[Problem]) -> None:
        """Print problems, on standard error."""
        for problem in problems:
            first, *rest = str(problem).splitlines()
            self._err.print(Text(first, "bold red"))
            for line in rest:
                self._err.print(Text(line))

    def outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Print one line per host, the problems of those that have one, and a count."""
        for outcome in outcomes:
            text = counted(len(outcome.changes), "change") if outcome.changes else ""
            if outcome.problem is not None:
                text = outcome.problem.code
            self.line(f"{outcome.host:<16} {outcome.kind:<12} {text}".rstrip(), _style(outcome.kind))
        self.problems([o.problem for o in outcomes if o.problem is not None])
        self.line(summary(outcomes))

    def plan(self, outcomes: Sequence[Outcome]) -> None:
        """Print what would change, host by host, with diffs."""
        for outcome in outcomes:
            if outcome.changes:
                self.line(f"{outcome.host}", "bold")
            for change in outcome.changes:
                self._change(change)
        self.problems([o.problem for o in outcomes if o.problem is not None])
        same = [o.host for o in outcomes if o.kind is OutcomeKind.UNCHANGED]
        changed = sum(bool(o.changes) for o in outcomes)
        count = sum(len(o.changes) for o in outcomes)
        changes, hosts = counted(count, "change"), counted(changed, "host")
        self.line(f"{changes} on {hosts}; {counted(len(same), 'host')} as desired")

    def _change(self, change: Change) -> None:
        mark = _MARKS.get(change.action, "~")
        self.line(f"  {mark} {change.action:<8} {change.address}  ({change.because})")
        for line in change.diff.splitlines():
            self.line(f"      {line}", _DIFF_STYLES.get(line[:1], ""))


def _style(kind: OutcomeKind) -> str:
    return {OutcomeKind.UNCHANGED: "dim", OutcomeKind.CHANGED: "green"}.get(kind, "red")


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return `2 changed, 1 unchanged`: how many hosts had which outcome."""
    counts = ((kind, sum(o.kind is kind for o in outcomes)) for kind in OutcomeKind)
    return ", ".join(f"{count} {kind}" for kind, count in counts if count) or "no hosts"


def outcomes_json(outcomes: Sequence[Outcome], exit_code: ExitCode) -> str:
    """Return the outcomes as one JSON document; fields are only ever added to it."""
    return json.dumps({"version": 1, "exit_code": int(exit_code), "hosts": [_outcome(o) for o in outcomes]}, indent=2)


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "host": outcome.host,
        "outcome": outcome.kind,
        "changes": [
            {"address": c.address, "action": c.action, "because": c.because, "diff": c.diff} for c in outcome.changes
        ],
        "problem": problem_json(outcome.problem) if outcome.problem else None,
    }


def problems_json(problems: Sequence[Problem], exit_code: ExitCode) -> str:
    """Return what stopped a command before it had an answer, as one JSON document; fields are only ever added to it."""
    document = {"version": 1, "exit_code": int(exit_code), "problems": [problem_json(p) for p in problems]}
    return json.dumps(document, indent=2)


def problem_json(problem: Problem) -> dict[str, Any]:
    """Return a problem as JSON data."""
    return {
        "code": problem.code,
        "what": problem.what,
        "at": problem.at,
        "saw": list(problem.saw),
        "now": problem.now,
        "hint": problem.hint,
    }
