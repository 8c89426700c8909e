"""The command line that runs a script on a host, and the output that comes back from it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from envoymesh.problems import Failed, Problem
from envoymesh.transport.openssh import Target

SCRIPT_LIMIT = 120 * 1024
"""Bytes of script: Linux takes 128 KiB as one argument (MAX_ARG_STRLEN), quoting included."""

ARGUMENT_LIMIT = 128 * 1024 - 1

STARTED = "-envoymesh-started-"
"""Printed before the script runs: without it, the login shell or sudo did not get that far."""


def command(script: str, *, sudo: bool) -> str:
    """Return the command that runs `script` in bash, quoted for sh, bash, dash, zsh, ksh and fish.

    The outer bash stays, so that a script killed by a signal has an exit status: sshd reports only signals
    of its own child, in a message that Paramiko does not read.

    Raises:
        ValueError: it is too long for an argument.
    """
    runner = f'{"sudo -n " if sudo else ""}bash --norc -c "$1"; exit $?'
    started = f"printf '%s\\n' {STARTED}\n{script}"
    whole = f"bash --norc -c {_quoted(runner)} bash {_quoted(started)}"
    if len(script.encode()) > SCRIPT_LIMIT or len(whole.encode()) > ARGUMENT_LIMIT:
        raise ValueError(f"a script of {len(script.encode())} bytes does not fit into a command")
    return whole


def _quoted(text: str) -> str:
    """Quote for POSIX shells and fish, which takes backslashes in single quotes for its own."""
    quoted = re.sub(r"['\\]+", lambda run: f"'\"{run[0].replace(chr(92), chr(92) * 2)}\"'", text)
    return f"'{quoted}'"


@dataclass
class Output:
    """What a script prints, without what the login shell printed before it.

    Attributes:
        on_line: called with each complete line of standard output.
        stdout: all of it, from the script's first byte.
        stderr: all of it.
        started: whether the script was started.
    """

    on_line: Callable[[str], None] | None = None
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    started: bool = False
    _told: int = 0

    def take(self, data: bytes) -> None:
        """Take what arrived on standard output."""
        self.stdout += data
        if not self.started:
            self._look_for_start()
        if self.started and self.on_line:
            self._tell(self.on_line)

    def _look_for_start(self) -> None:
        _, found, after = self.stdout.partition(f"{STARTED}\n".encode())
        if found:
            self.started, self.stdout = True, after

    def _tell(self, on_line: Callable[[str], None]) -> None:
        while (end := self.stdout.find(b"\n", self._told)) >= 0:
            line = self.stdout[self._told : end].decode(errors="replace")
            self._told = end + 1
            on_line(line)


def not_started(target: Target, status: int, stderr: bytes, *, sudo: bool) -> Failed:
    """Return why a script was not started, from the exit status of what should have started it."""
    saw = (*stderr.decode(errors="replace").splitlines(), f"exit status {status}")
    host, user = target.login.host, target.user
    if not sudo:
        what = f"the login shell of `{user}` on `{host}` does not start bash"
        hint = f"on the host: getent passwd {user}; command -v bash"
        return Failed(Problem("ssh/shell", what, target.at, saw, hint=hint))
    if status == 127:
        what = f"`{host}` has no sudo (or no bash), and `{user}` is not root"
        return Failed(Problem("ssh/sudo-missing", what, target.at, saw, hint="log in as root, or install sudo"))
    what = f"sudo on `{host}` does not let `{user}` become root without a password"
    hint = f"on the host, as root: visudo -f /etc/sudoers.d/{user}, with the line\n{user} ALL=(ALL) NOPASSWD: ALL"
    return Failed(Problem("ssh/sudo-password", what, target.at, saw, hint=hint))
