"""The password that sudo asks for: asked once for each user, and tried on one host before any other gets it."""

import threading
from collections import defaultdict
from collections.abc import Callable

from envoymesh.problems import Failed, Problem
from envoymesh.transport.openssh import Target
from envoymesh.transport.prompt import ask


class Passwords:
    """The passwords of this process. Safe to use from many threads; none is in a repr."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[str, _Password] = defaultdict(_Password)

    def of(self, target: Target, prove: Callable[[bytes], None], refused: Failed) -> bytes:
        """Return the password of the user of `target`, once a host has accepted it.

        Who comes while it is asked for and tried waits. A wrong one is given to that one host, once.

        Args:
            target: who wants it.
            prove: tries a password on that host.
            refused: raised where it cannot be asked for.

        Raises:
            Failed: by `prove`; none was given; or another host did not accept it.
        """
        with self._lock:
            password = self._users[target.user]
        with password.lock:
            return password.proven(target, prove, refused)


class _Password:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._typed: bytes | None = None
        self._accepted = False
        self._wrong_on = ""

    def proven(self, target: Target, prove: Callable[[bytes], None], refused: Failed) -> bytes:
        if self._wrong_on:
            raise Failed(_not_tried(target, self._wrong_on))
        if self._typed is None:
            self._typed = ask(f"sudo password of {target.user} on {target.login.host}: ")
        if self._typed is None:
            raise refused
        if not self._accepted:
            self._try(target, prove)
        return self._typed

    def _try(self, target: Target, prove: Callable[[bytes], None]) -> None:
        if not self._typed:
            self._wrong_on = target.login.host
            raise Failed(Problem("ssh/sudo-password", f"no sudo password of `{target.user}` was given", target.at))
        try:
            prove(self._typed)
        except Failed as failed:
            if failed.problems[0].code == "ssh/sudo-password":
                self._wrong_on = target.login.host
            raise
        self._accepted = True


def _not_tried(target: Target, wrong_on: str) -> Problem:
    host, user = target.login.host, target.user
    what = f"`{host}` was not given the sudo password of `{user}`: `{wrong_on}` did not accept it"
    return Problem("ssh/sudo-password", what, target.at, now=f"{host}: nothing was run", hint="run the command again")
