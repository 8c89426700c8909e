"""Modules that are loaded when something of them is first used: no task needs all, and loading takes most of its time.

They are imported as modules (`from envoymesh.run import status`): to import a name from one loads it. One thread has to
use each first: importlib's LazyLoader does not wait for another that is loading before Python 3.11.8 and 3.12.2.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

from typing_extensions import override

LATER = frozenset(
    {
        "envoymesh.certificates",
        "envoymesh.machines.nspawn",
        "envoymesh.machines.vagrant",
        "envoymesh.machines.vagrant_box",
        "envoymesh.model.schema",
        "envoymesh.report.audit",
        "envoymesh.report.findings",
        "envoymesh.report.history",
        "envoymesh.report.lock",
        "envoymesh.report.status",
        "envoymesh.run.audit",
        "envoymesh.run.check",
        "envoymesh.run.deploy",
        "envoymesh.run.history",
        "envoymesh.run.lifecycle",
        "envoymesh.run.members",
        "envoymesh.run.plans",
        "envoymesh.run.remote",
        "envoymesh.run.status",
        "roles",
    }
)


class _Later(MetaPathFinder):
    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in LATER else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def load_later() -> None:
    """Have those modules loaded when they are first used, from now on."""
    if not any(isinstance(finder, _Later) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Later())
