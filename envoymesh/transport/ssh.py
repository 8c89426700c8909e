"""Sessions: one connection to one host, over which scripts run and sockets reach what the host can reach."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from itertools import chain
from types import TracebackType
from typing import Self

import fabric
import paramiko
from paramiko.common import OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
from paramiko.ssh_exception import ChannelException, IncompatiblePeer

from envoymesh.problems import ExitCode, Failed, Problem
from envoymesh.transport import remote
from envoymesh.transport.algorithms import HOST_KEYS, Transport
from envoymesh.transport.auth import KeyLogin
from envoymesh.transport.dial import dial, proxied
from envoymesh.transport.gateways import Gateways
from envoymesh.transport.host_keys import HostKeys
from envoymesh.transport.login import Login
from envoymesh.transport.openssh import Target, resolve, ssh_command
from envoymesh.transport.passphrases import Locked, Passphrases
from envoymesh.transport.pump import ENDED, pumped
from envoymesh.transport.starts import PAUSES_S, Starts, spread
from envoymesh.transport.sudo import Passwords

__all__ = ["Executed", "Session", "connect", "ssh_command"]

SLICE = 256 * 1024
"""Bytes handed to Paramiko at a time: its `sendall` copies what is left for every packet that it sends."""

SUDO_WITHIN_S = 30
"""How long sudo may take to decide about a password; for a wrong one it waits some seconds on purpose."""

# Without a handler of its own, Python prints Paramiko's errors on the terminal.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Executed:
    """What a script left: its exit status (128 + the signal's number where one killed it) and its output."""

    exit_status: int
    stdout: bytes
    stderr: bytes


class Session:
    """One connection to one host. Close it, or use it as a context manager.

    Attributes:
        login: what it was opened with.
        executions: how many scripts it has run, or begun to.
    """

    def __init__(self, target: Target, connection: fabric.Connection, resources: ExitStack) -> None:
        self.login = target.login
        self.executions = 0
        self._target = target
        self._sudo_works = False
        self._password: bytes | None = None
        self._connection = connection
        self._transport: paramiko.Transport = connection.transport
        self._resources = resources

    @property
    def connection(self) -> fabric.Connection:
        """The Fabric connection beneath, for use as a gateway."""
        return self._connection

    @property
    def alive(self) -> bool:
        """Whether the connection still stands, as far as is known."""
        return self._transport.is_active()

    def exec(
        self,
        script: str,
        *,
        stdin: Iterable[bytes] = (),
        on_line: Callable[[str], None] | None = None,
        timeout_s: float,
        as_root: bool = True,
    ) -> Executed:
        """Run a bash script on the host: one channel, one request.

        Args:
            script: bash text, at most 120 KiB; what is longer belongs into `stdin`.
            stdin: what the script reads, in pieces of any size.
            on_line: called with each complete line of the script's standard output, as it arrives.
            timeout_s: after this many seconds the connection is ended; the script on the host is not.
            as_root: run as root, by way of sudo for a login that is not root. Where sudo asks for a password, that is
                asked for on the terminal once, and the script is executed a second time, now with it.

        Raises:
            Failed: the connection was lost (`ssh/lost`), the time is over (`ssh/timeout`), or sudo refuses
                (`ssh/sudo-…`). A script that fails does not raise.
            ValueError: the script is too long.
        """
        output = remote.Output(on_line)
        run = _Run(self._target, self._transport, output, timeout_s)
        self.executions += 1
        sudo = as_root and self._target.user != "root"
        status = (self._as_root if sudo else self._as_user)(run, script, stdin)
        if not output.started:
            raise remote.not_started(self._target, status, bytes(output.stderr), sudo=sudo)
        return Executed(status, bytes(output.stdout), output.errors())

    def _as_user(self, run: "_Run", script: str, stdin: Iterable[bytes]) -> int:
        return run.run(remote.command(script, sudo=False), stdin)

    def _as_root(self, run: "_Run", script: str, stdin: Iterable[bytes]) -> int:
        """Run a script by way of sudo: without a password, and with one where sudo asks for it."""
        output = run.output
        if self._password is None:
            # What the script reads is kept until it is known that it will: it may be needed again.
            status = run.run(remote.command(script, sudo=True), stdin, held=not self._sudo_works)
            self._sudo_works = output.started
            if output.started or not remote.wants_password(bytes(output.stderr)):
                return status
            refused = remote.not_started(self._target, status, bytes(output.stderr), sudo=True)
            self._password = _PASSWORDS.of(self._target, self._prove, refused)
            output.stdout.clear()
            output.stderr.clear()
            self.executions += 1
        command = remote.command(script, sudo=True, password=True)
        return run.run(command, chain([remote.password_input(self._password)], stdin))

    def _prove(self, password: bytes) -> None:
        """Try a password.

        Raises:
            Failed: sudo does not accept it, or the connection was lost.
        """
        run = _Run(self._target, self._transport, remote.Output(), SUDO_WITHIN_S)
        self.executions += 1
        status = run.run(remote.command(":", sudo=True, password=True), [remote.password_input(password)])
        if not run.output.started:
            raise remote.not_started(self._target, status, bytes(run.output.stderr), sudo=True)

    def forward(self, address: str, port: int) -> socket.socket:
        """Return a socket to `address:port` as seen from the host. Closing it, or the session, ends it.

        Raises:
            Failed: the host cannot reach it or does not forward (`ssh/forward`), or the connection was lost.
        """
        try:
            channel = self._transport.open_channel("direct-tcpip", (address, port), ("127.0.0.1", 0))
        except ChannelException as error:
            what = f"`{self.login.host}` does not connect to `{address}:{port}`"
            raise Failed(Problem("ssh/forward", what, self._target.at, (error.text,))) from error
        except ENDED as error:
            raise _lost(self._target, error) from error
        return pumped(channel)

    def close(self) -> None:
        """End the connection and all that runs over it. Idempotent."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(login: Login) -> Session:
    """Log in.

    Args:
        login: where to and as whom.

    Raises:
        Failed: `ssh/unreachable`, `ssh/auth`, `ssh/host-key-…`, `ssh/key-…`; nothing was sent to the host.
    """
    target = resolve(login)
    return _connect(target, target.timeout_s)


def _connect(target: Target, timeout_s: float) -> Session:
    with ExitStack() as resources:
        jump = resources.enter_context(_GATEWAYS.through(target, timeout_s)) if target.jump else None
        connection = None
        while connection is None:
            try:
                with _STARTS.turn(target):
                    connection = _Start(target, jump, timeout_s, time.monotonic() + timeout_s).connection()
            except Locked as locked:
                _PASSPHRASES.open(target, locked)
        resources.callback(_discard, connection)
        return Session(target, connection, resources.pop_all())


_GATEWAYS = Gateways(_connect)
_STARTS = Starts()
_PASSWORDS = Passwords()
_PASSPHRASES = Passphrases()


class _Dropped(Exception):  # noqa: N818 - an outcome that is tried again
    """The host ended the connection before it showed its key."""


@dataclass
class _Start:
    """The start of a connection: host key, then login, all before the deadline (monotonic clock)."""

    target: Target
    jump: Session | None
    timeout_s: float
    deadline: float

    def connection(self) -> fabric.Connection:
        """Return an open connection, started again when the host drops it at once."""
        for longest_s in PAUSES_S:
            with suppress(_Dropped):
                return self._open()
            time.sleep(spread(longest_s))
        try:
            return self._open()
        except _Dropped as error:
            what = f"`{self.target.login.host}` drops every connection"
            raise self.target.unreachable(what, str(error)) from error

    def _open(self) -> fabric.Connection:
        with closing(KeyLogin(self.target, _PASSPHRASES, self.deadline)) as keys:
            keys.check_own_key()
            host_keys = HostKeys(self.target)
            connection = self._prepared(host_keys, keys)
            try:
                connection.open()
            except BaseException as error:
                _discard(connection)
                if isinstance(error, ENDED):
                    raise self._failure(error, host_keys) from error
                raise
            return connection

    def _prepared(self, host_keys: HostKeys, keys: KeyLogin) -> fabric.Connection:
        """Make a connection that takes nothing from Fabric's files: all of it is in the target."""
        socket_ = {} if self.jump else {"sock": self._dial()}
        connection = fabric.Connection(
            self.target.address,
            user=self.target.user,
            port=self.target.port,
            config=fabric.Config(ssh_config=paramiko.SSHConfig(), lazy=True),
            gateway=self.jump.connection if self.jump else None,
            connect_kwargs={
                **socket_,
                **self._limits(),
                "auth_strategy": keys,
                "transport_factory": lambda sock, **_: self._offering(sock, host_keys),
            },
        )
        # Fabric's own policy accepts every key.
        connection.client.set_missing_host_key_policy(host_keys)
        return connection

    def _limits(self) -> dict[str, object]:
        left = max(self.deadline - time.monotonic(), 0.1)
        names = ("timeout", "banner_timeout", "auth_timeout")
        return {**dict.fromkeys(names, left), "channel_timeout": self.timeout_s}

    def _offering(self, sock: socket.socket, host_keys: HostKeys) -> Transport:
        transport = Transport(sock, host_keys.order(HOST_KEYS))
        transport.handshake_timeout = max(self.deadline - time.monotonic(), 0.1)
        return transport

    def _dial(self) -> socket.socket:
        target = self.target
        if target.proxy_command:
            return proxied(target.proxy_command)
        try:
            return dial(target.address, target.port, deadline=self.deadline, namespace=target.login.namespace)
        except OSError as error:
            what = f"`{target.login.host}` cannot be reached at {target.address} port {target.port}"
            raise target.unreachable(what, str(error)) from error

    def _failure(self, error: Exception, host_keys: HostKeys) -> Exception:
        host, saw = self.target.login.host, str(error) or type(error).__name__
        if time.monotonic() > self.deadline - 0.2:
            return self.target.unreachable(f"`{host}` did not answer within {self.timeout_s:g} s", saw)
        if isinstance(error, ChannelException):
            return self._not_forwarded(error)
        if self.jump and not self.jump.alive:
            return self.target.unreachable(f"the jump host ended its connection during the login to `{host}`", saw)
        if isinstance(error, IncompatiblePeer):
            return self.target.unreachable(f"`{host}` and this tool have no algorithm in common", saw)
        if host_keys.verified:
            return self.target.unreachable(f"`{host}` ended the connection during the login", saw)
        return _Dropped(saw)

    def _not_forwarded(self, error: ChannelException) -> Failed:
        host, jump = self.target.login.host, self.jump.login.address if self.jump else ""
        if error.code != OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED:
            return self.target.unreachable(f"the jump host does not connect to `{host}`", error.text)
        what = f"the jump host `{jump}` forbids to connect through it to `{host}`"
        hint = f"in the sshd_config of {jump}: AllowTcpForwarding yes    then: systemctl reload ssh"
        return Failed(
            Problem("ssh/jump-forbidden", what, self.target.at, (error.text,), "", hint, ExitCode.UNREACHABLE)
        )


@dataclass
class _Run:
    """One execution: feeds stdin and drains both outputs, all at once, and ends when the time is over."""

    target: Target
    transport: paramiko.Transport
    output: remote.Output
    timeout_s: float
    over: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    """Set when the script has started, or will not."""
    callers: list[Exception] = field(default_factory=list)
    """What the caller's own stdin or on_line raised; not to be taken for a failing connection."""

    def run(self, command: str, stdin: Iterable[bytes], *, held: bool = False) -> int:
        """Run the command to its end and return its exit status.

        With `held`, nothing is taken from `stdin` before the script has started.
        """
        self.started.clear()
        try:
            with closing(self._session()) as channel:
                watchdog = threading.Timer(self.timeout_s, self._give_up, [channel])
                watchdog.daemon = True
                watchdog.start()
                try:
                    return self._run(channel, command, self._once_started(stdin) if held else stdin)
                finally:
                    watchdog.cancel()
        except ENDED as error:
            raise self._failure(error) from error

    def _session(self) -> paramiko.Channel:
        """Open a channel; a host with `MaxSessions 1` may take a moment to be done with the one before."""
        for pause_s in (0.02, 0.1, 0.5):
            with suppress(ChannelException):
                return self.transport.open_session(timeout=self.timeout_s)
            time.sleep(pause_s)
        return self.transport.open_session(timeout=self.timeout_s)

    def _run(self, channel: paramiko.Channel, command: str, stdin: Iterable[bytes]) -> int:
        # Threads, as polling `channel.fileno()` misses data where both outputs have some (Paramiko's OrPipe).
        beside = [
            threading.Thread(target=self._feed, args=[channel, stdin], name="stdin", daemon=True),
            threading.Thread(target=self._drain_stderr, args=[channel], name="stderr", daemon=True),
        ]
        channel.exec_command(command)
        for thread in beside:
            thread.start()
        try:
            while data := channel.recv(SLICE):
                self._take(data)
            status = channel.recv_exit_status()
        finally:
            self.started.set()
            channel.close()
            for thread in beside:
                thread.join()
        if status < 0 or self.callers:
            raise EOFError("killed by a signal" if channel.eof_received else "no exit status came")
        return status

    def _drain_stderr(self, channel: paramiko.Channel) -> None:
        with suppress(*ENDED):
            while data := channel.recv_stderr(SLICE):
                self.output.stderr += data

    def _take(self, data: bytes) -> None:
        try:
            self.output.take(data)
        except Exception as error:
            self.callers.append(error)
            raise EOFError from error
        if self.output.started:
            self.started.set()

    def _once_started(self, stdin: Iterable[bytes]) -> Iterator[bytes]:
        self.started.wait()
        if self.output.started:
            yield from stdin

    def _feed(self, channel: paramiko.Channel, stdin: Iterable[bytes]) -> None:
        try:
            for block in stdin:
                for start in range(0, len(block), SLICE):
                    if not _sent(channel, block[start : start + SLICE]):
                        return
        except Exception as error:
            self.callers.append(error)
            self.transport.close()
        else:
            with suppress(*ENDED):
                channel.shutdown_write()

    def _give_up(self, channel: paramiko.Channel) -> None:
        """End the connection, which wakes all that waits for it; a stuck channel could not even be closed."""
        self.over.set()
        self.transport.close()
        # Paramiko misses the end of a connection that comes just before it waits for an answer.
        channel.event.set()

    def _failure(self, error: Exception) -> Exception:
        if self.callers:
            return self.callers[0]
        last = tuple(bytes(self.output.stdout + self.output.stderr)[-2000:].decode(errors="replace").splitlines())
        host = self.target.login.host
        if self.over.is_set():
            what = f"the script on `{host}` did not end within {self.timeout_s:g} s"
            now = "the connection is closed; the script may still be running on the host"
            return Failed(Problem("ssh/timeout", what, self.target.at, last[-5:], now))
        if isinstance(error, ChannelException):
            what = f"`{host}` refuses another session (MaxSessions in its sshd_config)"
            return Failed(Problem("ssh/sessions", what, self.target.at, (error.text,)))
        return _lost(self.target, error, *last[-5:])


def _sent(channel: paramiko.Channel, piece: bytes) -> bool:
    """Send, and return whether it went out: a script may end without reading all."""
    try:
        channel.sendall(piece)
    except ENDED:
        return False
    return True


def _lost(target: Target, error: Exception, *saw: str) -> Failed:
    what = f"the connection to `{target.login.host}` was lost"
    now = "what ran on the host may have been done wholly, in part, or not at all"
    return target.unreachable(what, *saw, str(error) or type(error).__name__, code="ssh/lost", now=now)


def _discard(connection: fabric.Connection) -> None:
    """Close a connection that may not be open; Fabric's `close` leaves one that failed to open."""
    transport = connection.client.get_transport()
    if transport is not None:
        _end(transport)
    elif "sock" in connection.connect_kwargs:
        connection.connect_kwargs["sock"].close()


def _end(transport: paramiko.Transport) -> None:
    """Close a transport and wait for its thread. Idempotent."""
    # A timer of the handshake would outlive a start that failed, and hold up the end of the process.
    transport.packetizer.complete_handshake()
    if isinstance(transport.sock, socket.socket):
        with suppress(OSError):
            transport.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread, which else looks every 0.1 s
    with suppress(*ENDED):
        transport.close()
    with suppress(*ENDED):
        transport.sock.close()
    if transport.is_alive() and transport is not threading.current_thread():
        transport.join(timeout=2)
