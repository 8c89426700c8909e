"""A login that does not wait where it need not: a round trip less until a host lets in."""

import threading

import paramiko
from paramiko.auth_handler import AuthHandler
from typing_extensions import override


class EagerTransport(paramiko.Transport):
    """Asks for the login right behind the request for the service that is to answer it.

    A server takes them in their order, and ends the connection where it has no such service. OpenSSH's answers then
    also come together, where each would be held back until the one before it is acknowledged.
    """

    @override
    def auth_publickey(self, username: str, key: paramiko.PKey, event: threading.Event | None = None) -> list[str]:
        answered = event or threading.Event()
        self.auth_handler = handler = _EagerLogin(self)
        handler.auth_publickey(username, key, answered)
        return [] if event else handler.wait_for_response(answered)


class _EagerLogin(AuthHandler):
    def _request_auth(self) -> None:
        super()._request_auth()  # type: ignore[misc] # Paramiko's own
        accepted = paramiko.Message()
        accepted.add_string("ssh-userauth")
        accepted.rewind()
        super()._parse_service_accept(accepted)  # type: ignore[misc]

    def _parse_service_accept(self, m: paramiko.Message) -> None:
        """Take the server's word: it was not waited for."""
