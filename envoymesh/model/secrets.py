"""What a mesh needs and the inventory must not hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from envoymesh.model.mesh import HostName


@dataclass(frozen=True)
class KeyPair:
    """A certificate chain, leaf first, and the leaf's private key; both PEM."""

    chain: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class Secrets:
    """The front's certificate of each edge host."""

    front: Mapping[HostName, KeyPair]
