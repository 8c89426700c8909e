"""Asks for a secret on the terminal, wherever standard input and output go."""

import os
import signal
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TERMINAL = "/dev/tty"

_ERASE, _KILL, _INTERRUPT, _END = b"\x7f\b", b"\x15", b"\x03", b"\r\n\x04"

_one_at_a_time = threading.Lock()


def ask(question: str) -> bytes | None:
    """Return the line that is typed, without showing it; None where there is no terminal.

    Any thread may ask. Ctrl-C interrupts the run as it does elsewhere, and what was typed is empty.
    """
    with _one_at_a_time:
        try:
            terminal = os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY)
        except OSError:
            return None
        try:
            with _quiet(terminal):
                os.write(terminal, question.encode())
                typed = _typed(terminal)
                os.write(terminal, b"\n")
                return typed
        finally:
            os.close(terminal)


@contextmanager
def _quiet(terminal: int) -> Iterator[None]:
    """Have keys come one by one, unseen, and Ctrl-C as one of them: its signal would not wake the thread that reads."""
    before = termios.tcgetattr(terminal)
    quiet = termios.tcgetattr(terminal)
    quiet[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG)
    termios.tcsetattr(terminal, termios.TCSAFLUSH, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)


def _typed(terminal: int) -> bytes:
    line = bytearray()
    while (key := os.read(terminal, 1)) and key not in _END:
        if key in _INTERRUPT:
            os.kill(os.getpid(), signal.SIGINT)
            return b""
        if key in _ERASE:
            del line[-1:]
        elif key in _KILL:
            line.clear()
        else:
            line += key
    return bytes(line)
