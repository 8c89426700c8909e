"""The hosts of a run: connected in parallel, each reached over one connection, closed together."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from types import TracebackType
from typing import TypeVar

from envoymesh.events import Event, Notify
from envoymesh.model.mesh import HostName
from envoymesh.problems import ExitCode, Failed, Problem, refused_file
from envoymesh.transport.login import Login
from envoymesh.transport.ssh import Session, connect

T = TypeVar("T")

PARALLEL = 32
"""Hosts worked on at once: below the number of connection starts that a bastion's sshd accepts unharmed."""


class Fleet:
    """Sessions by host, opened when first used. A context manager; leaving it closes every connection."""

    def __init__(self, logins: Mapping[HostName, Login], notify: Notify = lambda event: None) -> None:
        self._logins = logins
        self.notify = notify
        self._sessions: dict[HostName, Session] = {}
        self._closed = False

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection, for good; work that still uses one fails with `ssh/lost`."""
        self._closed = True
        for session in list(self._sessions.values()):
            session.close()
        self._sessions.clear()

    def login(self, host: HostName) -> Login:
        """Return the login of `host`.

        Raises:
            Failed: its machine does not exist.
        """
        if host not in self._logins:
            raise Failed(
                Problem(
                    code="machines/absent",
                    what=f"there is no machine for `{host}`",
                    at=host,
                    now=f"{host}: does not exist",
                    hint="make it: ./mesh up",
                    exit_code=ExitCode.UNREACHABLE,
                )
            )
        return self._logins[host]

    def session(self, host: HostName) -> Session:
        """Return the connection to `host`, opened now if it is not yet.

        Raises:
            Failed: the host cannot be reached, or all connections were closed.
        """
        if host not in self._sessions and not self._closed:
            self.notify(Event(host, "connects", minor=True))
            self._sessions[host] = connect(self.login(host))
        if self._closed:  # perhaps while this one was being opened
            for session in (self._sessions[host],) if host in self._sessions else ():
                session.close()
            raise Failed(Problem("run/interrupted", "interrupted", host, now=f"{host}: nothing more is sent to it"))
        return self._sessions[host]

    def forget(self, host: HostName) -> None:
        """Close the connection to `host`, if there is one; the next use of it opens another."""
        session = self._sessions.pop(host, None)
        if session is not None:
            session.close()

    def executions(self) -> dict[HostName, int]:
        """Return how many commands each connected host was given."""
        return {host: session.executions for host, session in self._sessions.items()}

    def each(self, hosts: Iterable[HostName], work: Callable[[HostName], T]) -> dict[HostName, T | Problem]:
        """Return what `work` returned for each host, or the problem that stopped it, in the hosts' order.

        An interruption (Ctrl-C) closes the connections: a host that has received all of its apply ends it by
        itself, any other host stays as it was.

        Raises:
            Failed: interrupted.
        """

        def guarded(host: HostName) -> T | Problem:
            try:
                return work(host)
            except Failed as failed:
                return failed.problems[0]
            except OSError as error:
                if isinstance(error, ConnectionError | TimeoutError):
                    raise
                return refused_file(error)

        names = list(hosts)
        with ThreadPoolExecutor(max_workers=min(PARALLEL, len(names) or 1)) as pool:
            futures = {host: pool.submit(guarded, host) for host in names}
            try:
                wait(futures.values(), return_when=FIRST_EXCEPTION)
            except KeyboardInterrupt:
                for future in futures.values():
                    future.cancel()
                self.close()
                raise
            return {host: future.result() for host, future in futures.items()}
