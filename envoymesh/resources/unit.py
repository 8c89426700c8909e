"""systemd units, and how to tell that what they run is ready."""

from collections.abc import Mapping
from dataclasses import dataclass, field

STAMP_VARIABLE = "ENVOYMESH_STAMP"
"""Environment variable of a managed unit's main process; gather reads it from /proc to learn what runs."""

TAKEOVER_VARIABLE = "ENVOYMESH_TAKEOVER"
"""Another one beside it: by what a process that is to take over is told to fit the one that runs."""


@dataclass(frozen=True)
class Probe:
    """An HTTP request on the host's loopback, at `address`, that answers 200 once a unit serves.

    `stats` maps names of Envoy's text stats to the values that they must have (the versions of the files
    that it loaded, from `/stats` on the same port); empty for anything that is not an Envoy. After `timeout_s`
    seconds without it the unit has failed; systemd itself gives a start 90 s (DefaultTimeoutStartSec), and a
    busy host with emulated processors was seen to need more than 30.
    """

    port: int
    path: str
    stats: Mapping[str, str] = field(default_factory=dict)
    timeout_s: int = 60
    address: str = "127.0.0.1"


@dataclass(frozen=True)
class Unit:
    """A service unit, enabled and running; its file is a `File` of the same host.

    `stamp` names everything that a process must be restarted for. The unit's file sets it in the
    environment; the unit is restarted when the running process has another one, whoever changed what
    and when. `probe` is waited for, on the host, after any change that concerns the unit.

    A unit with a `takeover` can be reloaded instead, which loses nothing: a new process takes the sockets of the one
    that runs. It can where the running process has the same `takeover` in its environment.

    For `leave_s` seconds an Envoy tells those who check its health that it goes, before its connections are ended.

    With `replaces`, which its predecessors' names begin with, it starts beside them and has to be ready before a file
    that refers to it goes live. They end after that, once nobody has a connection to them.
    """

    name: str
    stamp: str
    probe: Probe
    leave_s: int = 0
    replaces: str = ""
    takeover: str = ""

    @property
    def address(self) -> str:
        """`unit:NAME`."""
        return f"unit:{self.name}"

    def takes_the_place_of(self, address: str) -> bool:
        """Return whether `address` is a predecessor's."""
        return bool(self.replaces) and address.startswith(f"unit:{self.replaces}") and address != self.address
