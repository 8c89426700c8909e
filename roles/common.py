"""What the hosts of every role have, and what a front and a sidecar have in common: one Envoy process."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import PurePosixPath

from envoymesh.model.mesh import Host, Mesh
from envoymesh.model.ports import ADMIN_PORT
from envoymesh.model.releases import HOT_RESTART, RELEASES
from envoymesh.resources import (
    Artifact,
    Directory,
    Effect,
    EnvoyBinary,
    File,
    Probe,
    Reader,
    Resource,
    Unit,
    User,
    Validation,
)
from roles.render import TEMPLATES, parsed, render, stamped
from roles.validation import static_bootstrap

CONFIG = "/etc/envoymesh"
PROGRAMS = "/opt/envoymesh"
HOT_RESTART_SCRIPT = f"{PROGRAMS}/hot-restart"

OPEN_FILES = 65536
"""Hard limit of open files of every unit; Envoy lifts its own soft limit to it."""

MAX_CONNECTIONS = 20000
"""Clients that one Envoy takes at a time: under half of `OPEN_FILES`, since each may need one more upstream."""

BYTES_PER_CONNECTION = 32768
"""What a client may cost of the heap before it is one too many: its connection's buffer limit in the templates."""


@dataclass(frozen=True)
class Xds:
    """An xDS file before it is stamped.

    `name` is its path inside the process's folder, `resources` its YAML text from the line `resources:` on,
    `stat` the name of Envoy's text stat that tells the version loaded, `about` what may be told of a secret, `effect`
    what another version does: of all that Envoy takes from a file, listeners alone cost connections.
    """

    name: str
    resources: str
    stat: str
    secret: bool = False
    about: str = ""
    effect: Effect = Effect.HOT


@dataclass(frozen=True)
class Process:
    """An Envoy process of a host: its name (`front`, `sidecar`), where Envoy counts it, and what it may use.

    `base_id` keeps the shared memory of two Envoys on one host apart; `leave_s` is how long its clients are told that
    it goes before it does.
    """

    name: str
    cluster: str
    base_id: int
    workers: int
    heap_bytes: int
    capabilities: str = ""
    leave_s: int = 0

    @property
    def user(self) -> str:
        """The system user that it runs as."""
        return f"envoymesh-{self.name}"

    @property
    def unit(self) -> str:
        """The unit that runs it."""
        return f"{self.user}.service"

    @property
    def folder(self) -> str:
        """Where its files are."""
        return f"{CONFIG}/{self.name}"

    def takeover(self, version: str) -> str:
        """Return what must be the same for an Envoy of `version` to take over from one that runs.

        Both must mean the same by what they share, and find it. With another number of workers, connections that
        wait for a worker which the new one has not would be lost. The user follows from the name.
        """
        return f"{HOT_RESTART[version]}-{self.base_id}-{self.workers}"


def resources(mesh: Mesh) -> list[Resource]:
    """Return what every host has: the folders, Envoy itself, side by side by version, and what replaces it."""
    binary = PurePosixPath(envoy_path(mesh))
    sha256 = {machine: build.binary for machine, build in RELEASES[mesh.envoy_version].items()}
    return [
        *(Directory(path) for path in (CONFIG, PROGRAMS, str(binary.parent.parent), str(binary.parent))),
        Artifact(str(binary), EnvoyBinary(mesh.envoy_version, sha256)),
        File(HOT_RESTART_SCRIPT, _hot_restart_script(), mode=0o755),
    ]


@lru_cache(maxsize=1)
def _hot_restart_script() -> bytes:
    return (TEMPLATES / "units" / "hot-restart.sh").read_bytes()


def envoy_path(mesh: Mesh) -> str:
    """Return the path of the mesh's Envoy on a host."""
    return f"{PROGRAMS}/envoy/{mesh.envoy_version}/envoy"


