"""What a mesh needs and the inventory must not hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from envoymesh.model.mesh import HostName


@dataclass(frozen=True)
class KeyPair:
    """A certificate chain, leaf first, and the leaf's private key; both PEM. `about` is what may be told of them."""

    chain: bytes
    key: bytes = field(repr=False)
    about: str = ""


@dataclass(frozen=True)
class Secrets:
    """The front's certificate of each edge host, and the chain of the authority that clients trust, as PEM."""

    front: Mapping[HostName, KeyPair]
    authority: bytes
