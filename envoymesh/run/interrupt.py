"""Ctrl-C while hosts change: the first one is a wish to stop, the second one ends it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from envoymesh.events import Event, Notify
from envoymesh.problems import Problem

INTERRUPTED = Problem(
    code="run/interrupted",
    what="interrupted",
    now="a host that was being changed ends its change by itself or stays as it was; no file is half written",
    hint="complete it by the same command, or see what is left to do: ./mesh plan",
)

STOPS = "finishing the hosts in hand, starting no more; Ctrl-C again ends it now"


@contextmanager
def first_one_stops(stop: threading.Event, notify: Notify) -> Iterator[None]:
    """Have the first Ctrl-C set `stop`; later ones, and those after this, interrupt as they do elsewhere.

    Where Ctrl-C does something else already (it is ignored, has been pressed, or this is within another of these), it
    goes on doing that.
    """
    before = signal.getsignal(signal.SIGINT)
    here = threading.current_thread() is threading.main_thread()
    if not here or before is not signal.default_int_handler or stop.is_set():
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.default_int_handler(number, frame)
        stop.set()
        # A thread, as what was interrupted here may be in the middle of telling something.
        threading.Thread(target=notify, args=[Event("", STOPS)]).start()

    signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
