"""What hosts must have, for tests: from an inventory's text, with certificates made on the spot."""

import datetime
from collections.abc import Sequence
from functools import cache

from envoymesh.certificates import make_authority, make_leaf, names_of
from envoymesh.model.inventory import parse
from envoymesh.model.mesh import HostName, Mesh
from envoymesh.model.secrets import KeyPair, Secrets
from envoymesh.plan.observed import TEXT_STATS, HttpAnswer, Observed, ObservedPath, ObservedUnit
from envoymesh.resources import Artifact, Directory, File, Platform, Resource, Unit, User, Validation
from roles import Releases, desired

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

INVENTORY = """\
name: test
services:
  service1: {path: /service/1}
  service2: {path: /service/2}
hosts:
  front-envoy: {role: edge, address: 10.77.0.10}
  service1-1: {service: service1, address: 10.77.0.21}
  service2-1: {service: service2, address: 10.77.0.31}
"""


def mesh_of(text: str = INVENTORY) -> Mesh:
    return parse(text, "inventory.yaml", seed="test")


@cache
def authority() -> KeyPair:
    return make_authority("test", NOW)


@cache
def _leaf(names: tuple[str, ...]) -> KeyPair:
    return make_leaf(authority(), names, NOW)


def secrets_of(mesh: Mesh) -> Secrets:
    return Secrets({edge.name: _leaf(names_of(edge, mesh)) for edge in mesh.edges}, authority().chain)


def releases_of(mesh: Mesh) -> Releases:
    """Return code for every service: none that runs, so that what is rendered does not change with the project's."""
    return {name: {"__main__.py": b"", "requirements.txt": b""} for name in mesh.services}


def desired_of(text: str = INVENTORY) -> dict[HostName, tuple[Resource, ...]]:
    mesh = mesh_of(text)
    return desired(mesh, secrets_of(mesh), releases_of(mesh), list(mesh.hosts.values()))


def files_of(resources: Sequence[Resource]) -> dict[str, File]:
    return {r.path: r for r in resources if isinstance(r, File)}


def validation_of(resources: Sequence[Resource]) -> Validation:
    (validation,) = (r for r in resources if isinstance(r, Validation))
    return validation


PLATFORM = Platform("x86_64", (2, 36), (3, 11))


def started(unit: Unit) -> ObservedUnit:
    """Return how a unit is read that runs as it is to run."""
    return ObservedUnit("loaded", "active", "enabled", needs_reload=False, stamp=unit.stamp, takeover=unit.takeover)


def observed_of(resources: Sequence[Resource], generation: str = "7.1") -> Observed:
    """Return how a host is read that has, and runs, exactly this."""
    units = [r for r in resources if isinstance(r, Unit)]
    paths = {r.path: ObservedPath("directory", r.owner, r.group, r.mode) for r in resources if isinstance(r, Directory)}
    paths |= {
        f.path: ObservedPath("regular file", f.owner, f.group, f.mode, f.sha256, f.content)
        for f in files_of(resources).values()
    }
    return Observed(
        platform=PLATFORM,
        users=frozenset(r.name for r in resources if isinstance(r, User)),
        paths=paths,
        artifacts={r.path: r.source.digest(PLATFORM) for r in resources if isinstance(r, Artifact)},
        units={u.name: started(u) for u in units},
        answers={
            (u.probe.port, TEXT_STATS): HttpAnswer(200, "".join(f'{k}: "{v}"\n' for k, v in u.probe.stats.items()))
            for u in units
            if u.probe.stats
        },
        manifest=frozenset(r.address for r in resources if not isinstance(r, Validation)),
        generation=generation,
    )


BARE = Observed(PLATFORM, frozenset(), {}, {}, {}, {}, frozenset())
