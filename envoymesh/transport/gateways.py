"""Jump hosts: one connection to each, shared by all sessions that go through it."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from envoymesh.transport.openssh import Target, jump_target

if TYPE_CHECKING:
    from envoymesh.transport.ssh import Session


@dataclass
class _Gateway:
    session: "Future[Session]" = field(default_factory=Future)
    users: int = 0


class Gateways:
    """The connections to jump hosts of this process. Safe to use from many threads."""

    def __init__(self, connect: "Callable[[Target, float], Session]") -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._open: dict[Target, _Gateway] = {}

    @contextmanager
    def through(self, target: Target, timeout_s: float) -> "Iterator[Session]":
        """Give the connection to the jump host of `target`; the last to leave closes it.

        Who comes while it is being opened waits for it, and shares its failure.

        Raises:
            Failed: the jump host cannot be logged in to.
        """
        jump = jump_target(target)
        with self._lock:
            gateway = self._open.get(jump)
            opens = gateway is None or _is_dead(gateway)
            if gateway is None or opens:
                gateway = self._open[jump] = _Gateway()
            gateway.users += 1
        try:
            if opens:
                self._start(gateway, jump, timeout_s)
            yield gateway.session.result()
        finally:
            self._leave(gateway, jump)

    def _start(self, gateway: _Gateway, jump: Target, timeout_s: float) -> None:
        try:
            gateway.session.set_result(self._connect(jump, timeout_s))
        except BaseException as error:
            gateway.session.set_exception(error)
            raise

    def _leave(self, gateway: _Gateway, jump: Target) -> None:
        with self._lock:
            gateway.users -= 1
            last = gateway.users == 0
            if last and self._open.get(jump) is gateway:
                del self._open[jump]
        if last and gateway.session.exception() is None:
            gateway.session.result().close()


def _is_dead(gateway: _Gateway) -> bool:
    """Return whether the next one has to open it anew."""
    done = gateway.session.done()
    return done and (gateway.session.exception() is not None or not gateway.session.result().alive)
