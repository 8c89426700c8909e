"""What an Envoy says of itself at its admin interface, as gather read it. Pure."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from envoymesh.model.ports import ADMIN_PORT
from envoymesh.plan.observed import HttpAnswer, Observed
from envoymesh.resources import File, Resource, Unit

SERVER_INFO = "/server_info"
COUNTS = "/stats?filter=" + quote("(update_rejected|update_failure|membership_total|membership_healthy)$")
CLUSTERS = "/clusters?format=json"
CERTIFICATES = "/certs"

QUESTIONS = tuple((ADMIN_PORT, path) for path in (SERVER_INFO, COUNTS, CLUSTERS, CERTIFICATES))
"""What gather must be asked for the functions here."""


@dataclass(frozen=True)
class Server:
    """Version (`1.40.0`) and state (`LIVE`) of the Envoy that runs; both empty when none answers."""

    version: str = ""
    state: str = ""


def server(observed: Observed) -> Server:
    """Return which Envoy runs."""
    said = _document(observed, SERVER_INFO)
    parts = str(said.get("version", "")).split("/")
    return Server(parts[1] if len(parts) > 1 else "", str(said.get("state", "")))


def counts(observed: Observed) -> Mapping[str, int]:
    """Return members and refused updates, by the names of Envoy's stats."""
    lines = re.findall(r"(?m)^(\S+): (\d+)$", _answer(observed, COUNTS).body)
    return {name: int(value) for name, value in lines}


def health(observed: Observed) -> dict[tuple[str, str], str]:
    """Return, by cluster and address of each member, why it gets no traffic; an empty string: it does."""
    return {
        (cluster["name"], host["address"]["socket_address"]["address"]): _ailment(host["health_status"])
        for cluster in _document(observed, CLUSTERS).get("cluster_statuses", [])
        for host in cluster.get("host_statuses", [])
        if "socket_address" in host["address"]
    }


def _ailment(status: Mapping[str, Any]) -> str:
    flags = [name.replace("_", " ") for name, value in status.items() if value is True]
    eds = status.get("eds_health_status", "HEALTHY")
    return ", ".join([*flags, *([f"EDS says {eds}"] if eds not in ("HEALTHY", "UNKNOWN") else [])])


def certificate_days(observed: Observed) -> int | None:
    """Return the whole days until the first certificate expires; None when there is none."""
    chains = (
        chain for entry in _document(observed, CERTIFICATES).get("certificates", []) for chain in entry["cert_chain"]
    )
    return min((int(certificate["days_until_expiration"]) for certificate in chains), default=None)


@dataclass(frozen=True)
class Update:
    """One thing that an Envoy reads from an xDS file.

    Attributes:
        name: the stat that names the version loaded, without its last part, such as `cluster.service1`.
        file: the file's path.
        on_disk: the version in the file; None when it has none.
        loaded: the version that runs; None when Envoy does not say.
        refused: how many updates Envoy has not taken since it started.
        as_desired: whether the file is what the inventory asks for.
    """

    name: str
    file: str
    on_disk: str | None
    loaded: str | None
    refused: int
    as_desired: bool

    @property
    def is_loaded(self) -> bool:
        """Whether Envoy runs what the file says."""
        return self.on_disk == self.loaded

    @property
    def is_refused(self) -> bool:
        """Whether the last update was refused.

        Envoy's counters never go back, so they tell nothing of now: a refused update that a good one has
        followed is over. A good one has followed when what the inventory asks for is on disk and runs.
        """
        return self.refused > 0 and not (self.is_loaded and self.as_desired)


def updates(observed: Observed, desired: Sequence[Resource]) -> list[Update]:
    """Return what the Envoy of a host that shall have `desired` reads from files, and what it made of it."""
    counted, running = counts(observed), observed.stats(ADMIN_PORT)
    return [
        Update(
            name=name,
            file=file.path,
            on_disk=_version_on_disk(observed, file, version, running.get(f"{name}.version_text")),
            loaded=running.get(f"{name}.version_text"),
            refused=counted.get(f"{name}.update_rejected", 0) + counted.get(f"{name}.update_failure", 0),
            as_desired=_is_as_desired(observed, file),
        )
        for name, version, file in _read_files(desired)
    ]


def _read_files(desired: Sequence[Resource]) -> Iterator[tuple[str, str, File]]:
    """Yield name, version and file of everything that an Envoy loads from a file."""
    by_version = {_version(r.content): r for r in desired if isinstance(r, File)}
    for unit in desired:
        if isinstance(unit, Unit):
            for stat, version in unit.probe.stats.items():
                yield stat.removesuffix(".version_text"), version, by_version[version]


def _version(content: bytes) -> str | None:
    found = re.search(rb'(?m)^version_info: *"?([^"\s]+)', content)
    return found[1].decode(errors="replace") if found else None


def _is_as_desired(observed: Observed, file: File) -> bool:
    there = observed.paths.get(file.path)
    return there is not None and there.sha256 == file.sha256


def _version_on_disk(observed: Observed, file: File, desired: str, loaded: str | None) -> str | None:
    if _is_as_desired(observed, file):
        return desired
    there = observed.paths.get(file.path)
    if file.secret and there is not None:
        return loaded  # it was not read: all that is known is that it differs, which is told as that
    return _version(there.content or b"") if there else None


def _answer(observed: Observed, path: str) -> HttpAnswer:
    return observed.answers.get((ADMIN_PORT, path), HttpAnswer(None))


def _document(observed: Observed, path: str) -> dict[str, Any]:
    answer = _answer(observed, path)
    try:
        said = json.loads(answer.body) if answer.status == 200 else {}
    except ValueError:  # an Envoy that was stopped in the middle of its answer
        said = {}
    return said if isinstance(said, dict) else {}
