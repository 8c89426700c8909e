"""Text for people: progress on standard error, answers on standard output.

What is put together here fits 100 columns; paths, diffs and what others have said are as long as they are.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, Self

from rich.console import Console
from rich.text import Text
from typing_extensions import override

from envoymesh.events import Event, EventKind
from envoymesh.problems import DEFAULT_INVENTORY, ExitCode, Problem
from envoymesh.report.progress import Board, Live

WIDTH = 100


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
    """Shows events as they come, and results when they are there.

    Events are a table on a terminal, which goes before a result is printed, and lines elsewhere. `json` makes them
    JSON, a line for each; `quiet` shows none, `verbose` a line for every one. `inventory` is what commands that it
    shows are to be for.
    """

    def __init__(
        self, *, json: bool = False, quiet: bool = False, verbose: bool = False, inventory: str = DEFAULT_INVENTORY
    ) -> None:
        self.json = json
        self.inventory = inventory
        self._out = _Pipe(width=WIDTH, highlight=False, soft_wrap=True)
        self._err = _Pipe(width=WIDTH, highlight=False, soft_wrap=True, stderr=True)
        self._quiet, self._verbose = quiet, verbose
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._draws = sys.stderr.isatty() and not (self._err.is_dumb_terminal or json or verbose)
        self._board = Board()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.rest()

    def notify(self, event: Event) -> None:
        """Show one event, with the seconds since the start."""
        if self._quiet:
            return
        seconds = time.monotonic() - self._began
        with self._lock:
            if self._draws:
                self._board.take(event, seconds)
                self._live = self._live or Live(self._lines)
            elif self.json:
                self._err.print(Text(event_json(event, seconds)))
            elif event.text and (self._verbose or not event.minor):
                host = (f"{event.host or '-':<16}", "bold")
                self._err.print(Text.assemble((f"{seconds:5.1f}s", "dim"), "  ", host, " ", event.text))

    def _lines(self, width: int, height: int) -> list[str]:
        with self._lock:
            return self._board.lines(time.monotonic() - self._began, width, height)

    def rest(self) -> None:
        """Take the table away, until the next event."""
        live, self._live = self._live, None
        if live is not None:
            live.end()

    def line(self, text: str, style: str = "") -> None:
        """Print a line of the answer."""
        self.rest()
        self._out.print(Text(text, style))

    def problems(self, problems: Sequence[Problem]) -> None:
        """Print problems, on standard error."""
        self.rest()
        for problem in problems:
            first, *rest = str(problem).splitlines()
            self._err.print(Text(first, "bold red"))
            for line in rest:
                self._err.print(Text(line))

    def lines(self, lines: Iterable[tuple[str, str]]) -> None:
        """Print lines of the answer, each with its style."""
        for text, style in lines:
            self.line(text, style)


def event_json(event: Event, seconds: float) -> str:
    """Return an event as a line of JSON; fields are only ever added to it."""
    bytes_ = {"sent": event.sent, "total": event.total} if event.kind is EventKind.SENT else {}
    about = {"seconds": round(seconds, 3), "host": event.host, "kind": event.kind, "text": event.text}
    return json.dumps(about | bytes_)


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
