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


WRONG_PASSWORD = 125
"""The exit status of a command whose password sudo does not accept."""

_INPUT = "-envoymesh-input-"
"""The line between a password and the script's own standard input."""

# In English, as sudo tells only by its text why it refuses.
_SUDO = "LC_ALL=C sudo"

# The password is tried before the script's input could be taken for another one, and counted as such by a host that
# locks users out. `-k`, as sudo would leave a password that it does not need at the moment to the script.
_TRIED = (
    f"IFS= read -r word; said=$(printf '%s\\n' \"$word\" | {_SUDO} -k -S -p '' bash --norc -c : 2>&1) ||"
    f" {{ printf '%s\\n' \"$said\" >&2; exit {WRONG_PASSWORD}; }}; {_SUDO} -k -S -p '' "
)
_AFTER_PASSWORD = f"""\
line=; until [ "$line" = {_INPUT} ]; do IFS= read -r line || exit; done; unset line LC_ALL
printf '%s\\n' {STARTED} >&2
"""


def command(script: str, *, sudo: bool, password: bool = False) -> str:
    """Return the command that runs `script` in bash, quoted for sh, bash, dash, zsh, ksh and fish.

    The outer bash stays, so that a script killed by a signal has an exit status: sshd reports only signals
    of its own child, in a message that Paramiko does not read.

    Args:
        script: bash text.
        sudo: whether sudo makes root of the user.
        password: whether it is given a password; then standard input begins with `password_input`.

    Raises:
        ValueError: it is too long for an argument.
    """
    become, prepare = "", ""
    if sudo:
        become, prepare = (_TRIED, _AFTER_PASSWORD) if password else (f"{_SUDO} -n ", "unset LC_ALL\n")
    runner = f'{become}bash --norc -c "$1"; exit $?'
    started = f"{prepare}printf '%s\\n' {STARTED}\n{script}"
    whole = f"bash --norc -c {_quoted(runner)} bash {_quoted(started)}"
    if len(script.encode()) > SCRIPT_LIMIT or len(whole.encode()) > ARGUMENT_LIMIT:
        raise ValueError(f"a script of {len(script.encode())} bytes does not fit into a command")
    return whole


def password_input(password: bytes) -> bytes:
    """Return what comes before a script's own standard input: the password to try, to use, and where it ends."""
    return b"%s\n%s\n%s\n" % (password, password, _INPUT.encode())


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

    def errors(self) -> bytes:
        """Return standard error, without what sudo said before it started a script with a password."""
        before, found, after = bytes(self.stderr).partition(f"{STARTED}\n".encode())
        return after if found else before

    def _look_for_start(self) -> None:
        _, found, after = self.stdout.partition(f"{STARTED}\n".encode())
        if found:
            self.started, self.stdout = True, after

    def _tell(self, on_line: Callable[[str], None]) -> None:
        while (end := self.stdout.find(b"\n", self._told)) >= 0:
            line = self.stdout[self._told : end].decode(errors="replace")
            self._told = end + 1
            on_line(line)


def wants_password(stderr: bytes) -> bool:
    """Return whether it is for a password only that `sudo -n` refused; sudo-rs speaks of authentication."""
    return b"is required" in stderr and not _wants_terminal(stderr)


def _wants_terminal(stderr: bytes) -> bool:
    return b"must have a tty" in stderr


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
    if status == WRONG_PASSWORD:
        what = f"sudo on `{host}` does not let `{user}` become root with this password"
        now = f"{host}: nothing was run; the password was tried once"
        hint = f"run the command again; for a host with a password of its own: --limit {host}"
        return Failed(Problem("ssh/sudo-password", what, target.at, saw, now, hint))
    edit = f"on the host, as root: visudo -f /etc/sudoers.d/{user}, with the line\n"
    if _wants_terminal(stderr):
        what, hint = f"sudo on `{host}` wants a terminal (requiretty)", f"{edit}Defaults:{user} !requiretty"
        return Failed(Problem("ssh/sudo-terminal", what, target.at, saw, hint=hint))
    what = f"sudo on `{host}` does not let `{user}` become root without a password"
    hint = f"{edit}{user} ALL=(ALL) NOPASSWD: ALL\nor run the command where it can ask for the password: on a terminal"
    return Failed(Problem("ssh/sudo-password", what, target.at, saw, hint=hint))
