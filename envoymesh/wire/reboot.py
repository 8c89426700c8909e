"""Reboot: the script that boots a host again once it has finished what it has, and what it prints."""

import shlex
from collections.abc import Iterable
from importlib.resources import files

from envoymesh.plan.generation import Run
from envoymesh.problems import Failed, Problem
from envoymesh.wire.audit import reboot_entry
from envoymesh.wire.frames import frames_from
from envoymesh.wire.leave import LEAVE
from envoymesh.wire.lock import WRITER

_LIBRARY = WRITER + LEAVE + (files("envoymesh.wire") / "reboot.sh").read_text(encoding="utf-8")

BOOTED_SCRIPT = f"{_LIBRARY}booted\nframe end\n"
"""The bash text that tells one start of a host from every other."""


def reboot_script(run: Run, port: int, leave_s: int, within_s: int) -> str:
    """Return the bash text that boots a host again whose lock `run` has.

    Args:
        run: what the host notes in its audit log.
        port: the admin interface's of its Envoy.
        leave_s: how long its front reports before that it goes; 0 for none.
        within_s: how long it may finish what it has after that.
    """
    words = ("reboot", run.name, str(port), str(leave_s), str(within_s), reboot_entry(run))
    return f"{_LIBRARY}{shlex.join(words)}\n"


def boot_from(host: str, lines: Iterable[str]) -> str:
    """Return the start of a host that `BOOTED_SCRIPT` printed.

    Raises:
        Failed: it ended too early.
    """
    for frame in frames_from(lines):
        if frame.kind == "booted":
            return frame.fields[0]
    raise Failed(Problem("reboot/unreadable", "the host does not tell when it was started", host))


def reboots(lines: Iterable[str]) -> bool:
    """Return whether the host boots again, as `reboot_script` printed; else its lock was lost."""
    return any(f.kind == "end" and f.fields == ("reboots",) for f in frames_from(lines))
