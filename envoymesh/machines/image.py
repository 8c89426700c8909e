"""Base images: Debian root file systems, built once from packages and kept outside the checkout."""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from envoymesh.machines.base import Progress
from envoymesh.problems import Failed, Problem

UNREAD = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
"""Left out of images: nobody reads them there, and a quarter of the files to copy are these."""


@dataclass(frozen=True)
class Recipe:
    """What goes into a root file system: the box's own release, minimal, plus `packages`.

    `customise` are shell scripts run at the end, outside the image, with the image's root as `$1`.
    """

    name: str
    packages: tuple[str, ...]
    customise: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """What tells this recipe's image from others: 16 hexadecimal digits over all that goes in."""
        parts = (release(), platform.machine(), *UNREAD, "", *self.packages, "", *self.customise)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def release() -> str:
    """Return the code name of the box's Debian or Ubuntu release; elsewhere that of Debian 12."""
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        return "bookworm"
    return system.get("VERSION_CODENAME", "") if system.get("ID") in {"debian", "ubuntu"} else "bookworm"


def cache_dir() -> Path:
    """Return where images and downloads are kept, outside any checkout; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "envoymesh"


def root_tar(recipe: Recipe, progress: Progress) -> Path:
    """Return the tar of the recipe's root file system; builds it (about a minute) when it is not cached.

    Raises:
        Failed: a tool is missing, or the build failed.
    """
    done = cache_dir() / "images" / f"{recipe.name}-{recipe.digest}" / "root.tar"
    if not done.exists():
        with _half_done(done) as (half, lock):
            if half is not None:
                progress("", f"building the {recipe.name} image from Debian packages, once")
                _mmdebstrap(recipe, half, lock)
    return done


def root_directory(recipe: Recipe, progress: Progress) -> Path:
    """Return the recipe's root file system as a directory, shared by all machines: nobody may write to it.

    Raises:
        Failed: as `root_tar`.
    """
    tar = root_tar(recipe, progress)
    done = tar.with_name("root")
    if not done.exists():
        with _half_done(done) as (half, lock):
            if half is not None:
                half.mkdir()
                _run(
                    [
                        "tar",
                        "--numeric-owner",
                        "--xattrs",
                        "--xattrs-include=*",
                        "-xpf",
                        str(tar),
                        "-C",
                        str(half),
                    ],
                    lock,
                )
    return done


@contextmanager
def _half_done(done: Path) -> Iterator[tuple[Path | None, int]]:
    """Let one process at a time make `done`: yield the path to make it at (None: it was made meanwhile).

    The builder inherits the lock (the second value, a file descriptor), so that a build whose parent was
    killed is never cleaned up while it still writes.
    """
    work = done.parent.with_name(f".{done.parent.name}.building")
    done.parent.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(done.parent.with_name(f".{done.parent.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            yield None, lock
            return
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            yield work / done.name, lock
            done.parent.mkdir(exist_ok=True)
            (work / done.name).rename(done)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(lock)


def _mmdebstrap(recipe: Recipe, target: Path, lock: int) -> None:
    """Build `recipe` into the tar `target`.

    What root's build needs in between lies beside it and is cleaned with it; the unprivileged build's user
    of its own cannot reach into a home directory.
    """
    _run(
        [
            *("mmdebstrap", "--variant=minbase", "--format=tar", f"--include={','.join(recipe.packages)}"),
            *(f"--dpkgopt=path-exclude={path}" for path in UNREAD),
            *(f"--customize-hook={script}" for script in recipe.customise),
            *(release(), str(target)),
        ],
        lock,
        scratch=target.parent if os.geteuid() == 0 else None,
    )


def _bounds() -> list[str]:
    """Return a prefix under which a command ends with this process, and root's with all its mounts and children.

    mmdebstrap mounts /proc, /sys and /dev into the image; one that was killed would leave them there, for the
    next build to remove what is in them.
    """
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return ["setpriv", "--pdeathsig", "KILL", *(alone if os.geteuid() == 0 else [])]


def _run(command: list[str], lock: int, scratch: Path | None = None) -> None:
    """Run a builder that ends when this process does, holding the lock until it has ended."""
    absent = [tool for tool in ("setpriv", "unshare", command[0]) if not shutil.which(tool)]
    if absent:
        raise Failed(tool_missing(absent))
    try:
        subprocess.run(
            [*_bounds(), *command],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            pass_fds=(lock,),
            env={**os.environ, **({"TMPDIR": str(scratch)} if scratch else {})},
        )
    except subprocess.CalledProcessError as error:
        raise Failed(
            Problem(
                code="machines/image",
                what="the base image could not be built",
                saw=tuple(error.stderr.splitlines()[-10:]),
                now="no machine was changed; the cache holds no half image",
                hint="see whether this box can fetch Debian packages: apt-get update",
            )
        ) from error


PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "tar": "tar",
    "setpriv": "util-linux",
    "nsenter": "util-linux",
    "setsid": "util-linux",
    "unshare": "util-linux",
    "ip": "iproute2",
    "systemd-nspawn": "systemd-container",
    "systemd-socket-activate": "systemd",
    "ssh-keygen": "openssh-client",
}
"""Which Debian package a tool is in, for the hint."""


def tool_missing(tools: list[str]) -> Problem:
    """Return the problem of `tools` that are not on this box's PATH."""
    packages = sorted({PACKAGES.get(tool, tool) for tool in tools})
    return Problem(
        code="machines/tool-missing",
        what=f"this box has no {', '.join(f'`{tool}`' for tool in tools)}",
        now="nothing was changed",
        hint=f"apt-get install {' '.join(packages)}",
    )
