"""The real scripts over a real SSH session: whatever a path and a content, what is asked for is what is there after.

The server's commands run in a mount namespace of their own, in which all that an apply writes to is memory.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from envoymesh.events import OutcomeKind
from envoymesh.model.mesh import HostName
from envoymesh.resources import Directory, File, Resource
from envoymesh.run.converge import apply, read
from envoymesh.run.fleet import Fleet
from envoymesh.run.workspace import Workspace, open_workspace
from tests.rendering import INVENTORY
from tests.transport.sshd import running

HOST = HostName("service1-1")
ROOT = "/srv/envoymesh-test"

PREPARE = """
for folder in /run /srv /var/lib; do mount -t tmpfs tmpfs $folder || exit; done
echo ready && exec sleep infinity
"""


class Scratch:
    """A host that nobody manages, and its file system as it is seen from here."""

    def __init__(self, fleet: Fleet, workspace: Workspace, system: Path) -> None:
        self.fleet, self.workspace, self.system = fleet, workspace, system

    def at(self, path: str) -> Path:
        return self.system / path.removeprefix("/")

    def cleared(self) -> None:
        for folder in ("/srv", "/var/lib"):
            for path in self.at(folder).iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def converge(self, resources: Sequence[Resource]) -> None:
        """Plan and apply; afterwards nothing must be left to do."""
        reading = read(self.fleet, HOST, resources)
        if reading.plan.changes:
            done = apply(self.fleet, reading, self.workspace, lambda event: None)
            assert done.kind is OutcomeKind.CHANGED
        assert read(self.fleet, HOST, resources).plan.changes == ()

    def there(self) -> dict[str, tuple[str, str, int, bytes | None]]:
        """Return owner, group, mode and content (None: a directory) of all that is there, by path."""
        return {
            f"/{path.relative_to(self.system)}": (
                path.owner(),
                path.group(),
                path.lstat().st_mode & 0o7777,
                None if path.is_dir() else path.read_bytes(),
            )
            for path in self.at("/srv").rglob("*")
        }


def wanted(resources: Sequence[Resource]) -> dict[str, tuple[str, str, int, bytes | None]]:
    return {
        r.path: (r.owner, r.group, r.mode, r.content if isinstance(r, File) else None)
        for r in resources
        if isinstance(r, File | Directory)
    }


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scratch]:
    folder = tmp_path_factory.mktemp("scratch")
    (folder / "inventory.yaml").write_text(INVENTORY)
    argv = ["unshare", "--mount", "bash", "-c", PREPARE]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
            enter = f'ForceCommand exec nsenter --mount=/proc/{holder.pid}/ns/mnt bash -c "$SSH_ORIGINAL_COMMAND"'
            with running(enter) as server, Fleet({HOST: server.login(folder / "known_hosts")}) as fleet:
                workspace = open_workspace(folder / "inventory.yaml")
                yield Scratch(fleet, workspace, Path(f"/proc/{holder.pid}/root"))
        finally:
            holder.kill()


NASTY = (
    "$(touch hit)",
    "`id`",
    "-rf",
    "a b",
    "'\"",
    "x\ny",
    "end\n",
    "*",
    "?[a]",
    "\\",
    "~",
    "#",
    "é\u2028",
    "{staged}",
)
"""Names that a shell, a list of lines or a printf would take for something else."""

LONGEST = 244
"""Bytes in the name of a file: what is staged beside it has 11 more, and Linux allows 255."""

names = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=8),
    st.integers(1, LONGEST).map("n".__mul__),
).filter(lambda name: name not in (".", "..") and not name.endswith(".envoymesh"))
contents = st.one_of(
    st.binary(max_size=60), st.sampled_from((b"\n\n", b"\0", bytes(range(256)) * 300, b"at 0; finish done\n", b"-n"))
)
owners = st.sampled_from(("root", "nobody", "daemon"))
groups = st.sampled_from(("root", "nogroup", "daemon"))
modes = st.sampled_from((0o000, 0o600, 0o644, 0o755, 0o1777, 0o2755, 0o4711))
DRIFTS = ("content", "mode", "gone", "link", "dangling link", "fifo", "directory")

Case = tuple[Sequence[Resource], Mapping[str, str], Sequence[Resource]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw what a host shall have, what others make of some of its paths then, and what it shall have after that."""
    pool = draw(st.lists(names, min_size=2, max_size=6, unique=True))
    folders = [ROOT]
    for name in pool[: draw(st.integers(0, 2))]:
        folders.append(f"{draw(st.sampled_from(folders))}/{name}")
    paths = [f"{draw(st.sampled_from(folders))}/{name}" for name in pool[len(folders) - 1 :]]
    first, second = (_state(draw, folders, paths) for _ in range(2))
    again = {r.path for r in first if isinstance(r, File)} & {r.path for r in second if isinstance(r, File)}
    drift = draw(st.dictionaries(st.sampled_from(sorted(again)), st.sampled_from(DRIFTS))) if again else {}
    return first, drift, second


def _state(draw: st.DrawFn, folders: Sequence[str], paths: Sequence[str]) -> list[Resource]:
    files = [File(p, draw(contents), draw(owners), draw(groups), draw(modes)) for p in paths if draw(st.booleans())]
    parents = {folder for folder in folders if any(f.path.startswith(f"{folder}/") for f in files)}
    kept = [f for f in folders if f in parents or (f == ROOT and parents)]
    return [*(Directory(path, draw(owners), draw(groups), draw(modes)) for path in kept), *files]


def drifted(path: Path, how: str) -> None:
    """Make of a file what others may have made of it."""
    elsewhere = path.parents[-1]
    if how == "mode":
        path.chmod(0o4777)
        return
    path.unlink()
    match how:
        case "content":
            path.write_bytes(b"by hand\n")
        case "link":
            path.symlink_to("/run/elsewhere")
        case "dangling link":
            path.symlink_to(f"{elsewhere}nowhere")
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()


A_SETGID_FOLDER = [Directory(ROOT, mode=0o2755), File(f"{ROOT}/x", b"")]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(cases())
@example((A_SETGID_FOLDER, {}, [Directory(ROOT, mode=0o755), *A_SETGID_FOLDER[1:]]))
def test_whatever_is_asked_for_is_there_after_and_nothing_else(scratch: Scratch, case: Case) -> None:
    first, drift, second = case
    scratch.cleared()
    elsewhere = scratch.at("/run/elsewhere")
    elsewhere.write_bytes(b"somebody else's\n")
    scratch.converge(first)
    assert scratch.there() == wanted(first)
    for path, how in drift.items():
        drifted(scratch.at(path), how)
    scratch.converge(second)
    assert scratch.there() == wanted(second)
    scratch.converge(())
    assert scratch.there() == {}
    assert elsewhere.read_bytes() == b"somebody else's\n"
