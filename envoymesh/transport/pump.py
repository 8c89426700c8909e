"""A real socket in front of a Paramiko channel, for code that needs a file descriptor, such as TLS."""

import socket
import threading
from contextlib import suppress

import paramiko

BLOCK = 256 * 1024

ENDED = (OSError, EOFError, paramiko.SSHException)
"""What either end raises when it, or the connection beneath, is gone."""


def pumped(channel: paramiko.Channel) -> socket.socket:
    """Return a socket whose other end is `channel`. Ends when both directions have, or when the channel does."""
    ours, theirs = socket.socketpair()
    up = threading.Thread(target=_up, args=[ours, channel], name="forward up", daemon=True)
    up.start()
    threading.Thread(target=_down, args=[ours, channel, up], name="forward down", daemon=True).start()
    return theirs


def _up(ours: socket.socket, channel: paramiko.Channel) -> None:
    with suppress(*ENDED):
        while block := ours.recv(BLOCK):
            channel.sendall(block)
        channel.shutdown_write()


def _down(ours: socket.socket, channel: paramiko.Channel, up: threading.Thread) -> None:
    with suppress(*ENDED):
        while block := channel.recv(BLOCK):
            ours.sendall(block)
    # The far end has said all, or nobody reads here any more: nothing that is still sent would be answered.
    with suppress(OSError):
        ours.shutdown(socket.SHUT_RDWR)
    with suppress(*ENDED):
        channel.close()
    up.join()
    ours.close()
