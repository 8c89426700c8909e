"""Inventories that are as they were when they were read last: their meshes are kept, since to check them takes long."""

import hashlib
import pickle
from contextlib import suppress
from pathlib import Path

from envoymesh import model
from envoymesh.files import replace_file
from envoymesh.model.inventory import parse, read
from envoymesh.model.mesh import Mesh

_SOURCES = Path(*model.__path__)


def mesh_of(path: Path, cache: Path) -> Mesh:
    """Return the mesh of the inventory at `path`, checked unless it was when it was read last.

    Args:
        path: inventory.yaml.
        cache: a folder that nobody else can write to: what is kept is Python's.

    Raises:
        Failed: with all of the inventory's problems, in the order of their lines.
    """
    text, seed = read(path), str(path.resolve())
    digest = _digest(text, seed, *(source.read_text("utf-8") for source in sorted(_SOURCES.glob("*.py"))))
    kept = cache / "meshes" / _digest(seed)[:32]
    with suppress(Exception):  # there is none, or it is of another inventory, damaged, or of another Python
        found, content = kept.read_bytes().split(b"\n", 1)
        if found == digest.encode():
            return pickle.loads(content)  # type: ignore[no-any-return]  # noqa: S301 - nobody else writes there
    mesh = parse(text, path.name, seed=seed)
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        replace_file(kept, f"{digest}\n".encode() + pickle.dumps(mesh), 0o600)
    return mesh


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
