"""HTTP through the SSH connection to a host: to what the host reaches, seen from there."""

import http.client
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from typing_extensions import override

from envoymesh.problems import Failed

REQUEST_TIMEOUT_S = 20.0
"""Longer than the front lets a request take."""

OpenSocket = Callable[[], socket.socket]


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; names of `headers` are in lower case. `status` 0: none came, `body` says why."""

    status: int
    headers: Mapping[str, str]
    body: str


class Tunnel(http.client.HTTPConnection):
    """A connection over sockets from elsewhere; it is opened when first used, and again when the peer closed it."""

    def __init__(self, name: str, open_socket: OpenSocket) -> None:
        super().__init__(name, timeout=REQUEST_TIMEOUT_S)
        self._open_socket = open_socket

    @override
    def connect(self) -> None:
        self.sock = self._open_socket()
        self.sock.settimeout(REQUEST_TIMEOUT_S)

    def ask(self, path: str, method: str = "GET") -> Answer:
        """Return the answer to one request; a failing connection is an answer without a status.

        Raises:
            Failed: the host does not forward, or its connection was lost.
        """
        try:
            self.request(method, path)
            got = self.getresponse()
            body = got.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Answer(0, {}, str(error) or type(error).__name__)
        return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, body)


def encrypted(open_socket: OpenSocket, name: str, authority: ssl.SSLContext) -> OpenSocket:
    """Return what opens such a socket and TLS over it; the certificate must be for `name` and of the `authority`."""

    def open_both() -> socket.socket:
        bare = open_socket()
        bare.settimeout(REQUEST_TIMEOUT_S)
        try:
            return authority.wrap_socket(bare, server_hostname=name)
        except OSError:
            bare.close()
            raise

    return open_both


def forbids_forwarding(failed: Failed) -> bool:
    """Return whether a host's sshd forbids what a tunnel needs, rather than that nothing listens there."""
    return any("prohibited" in line for p in failed.problems for line in p.saw)


def forwarding_hint(host: str) -> str:
    """Return the way out where it does."""
    return f"in the sshd_config of {host}: AllowTcpForwarding yes    then: systemctl reload ssh"
