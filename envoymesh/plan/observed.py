"""Observed: what gather read on a host. What is absent is not in it; a host that cannot be read is a problem."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from envoymesh.resources import Platform


@dataclass(frozen=True)
class ObservedPath:
    """A file or directory that exists. `kind` is what `stat` calls it (`regular file`, `directory`).

    `sha256` and `content` are None for anything that is not a regular file, `content` also when it is what
    is desired or longer than 256 KiB.
    """

    kind: str
    owner: str
    group: str
    mode: int
    sha256: str | None = None
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ObservedUnit:
    """A unit as systemd sees it.

    `stamp` and `takeover` are those of the running process, empty when none runs or it has none.
    """

    load: str
    active: str
    enabled: str
    needs_reload: bool
    stamp: str
    takeover: str = ""


@dataclass(frozen=True)
class HttpAnswer:
    """What a port of the host's loopback answered. `status` is None when nothing answered."""

    status: int | None
    body: str = ""


class Dialled(StrEnum):
    """What became of an attempt to connect."""

    OPEN = "open"
    REFUSED = "refused"
    SILENT = "silent"


@dataclass(frozen=True)
class Observed:
    """One host, at one moment, as far as its desired resources and its last apply are concerned.

    `manifest` has the addresses that the last apply managed, `generation` tells that apply from every other; empty
    before the first.
    """

    platform: Platform
    users: frozenset[str]
    paths: Mapping[str, ObservedPath]
    artifacts: Mapping[str, str]
    units: Mapping[str, ObservedUnit]
    answers: Mapping[tuple[int, str], HttpAnswer]
    manifest: frozenset[str]
    generation: str = ""
    dialled: Mapping[tuple[str, int], Dialled] = field(default_factory=dict)

    def stats(self, port: int) -> Mapping[str, str]:
        """Return Envoy's text stats at `port`, by name, and `LIVE`; empty when it did not answer."""
        answer = self.answers.get((port, TEXT_STATS), HttpAnswer(None))
        pairs = (line.split(": ", 1) for line in answer.body.splitlines() if ": " in line)
        return {name: value.strip('"') for name, value in pairs}


LIVE = "server.live"
"""The stat that is 0 while Envoy reports that it goes, as it was told to."""

TEXT_STATS = "/stats?filter=(version_text%7C%5Eserver.live)$"
"""Path of Envoy's admin interface that lists the versions of loaded xDS files, and `LIVE`."""
