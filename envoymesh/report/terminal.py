"""Text for people: progress on standard error, answers on standard output.

What is put together here fits 100 columns; paths, diffs and what others have said are as long as they are.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text
from typing_extensions import override

from envoymesh.events import Event
from envoymesh.problems import ExitCode, Problem

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

    def lines(self, lines: Iterable[tuple[str, str]]) -> None:
        """Print lines of the answer, each with its style."""
        for text, style in lines:
            self.line(text, style)


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
