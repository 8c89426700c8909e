"""Holds the unit layer to its word: no socket, no process, no sleep."""

import sys
import time
from collections.abc import Iterator

import pytest

FORBIDDEN = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.system",
    "socket.bind",
    "socket.connect",
    "socket.getaddrinfo",
    "socket.sendto",
    "subprocess.Popen",
}


class NotPure(BaseException):
    """A unit test did what belongs to another layer. No `except Exception` of the code under test swallows it."""


def refuse(*call: object) -> None:
    """Fail the test that makes this call."""
    raise NotPure(f"not for a unit test: {call}")


class _Watch:
    """One audit hook for the whole run, as Python cannot take one away; it looks only while a unit test runs."""

    def __init__(self) -> None:
        self.on = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: object) -> None:
        if self.on and event in FORBIDDEN:
            refuse(event, arguments)


_watch = _Watch()


@pytest.fixture(autouse=True)
def pure(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forbid sockets, processes and sleep while a unit test runs."""
    monkeypatch.setattr(time, "sleep", refuse)  # an audit event from Python 3.13 on
    _watch.on = True
    yield
    _watch.on = False
