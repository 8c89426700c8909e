"""Progress as a table that is drawn over and over: who is at what, for how long, and how many wait and are done."""

import os
import sys
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from envoymesh.events import Event, EventKind, megabytes_sent
from envoymesh.problems import counted

WIDTH = 100
MOST_ROWS = 16
"""Hosts at work that are shown, on however high a terminal; the others are counted."""

EVERY_S = 0.2


@dataclass(frozen=True)
class _Step:
    """What a host is at, since when (seconds from the start), and how much of what it gets has been sent."""

    text: str
    since: float
    sent: int = 0
    total: int = 0


class Board:
    """What each host of a run is at, as its events tell."""

    def __init__(self) -> None:
        self._at_work: dict[str, _Step] = {}
        self._waiting: set[str] = set()
        self._done: set[str] = set()
        self._what = ""

    def take(self, event: Event, at: float) -> None:
        """Take an event that came `at` seconds from the start."""
        host = event.host
        if not host:
            self._what = event.text
            return
        if event.kind in (EventKind.STEP, EventKind.SENT):
            step = self._at_work.get(host, _Step("", at))
            sent = replace(step, sent=event.sent, total=event.total)
            self._at_work[host] = sent if event.kind is EventKind.SENT else replace(step, text=event.text, since=at)
        else:
            self._at_work.pop(host, None)
        for kind, hosts in ((EventKind.WAITS, self._waiting), (EventKind.ENDS, self._done)):
            (hosts.add if event.kind is kind else hosts.discard)(host)

    def lines(self, at: float, width: int, height: int) -> list[str]:
        """Return the table `at` so many seconds: below `height` lines of at most `width` columns, and at most 100.

        The hosts that have been at work for longest come first.
        """
        width, rows = min(width, WIDTH), max(min(MOST_ROWS, height - 4), 1)
        shown = list(self._at_work.items())[:rows]
        names = max((len(name) for name, _ in shown), default=0)
        lines = [_line(f"{name:<{names}}  {_words(step)}", at - step.since, width) for name, step in shown]
        more = len(self._at_work) - len(shown)
        lines += [f"… and {counted(more, 'host')} more at work"[:width]] if more else []
        return [*lines, *([_cut(self._what, width)] if self._what else []), _line(self._counts(), at, width)]

    def _counts(self) -> str:
        counts = (len(self._at_work), "at work"), (len(self._waiting), "waiting"), (len(self._done), "done")
        return ", ".join(f"{count} {word}" for count, word in counts)


def _words(step: _Step) -> str:
    return f"{step.text}  ({megabytes_sent(step.sent, step.total)})" if 0 < step.sent < step.total else step.text


def _line(text: str, seconds: float, width: int) -> str:
    clock = f"  {int(seconds) // 60}:{int(seconds) % 60:02}"
    room = max(width - len(clock), 0)
    return f"{_cut(text, room):<{room}}{clock}"[:width]


def _cut(text: str, width: int) -> str:
    """Return text of one line; what a terminal would obey or cannot show is a space."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


class Live:
    """Draws lines on the terminal of standard error again and again, each time over the last ones.

    The cursor stays visible and below them, so that nothing has to be set right where the tool is killed. While
    somebody types a secret there (it does not echo), nothing is drawn, and after that it is drawn below.
    """

    def __init__(self, lines: Callable[[int, int], list[str]]) -> None:
        self._lines = lines
        self._drawn = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw_on, name="progress", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Draw no more, and take away what was drawn."""
        self._over.set()
        self._thread.join()
        self._draw([])

    def _draw_on(self) -> None:
        while not self._over.wait(EVERY_S):
            with suppress(OSError):
                size = os.get_terminal_size(sys.stderr.fileno())
                self._draw(self._lines(size.columns, size.lines))

    def _draw(self, lines: list[str]) -> None:
        with suppress(OSError, termios.error):  # the terminal has gone
            if not termios.tcgetattr(sys.stderr.fileno())[3] & termios.ECHO:
                self._drawn = 0
                return
            sys.stderr.write(redrawn(self._drawn, lines))
            sys.stderr.flush()
            self._drawn = len(lines)


def redrawn(before: int, lines: list[str]) -> str:
    """Return what a terminal needs to show `lines` in the place of the last `before` ones."""
    up = f"\x1b[{before}F" if before else ""
    return f"{up}\x1b[J" + "".join(f"{line}\n" for line in lines) if before or lines else ""
