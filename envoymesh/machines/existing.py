"""Existing: hosts that are there already; the inventory says how to log in, or leaves it to ~/.ssh/config."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from envoymesh.model.mesh import Host, HostName
from envoymesh.transport.login import Login


class Existing:
    """Answers how to log in; makes and destroys nothing."""

    name = "existing"

    def __init__(self, state_dir: Path) -> None:
        self._known_hosts = state_dir / "known_hosts"

    def logins(self, hosts: Sequence[Host]) -> Mapping[HostName, Login]:
        """Return the login of each host: by its `ssh.address`, else by its mesh address."""
        return {host.name: self._login(host) for host in hosts}

    def _login(self, host: Host) -> Login:
        ssh = host.ssh
        return Login(
            host=host.name,
            address=ssh.address or str(host.address),
            known_hosts=self._known_hosts,
            port=ssh.port,
            user=ssh.user,
            key=Path(ssh.key).expanduser() if ssh.key else None,
            jump=ssh.jump,
            host_keys=ssh.host_keys,
            timeout_s=ssh.timeout,
        )
