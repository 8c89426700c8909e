"""A terminal with somebody at it, for what asks on one."""

import fcntl
import os
import pty
import termios
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import pytest

from envoymesh.transport import prompt


class Terminal:
    """What was shown on the terminal so far."""

    def __init__(self, device: int) -> None:
        self._device = device
        self.shown = ""

    def take(self) -> None:
        """Make it the terminal of the process that calls, which must lead a session of its own."""
        fcntl.ioctl(self._device, termios.TIOCSCTTY, 0)

    @property
    def echoes(self) -> bool:
        """Whether keys are shown, as they are when nobody asks."""
        return bool(termios.tcgetattr(self._device)[3] & termios.ECHO)


@contextmanager
def terminal(answers: Mapping[str, bytes]) -> Iterator[Terminal]:
    """Give each question the keys of the first of `answers` that is part of it."""
    near, far = pty.openpty()
    at = Terminal(far)

    def sit() -> None:
        answered = 0
        with suppress(OSError):  # what a terminal says when its other end is closed
            while shown := os.read(near, 1024):
                at.shown += shown.decode()
                if at.shown.endswith(": ") and len(at.shown) > answered:
                    question, answered = at.shown[answered:], len(at.shown)
                    os.write(near, next(keys for part, keys in answers.items() if part in question))

    person = threading.Thread(target=sit)
    person.start()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prompt, "TERMINAL", os.ttyname(far))
        try:
            yield at
        finally:
            os.close(far)
            person.join(10)
            os.close(near)
