"""What a provider is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from envoymesh.model.mesh import Host, HostName
from envoymesh.transport.login import Login

Progress = Callable[[str, str], None]
"""Called with a host's name (or an empty string) and a short line about what is being done."""


class Provider(Protocol):
    """Answers one question: how to log in to a host."""

    name: str

    def logins(self, hosts: Sequence[Host]) -> Mapping[HostName, Login]:
        """Return the login of each of `hosts` that exists; a host that does not exist is left out."""


class MachineMaker(Provider, Protocol):
    """A provider that also makes and destroys the machines."""

    def missing(self) -> str:
        """Return why this provider cannot work on this box, as a short phrase, or an empty string."""

    def machines(self) -> Sequence[HostName]:
        """Return the names of the machines of this mesh that exist, wholly or in part, running or not."""

    def create(self, hosts: Sequence[Host], progress: Progress) -> None:
        """Make and start those of `hosts` that do not run yet, in parallel; return when all can be logged in to.

        Idempotent, and completes what a killed run left half done.

        Raises:
            Failed: a tool is missing, a name is taken by something that is not ours, or a machine did not start.
        """

    def destroy(self, names: Sequence[HostName], progress: Progress) -> None:
        """Remove these machines and all that belongs to them; unknown names are ignored. Idempotent.

        When the last machine is gone, so are network, namespaces, mounts and published ports.
        """

    def publish(self, edge: Host, ports: Mapping[int, int], admin_port: int) -> None:
        """Let 127.0.0.1 of this box reach the edge, until it is destroyed; survives the edge's reboots.

        `ports` maps ports of 127.0.0.1 to ports of the edge's mesh address; `admin_port` of 127.0.0.1 leads
        to port 8001 of the edge's own loopback. Idempotent.

        Raises:
            Failed: a port is taken; the problem says by whom where that can be read.
        """
