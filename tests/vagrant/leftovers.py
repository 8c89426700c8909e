"""What libvirt, and this box, have of a mesh."""

import contextlib
import os
import re
import subprocess
from pathlib import Path

from envoymesh.machines import publish
from envoymesh.model.mesh import Mesh


def domains(mesh: Mesh) -> dict[str, str]:
    """Return the state of each of libvirt's machines of a mesh."""
    rows = re.findall(rf"^ \S+ +({mesh.identifier}_\S+) +(.+?)$", virsh("list", "--all"), re.MULTILINE)
    return dict(rows)


def virsh(*words: str) -> str:
    asked = ["virsh", "--connect", "qemu:///system", *words]
    return subprocess.run(asked, check=True, capture_output=True, text=True, timeout=60).stdout


def leftovers(mesh: Mesh, state: Path) -> list[str]:
    """Return what is left on this box of a mesh: files, machines, networks, disks, processes, listeners."""
    lists = {"machine": ("list", "--all"), "network": ("net-list", "--all"), "disk": ("vol-list", "default")}
    marks = (mesh.identifier, str(state))
    commands = [(path.parent.name, path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    return [
        *(f"file {path}" for path in (*state.glob("vagrant"), *state.glob("publish/*"))),
        *(f"{kind} {row}" for kind, ask in lists.items() for row in virsh(*ask).splitlines() if marks[0] in row),
        *(
            f"process {pid}"
            for pid, path in commands
            if pid != str(os.getpid()) and any(m in _text(path) for m in marks)
        ),
        *(f"listener {who}" for port in _ports(mesh) for who in publish.holders(port)),
    ]


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def _ports(mesh: Mesh) -> tuple[int, ...]:
    return (mesh.publish.http, mesh.publish.https, mesh.publish.admin)
