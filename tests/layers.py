"""The layers of tests: what each needs of the box, and one run of those that the box can.

A test's folder says its layer. Where a layer cannot run, its tests are skipped with the reason; with `CI=true` they
fail with it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from envoymesh.machines import cgroup, nspawn, vagrant, vagrant_box
from envoymesh.problems import Failed, Problem, did_you_mean

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Layer:
    """Tests that need the same of the box.

    Attributes:
        folders: below `tests/`, in the order of the run.
        timeout_s: for one test with its fixtures; generous, so that it ends a hang and nothing else.
        tools: commands that must be installed.
        makes_machines: needs root, with the right to make namespaces and control groups.
    """

    folders: tuple[str, ...]
    timeout_s: int
    tools: tuple[str, ...] = ()
    makes_machines: bool = False

    def missing(self) -> str:
        """Return why this box cannot run the layer, as a short phrase, or an empty string."""
        absent = [tool for tool in self.tools if shutil.which(tool) is None]
        reasons = [f"not found: {', '.join(absent)}"] if absent else []
        if self.makes_machines and not _may_make_machines():
            reasons.append("needs root, with the right to make namespaces and control groups (cgroup2)")
        return "; ".join(reasons)


NSPAWN = (*nspawn.TOOLS, "curl", "ssh", "sshd", "sudo", "nft", "openssl", "wrk", "h2load")
LIBVIRT = tuple({*vagrant_box.TOOLS, *vagrant.TOOLS, "libvirtd", "qemu-system-x86_64", "dnsmasq", "mmdebstrap"})

LAYERS: Mapping[str, Layer] = {
    "unit": Layer(("unit", "conventions"), timeout_s=180),
    "golden": Layer(("golden",), timeout_s=300),
    "lab": Layer(("contract", "transport", "lab"), timeout_s=600, tools=NSPAWN, makes_machines=True),
    "vagrant": Layer(("vagrant",), timeout_s=3600, tools=LIBVIRT, makes_machines=True),
}

FOLDERS = {folder: name for name, layer in LAYERS.items() for folder in layer.folders}
"""Layer of each folder, in the order of the run."""


@cache
def missing(name: str) -> str:
    """Return why this box cannot run the layer `name`, or an empty string."""
    return LAYERS[name].missing()


def all_required() -> bool:
    """Tell whether a layer that cannot run is a failure."""
    return os.environ.get("CI") == "true"


def run_tests(layers: Sequence[str] = ()) -> int:
    """Run these layers (none named: all) in one run of pytest, whose summary is the last thing printed.

    Returns:
        pytest's exit code.

    Raises:
        Failed: a layer has no such name.
    """
    chosen = list(layers or LAYERS)
    _refuse_unknown(chosen)
    for name in chosen:
        print(f"{name + ':':9}{_outlook(missing(name))}")
    sys.stdout.flush()
    return int(pytest.main([str(ROOT / "tests"), "--durations=15", "-m", " or ".join(chosen)]))


def _outlook(reason: str) -> str:
    if not reason:
        return "runs here"
    return f"cannot run here ({reason}): " + ("a failure, as CI=true" if all_required() else "skipped")


def _refuse_unknown(names: Sequence[str]) -> None:
    problems = [
        Problem(
            "test/unknown-layer",
            f"`{name}` is not a layer of tests",
            now="no test was run",
            hint=did_you_mean(name, LAYERS) or f"layers are: {', '.join(LAYERS)}",
        )
        for name in names
        if name not in LAYERS
    ]
    if problems:
        raise Failed(*problems)


def _may_make_machines() -> bool:
    if os.geteuid() != 0 or cgroup.hierarchy() is None:
        return False
    probe = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False)
    return probe.returncode == 0
