"""inventory.yaml: what may be read from it. Its schema is loaded when there is something to check: that takes long."""

import re
from collections.abc import Mapping
from pathlib import Path

from envoymesh.model import schema
from envoymesh.model.mesh import Mesh, Rollout
from envoymesh.model.names import NAME, NAME_RULE
from envoymesh.problems import Failed, Problem

PROVIDERS = ("auto", "vagrant", "nspawn", "existing")


def read(path: Path) -> str:
    """Return the text of the inventory at `path`.

    Raises:
        Failed: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Failed(
            Problem(
                code="inventory/unreadable",
                what=f"the inventory cannot be read: {error.strerror}",
                at=str(path),
                hint="run the command in the project's folder, or name the file: --inventory FILE",
            )
        ) from None
    except UnicodeDecodeError:
        raise Failed(
            Problem(code="inventory/not-utf-8", what="the inventory is not UTF-8 text", at=str(path))
        ) from None


def load(path: Path) -> Mesh:
    """Return the mesh of the inventory at `path`.

    Raises:
        Failed: with all of the inventory's problems, in the order of their lines.
    """
    return parse(read(path), path.name, seed=str(path.resolve()))


def parse(text: str, file: str, *, seed: str) -> Mesh:
    """Return the mesh that the YAML `text` describes.

    Args:
        text: the inventory.
        file: its name, for messages.
        seed: tells meshes of one name on one box apart; it goes into `Mesh.identifier`.

    Raises:
        Failed: with all of its problems, in the order of their lines.
    """
    return schema.parse(text, file, seed=seed)


def rollout_with(rollout: Rollout, settings: Mapping[str, str]) -> Rollout:
    """Return a rollout with some of its settings as they are given on a command line; empty ones stay.

    Raises:
        Failed: one of them is not what the inventory could have.
    """
    given = {name: text for name, text in settings.items() if text}
    return schema.rollout_with(rollout, given) if given else rollout


def is_name(text: str) -> bool:
    """Return whether a host or a service may be called so."""
    return re.fullmatch(NAME, text) is not None


__all__ = ["NAME_RULE", "PROVIDERS", "is_name", "load", "parse", "read", "rollout_with"]
