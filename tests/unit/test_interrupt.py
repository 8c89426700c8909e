"""Ctrl-C while hosts change: once is a wish, twice is the end."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from envoymesh.events import Event
from envoymesh.run.interrupt import STOPS, first_one_stops


@pytest.fixture(autouse=True)
def python_s_own_handler() -> Iterator[None]:
    """What tests start from is as in a terminal; in the background of a shell, Ctrl-C would be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_one_asks_to_stop_and_says_so_and_the_second_one_interrupts() -> None:
    stop, told, heard = threading.Event(), list[Event](), threading.Event()

    def notify(event: Event) -> None:
        told.append(event)
        heard.set()

    with first_one_stops(stop, notify):
        assert not stop.is_set()
        press()
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            press()
    assert heard.wait(10)
    assert told == [Event("", STOPS)]


def test_after_it_the_next_one_interrupts_as_it_does_elsewhere() -> None:
    stop = threading.Event()
    with first_one_stops(stop, lambda event: None):
        press()
    with first_one_stops(stop, lambda event: None), pytest.raises(KeyboardInterrupt):
        press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_within_another_one_it_changes_nothing_even_after_the_first_ctrl_c() -> None:
    outer, inner = threading.Event(), threading.Event()
    with first_one_stops(outer, lambda event: None):
        press()
        with first_one_stops(inner, lambda event: None), pytest.raises(KeyboardInterrupt):
            press()
    assert outer.is_set()
    assert not inner.is_set()


def test_where_it_is_ignored_it_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = threading.Event()
    with first_one_stops(stop, lambda event: None):
        press()
    assert not stop.is_set()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
