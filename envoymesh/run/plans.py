"""Saved plans as files of the operator's box."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envoymesh.events import Planned
from envoymesh.files import replace_file
from envoymesh.model.mesh import Mesh
from envoymesh.plan.saved import SavedPlan, opened, sealed
from envoymesh.problems import Failed, Problem
from envoymesh.run.workspace import Workspace


def save(path: Path, document: Mapping[str, Any], workspace: Workspace, planned: Planned) -> None:
    """Keep a plan's document; only its owner can read it, as diffs may tell what others need not know.

    Raises:
        OSError: it cannot be written.
    """
    text = sealed(document, workspace.mesh, planned.known, workspace.run)
    replace_file(path, text.encode(), 0o600)


def read(path: Path, mesh: Mesh) -> SavedPlan:
    """Return the plan in a file.

    Raises:
        Failed: it cannot be read, or is no plan for this mesh that is as it was saved.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        what = f"the saved plan cannot be read: {error.strerror or error}"
        hint = "make one: ./mesh plan --out FILE"
        raise Failed(Problem("plan/unreadable", what, str(path), now="nothing was changed", hint=hint)) from None
    return opened(text, str(path), mesh)
