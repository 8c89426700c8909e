"""Control groups: what is in one is the machine, so its end is certain and no process id can be mistaken."""

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

_OWNER = "trusted.envoymesh"


def hierarchy() -> Path | None:
    """Return where the cgroup2 hierarchy is mounted writable, or None."""
    return next(_mounts("cgroup2", "rw"), None)


def claim(group: Path, owner: str) -> str:
    """Make `group` unless it exists, as `owner`'s unless somebody owns it; return whose it is."""
    group.mkdir(exist_ok=True)
    with contextlib.suppress(OSError):
        os.setxattr(group, _OWNER, owner.encode(), os.XATTR_CREATE)
    return owner_of(group)


def owner_of(group: Path) -> str:
    """Return who claimed `group`, or an empty string."""
    try:
        return os.getxattr(group, _OWNER).decode()
    except OSError:
        return ""


def populated(group: Path) -> bool:
    """Whether any process lives in `group` or below it."""
    try:
        return "populated 1" in (group / "cgroup.events").read_text()
    except OSError:
        return False


def kill(group: Path) -> None:
    """Kill all that lives in `group` and below it, if it is there still."""
    try:
        (group / "cgroup.kill").write_text("1")
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENODEV}:  # the second is for a file that is open already
            raise


def emptied(group: Path, within_s: float) -> bool:
    """Wait until nothing lives in `group` or below it; return whether that came in time."""
    end = time.monotonic() + within_s
    while populated(group) and time.monotonic() < end:
        time.sleep(0.005)
    return not populated(group)


def remove(group: Path) -> None:
    """Remove `group` and the groups below it; all must be empty of processes.

    Where systemd's version 1 hierarchy is still mounted beside cgroup2, nspawn makes the same groups there.
    """
    here = hierarchy() or group
    mirrors = [mirror / group.relative_to(here) for mirror in _mounts("cgroup", "name=systemd")]
    for below in (below for g in (group, *mirrors) for below in _deepest_first(g)):
        with contextlib.suppress(FileNotFoundError):
            below.rmdir()


def _mounts(kind: str, option: str) -> Iterator[Path]:
    """Yield where file systems of this kind are mounted with this option."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, what, options, *_ = line.split()
        if what == kind and option in options.split(","):
            yield Path(where)


def _deepest_first(group: Path) -> Iterator[Path]:
    """Yield the groups below `group`, then `group`."""
    for entry in group.glob("*/"):
        yield from _deepest_first(entry)
    yield group
