"""Base images are built once, by one process, wholly or not at all."""

import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from envoymesh.machines import image
from envoymesh.machines.image import Recipe, root_directory, root_tar
from tests.contract.maker import problems_of
from tests.labs import eventually, quiet

SMALL = Recipe("small", ("bash",), ('echo made > "$1"/etc/made',))

BUILD = f"""
from envoymesh.machines.image import Recipe, root_tar
print(root_tar({SMALL!r}, lambda host, text: print("building", flush=True)))
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "envoymesh" / "images"


def builder() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", BUILD], stdout=subprocess.PIPE, text=True)


def _at_work(cache: Path) -> list[Path]:
    """Return the processes whose root is in the cache, or whose command names it."""
    return [p for p in Path("/proc").glob("[0-9]*") if str(cache) in _text(p / "cmdline") + _target(p / "root")]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def test_a_killed_build_leaves_nothing_and_two_build_once(cache: Path) -> None:
    # Killed in the middle of unpacking packages.
    with builder() as first:
        eventually(lambda: list(cache.glob(".small-*.building/mmdebstrap.*/var/lib/dpkg/info/*")), 120)
        first.kill()
    assert first.wait() == -signal.SIGKILL
    assert not list(cache.glob("small-*"))
    eventually(lambda: not _at_work(cache), 60, "the build has ended")
    assert str(cache) not in Path("/proc/self/mounts").read_text()

    with builder() as one, builder() as other:
        said = [one.communicate()[0], other.communicate()[0]]
    assert "".join(said).count("building") == 1
    (tar,) = cache.glob("small-*/root.tar")
    assert all(text.splitlines()[-1] == str(tar) for text in said)
    assert not list(cache.glob(".*.building"))
    assert str(cache) not in Path("/proc/self/mounts").read_text()

    # What is cached is not built again; the directory is the tar.
    before = tar.stat().st_ino
    assert root_tar(SMALL, quiet) == tar
    directory = root_directory(SMALL, quiet)
    assert root_directory(SMALL, quiet) == directory
    assert (directory / "etc/made").read_text() == "made\n"
    assert tar.stat().st_ino == before
    with tarfile.open(tar) as opened:
        assert "./etc/made" in opened.getnames()


def test_a_build_that_fails_shows_why(cache: Path) -> None:
    recipe = Recipe("broken", ("bash", "no-such-package-anywhere"))
    (problem,) = problems_of(lambda: root_tar(recipe, quiet))
    assert problem.code == "machines/image"
    assert "no-such-package-anywhere" in "".join(problem.saw)
    assert [path.name for path in cache.iterdir()] == [f".broken-{recipe.digest}.lock"]


def test_a_build_takes_its_tool(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(cache))
    (problem,) = problems_of(lambda: root_tar(SMALL, quiet))
    assert problem.code == "machines/tool-missing"
    assert "apt-get install" in problem.hint
    assert image.cache_dir() == cache.parent
