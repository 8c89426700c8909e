"""What gather's script says of this box: it changes nothing, so it needs no host of its own."""

import hashlib
import platform
import subprocess
from pathlib import Path

from envoymesh.plan.observed import Observed
from envoymesh.resources import Directory, File, Resource, User
from envoymesh.wire.gather import gather_script, observed_from


def read_here(*resources: Resource) -> Observed:
    """Read this box as a host is read, as far as it needs no systemd."""
    script = gather_script(resources)
    ran = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, check=False)
    return observed_from("here", ran.stdout.decode(errors="replace").split("\n"), resources)


def test_what_is_there_is_read_as_it_is_whatever_its_name(tmp_path: Path) -> None:
    odd = tmp_path / "a b\nc:d'\"$(id)`id`\\é*]"
    odd.mkdir()
    (odd / "same").write_bytes(b"same")
    (odd / "empty").touch()
    (odd / "other").write_bytes(b"\0other\n")
    (odd / "link").symlink_to("same")
    (odd / "folder").symlink_to(odd)
    (odd / "same").chmod(0o4711)
    names = ("same", "empty", "other", "link", "absent")
    seen = read_here(Directory(f"{odd}/folder"), *(File(f"{odd}/{name}", b"same") for name in names)).paths
    found = {path.removeprefix(f"{odd}/"): (p.kind, p.sha256 is not None, p.content) for path, p in seen.items()}
    assert found == {
        "folder": ("directory", False, None),
        "same": ("regular file", True, None),
        "empty": ("regular file", True, b""),
        "other": ("regular file", True, b"\0other\n"),
        "link": ("symbolic link", False, None),
    }
    assert (seen[f"{odd}/same"].mode, seen[f"{odd}/other"].sha256) == (0o4711, hashlib.sha256(b"\0other\n").hexdigest())


def test_a_host_with_nothing_is_read_as_such(tmp_path: Path) -> None:
    seen = read_here(User("nobody-of-this-name"), Directory(f"{tmp_path}/no"), File(f"{tmp_path}/no/no", b""))
    assert (seen.users, seen.paths) == (frozenset(), {})
    assert seen.platform.machine == platform.machine()
    assert read_here(User("root")).users == {"root"}


def test_a_secret_is_compared_and_never_read(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"another key")
    [seen] = read_here(File(str(file), b"a key", secret=True)).paths.values()
    assert (seen.sha256, seen.content) == (hashlib.sha256(b"another key").hexdigest(), None)
