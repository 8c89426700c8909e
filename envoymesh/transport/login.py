"""Logins: where and as whom to reach a host. Plain data, made by providers, used by the transport."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Login:
    """How to log in to one host.

    `None` leaves a setting to `~/.ssh/config` and OpenSSH's defaults. `known_hosts` is the mesh's own file;
    those that OpenSSH would read are read as well. With `host_keys` `accept-new` a key never seen is appended
    to it, unless OpenSSH is configured to be strict, or a certificate authority is known for the host, which
    must then have signed it; with `strict` it is refused; a changed key is always refused. `namespace` is a
    network namespace of this box (a path such as `/run/netns/x`) from which the connection is opened; such a
    login, and one that gives user, port, key and jump, asks nothing of `~/.ssh/config`. `jump` is as for
    `ssh -J`, `none` for no jump host. `timeout_s` is how long the login may take in
    seconds, jump hosts and questions apart.
    """

    host: str
    address: str
    known_hosts: Path
    port: int | None = None
    user: str | None = None
    key: Path | None = None
    jump: str | None = None
    host_keys: str = "accept-new"
    namespace: Path | None = None
    timeout_s: float | None = None