def process_resources(process: Process, host: Host, mesh: Mesh, files: Sequence[Xds]) -> list[Resource]:
    """Return what `process` needs, from its user to its running unit.

    Args:
        process: which Envoy.
        host: the host that it runs on.
        mesh: the inventory.
        files: its xDS files, in the order in which they are to be replaced: what is referred to comes first.
    """
    bootstrap = _bootstrap(process)
    versioned = [(file, *stamped(file.resources)) for file in files]
    unit = _unit(process, host, mesh, bootstrap, {file.stat: version for file, _, version in versioned})
    config = [
        *(_xds_file(process, file, text) for file, text, _ in versioned),
        File(f"{process.folder}/bootstrap.yaml", bootstrap.encode(), reader=Reader(process.unit, Effect.RESTART)),
    ]
    return [
        User(process.user),
        *(Directory(path) for path in sorted({str(PurePosixPath(f.path).parent) for f in config})),
        *config,
        _validation(process, mesh, config, guards=[*config, *unit]),
        *unit,
    ]


@lru_cache
def _bootstrap(process: Process) -> str:
    """Return the file that a process starts from, which is the same on all hosts of a service."""
    return render(
        f"{process.name}/bootstrap.yaml.j2",
        folder=process.folder,
        admin_port=ADMIN_PORT,
        heap_bytes=process.heap_bytes,
        connections=min(MAX_CONNECTIONS, process.heap_bytes // BYTES_PER_CONNECTION),
    )


def _xds_file(process: Process, file: Xds, text: str) -> File:
    path = f"{process.folder}/{file.name}"
    reader = Reader(process.unit, file.effect, file.stat)
    if file.secret:
        return File(path, text.encode(), group=process.user, mode=0o640, secret=True, about=file.about, reader=reader)
    return File(path, text.encode(), reader=reader)


def _validation(process: Process, mesh: Mesh, config: Sequence[File], guards: Sequence[Resource]) -> Validation:
    """Return that the Envoy which is to run `config` accepts it, as the user that it runs as.

    Its unit names that Envoy, so another release does not start either before it has accepted the configuration.
    """
    return Validation(
        name=process.name,
        command=(envoy_path(mesh), "--mode", "validate", "-c", "{staged}"),
        content=partial(_static, config),
        user=process.user,
        guards=frozenset(r.address for r in guards if isinstance(r, File)),
    )


def _static(config: Sequence[File]) -> bytes:
    """Return the last of these files, the bootstrap, with all that it would read from the others."""
    *files, bootstrap = (parsed(f.content.decode()) for f in config)
    paths = (f.path for f in config)
    return json.dumps(static_bootstrap(bootstrap, dict(zip(paths, files, strict=False))), indent=1).encode()


def _unit(process: Process, host: Host, mesh: Mesh, bootstrap: str, stats: dict[str, str]) -> list[Resource]:
    values = {
        "process": process,
        "binary": envoy_path(mesh),
        "version": mesh.envoy_version,
        "node": host.name,
        "open_files": OPEN_FILES,
        "takeover": process.takeover(mesh.envoy_version),
        "hot_restart": HOT_RESTART_SCRIPT,
        "admin_port": ADMIN_PORT,
    }
    probe = Probe(ADMIN_PORT, "/ready", stats)
    file, unit = unit_resources(process.unit, "units/envoy.service.j2", values, bootstrap, probe)
    return [file, replace(unit, leave_s=process.leave_s, takeover=process.takeover(mesh.envoy_version))]


_STAMP = "\0"
"""Where a unit's stamp goes, until it is known: a character that no unit has."""


def unit_resources(name: str, template: str, values: dict[str, object], read: str, probe: Probe) -> tuple[File, Unit]:
    """Return a unit's file and the unit.

    Args:
        name: the unit's name, with `.service`.
        template: its file, rendered with `values` and `stamp`.
        values: what the template needs.
        read: content that the process reads when it starts and never again.
        probe: tells that it serves.
    """
    unstamped = render(template, stamp=_STAMP, **values)
    stamp = hashlib.sha256((unstamped.replace(_STAMP, "") + read).encode()).hexdigest()
    text = unstamped.replace(_STAMP, stamp)
    file = File(f"/etc/systemd/system/{name}", text.encode(), reader=Reader(name, Effect.RESTART))
    return file, Unit(name, stamp, probe)
