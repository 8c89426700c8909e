"""What is offered to a host: good algorithms only, in the order of what they cost this box.

The costs are Paramiko's. A key exchange of these takes 2 to 3 ms of processor time per connection, the others that it
has 27 to 94 (Diffie-Hellman over primes; OpenSSH 6.5 and newer has better ones). A MiB takes 2 ms with GCM, and 3 to 4
with CTR and a MAC. What Paramiko would offer beside them is CBC, 3DES, and MACs of MD5 and SHA-1.
"""

import socket
from collections.abc import Sequence

from typing_extensions import override

from envoymesh.transport.eager import EagerTransport

KEY_EXCHANGES = (
    "mlkem768x25519-sha256",  # first, although not the cheapest by 1 ms: what is recorded today stays secret
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
)

CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")

MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-512")

HOST_KEYS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
"""As OpenSSH prefers them: the host pays for its signature, and checking one costs 0.2 ms at most."""


class Transport(EagerTransport):
    """A connection that offers these algorithms, and `host_keys` of the last kind."""

    def __init__(self, sock: socket.socket, host_keys: Sequence[str]) -> None:
        super().__init__(sock)
        options = self.get_security_options()
        options.kex, options.ciphers, options.digests = KEY_EXCHANGES, CIPHERS, MACS
        options.key_types = tuple(host_keys)

    @property
    @override
    def preferred_keys(self) -> tuple[str, ...]:
        """The types of host keys to offer; Paramiko would add a certificate of each, asked for or not."""
        return tuple(self.get_security_options().key_types)
