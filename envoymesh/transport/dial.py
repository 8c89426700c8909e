"""Opens TCP connections, also from inside another network namespace of this box."""

import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from typing_extensions import override

DEAD_PEER_S = 15
"""A peer that has said nothing for this long, although it should have, is dead."""

CLONE_NEWNET = 0x40000000


class _Prompt(socket.socket):
    """Acknowledges at once what it receives.

    sshd sends its first messages after the login in small packets, each held back until the one before is
    acknowledged: with Linux' delayed acknowledgements the first script of a session would start 40 ms late.
    """

    @override
    def recv(self, size: int, flags: int = 0, /) -> bytes:
        received = super().recv(size, flags)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return received


def dial(address: str, port: int, *, deadline: float, namespace: Path | None = None) -> socket.socket:
    """Connect to `address`, a name or an IP address, trying all that the name stands for.

    Args:
        address: where to.
        port: which port.
        deadline: when to give up, on the monotonic clock.
        namespace: the network namespace to connect from, a path such as `/run/netns/x`.

    Raises:
        OSError: the name is not known, nothing answers, or the namespace cannot be entered.
    """
    if namespace is None:
        return _connect(address, port, deadline)
    return _inside(namespace, lambda: _connect(address, port, deadline))


class _Proxied(socket.socket):
    """Our end of a proxy command, which ends with it."""

    process: "subprocess.Popen[bytes]"

    @override
    def close(self) -> None:
        super().close()
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=2)


def proxied(command: str) -> socket.socket:
    """Return a socket to the standard input and output of a shell command (OpenSSH's ProxyCommand)."""
    ours, theirs = socket.socketpair()
    with theirs:
        sock = _Proxied(fileno=ours.detach())
        sock.process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
        )
    return sock


def _connect(address: str, port: int, deadline: float) -> socket.socket:
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    failed: OSError = TimeoutError("timed out")
    for index, (family, kind, protocol, _, place) in enumerate(found):
        connection = _Prompt(family, kind, protocol)
        try:
            # What is left is shared out: a silent IPv6 address must not keep IPv4 from its turn.
            connection.settimeout(max((deadline - time.monotonic()) / (len(found) - index), 0.001))
            _watch_peer(connection)
            connection.connect(place)
        except OSError as error:
            connection.close()
            failed = error
        else:
            return connection
    raise failed


def _watch_peer(connection: socket.socket) -> None:
    """Have the kernel notice a dead peer (SSH's own keepalive in Paramiko never does), and send at once."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, DEAD_PEER_S // 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, DEAD_PEER_S // 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_S * 1000)


def _inside(namespace: Path, open_socket: Callable[[], socket.socket]) -> socket.socket:
    """Run `open_socket` in a thread of its own that enters the namespace and ends with the call.

    A socket stays in the namespace where it was made; the process' other threads never enter it.
    """
    opened: list[socket.socket] = []
    failed: list[Exception] = []

    def enter_and_open() -> None:
        try:
            _enter(namespace)
            opened.append(open_socket())
        except Exception as error:  # carried to the caller's thread
            failed.append(error)

    thread = threading.Thread(target=enter_and_open, name=f"dial in {namespace}")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return opened[0]


def _enter(namespace: Path) -> None:
    """Move the calling thread to a network namespace; `os.setns` came with Python 3.12."""
    opened = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(opened, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(namespace))
    finally:
        os.close(opened)
