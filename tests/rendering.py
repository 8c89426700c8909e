"""What hosts must have, for tests: from an inventory's text, with certificates made on the spot."""

import datetime
from collections.abc import Sequence
from functools import cache

from envoymesh.certificates import make_authority, make_leaf, names_of
from envoymesh.model.inventory import parse
from envoymesh.model.mesh import HostName, Mesh
from envoymesh.model.secrets import KeyPair, Secrets
from envoymesh.resources import File, Resource, Validation
from roles import desired

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
    return Secrets({edge.name: _leaf(names_of(edge, mesh)) for edge in mesh.edges})


def desired_of(text: str = INVENTORY) -> dict[HostName, tuple[Resource, ...]]:
    mesh = mesh_of(text)
    return desired(mesh, secrets_of(mesh), list(mesh.hosts.values()))


def files_of(resources: Sequence[Resource]) -> dict[str, File]:
    return {r.path: r for r in resources if isinstance(r, File)}


def validation_of(resources: Sequence[Resource]) -> Validation:
    (validation,) = (r for r in resources if isinstance(r, Validation))
    return validation
