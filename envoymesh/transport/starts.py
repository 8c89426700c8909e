"""When a connection may be started: what an sshd has to log in at once is limited, and what it drops is tried again."""

import random
import threading
from collections import defaultdict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from envoymesh.transport.openssh import Target

AT_ONCE = 8
"""Logins at one sshd at a time. It drops them at random from the 11th on (MaxStartups 10:30:100); others log in too."""

PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6, 1.6)
"""Before each further try of a connection that was dropped, at most. With one in three dropped, one in 2,000 fails."""


class Starts:
    """Turns to start a connection. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[Hashable, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(AT_ONCE))

    @contextmanager
    def turn(self, target: Target) -> Iterator[None]:
        """Wait until fewer than `AT_ONCE` logins are under way at the sshd of `target`, then be one of them."""
        with self._lock:
            turns = self._turns[_sshd(target)]
        with turns:
            yield


def spread(longest_s: float) -> float:
    """Return how long to wait, at random: who was dropped together does not come again together."""
    return random.uniform(longest_s / 2, longest_s)  # noqa: S311 - spreads starts, nothing secret


def _sshd(target: Target) -> Hashable:
    """Return what tells apart the servers that logins meet first; proxy commands are taken to go through one."""
    if target.proxy_command:
        return "proxy command"
    return (target.login.namespace, target.jump, target.address, target.port)
