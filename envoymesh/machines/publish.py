"""Published ports: 127.0.0.1 of this box leads to a machine, by processes that outlive the tool.

The listening socket is opened here, so that a taken port is known at once, and handed over the way systemd
does it (`LISTEN_FDS`). What serves it is a well-kept program that takes such a socket:
`systemd-socket-proxyd`, or `systemd-socket-activate --accept --inetd` before a program per connection.
"""

import contextlib
import errno
import hashlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from envoymesh.problems import Failed, Problem

_LAUNCH = """
exec 3<&0 </dev/null
ulimit -n "$(ulimit -Hn)"
read -r stat < "/proc/$$/stat"
started=$(echo "$stat" | cut -d ' ' -f 22)
echo "$$ $started $2" > "$1.new" && mv "$1.new" "$1"
exec > "$1.log" 2>&1
export LISTEN_FDS=1 LISTEN_PID=$$
shift 2
exec "$@"
"""
"""Turns into the command with the socket as descriptor 3, having written down who it is: a tool that is
killed here leaves no listener that nobody knows of. Standard output closes once that is done."""


def socket_proxy(address: str) -> list[str]:
    """Return the command that connects each connection of the socket it is given to `address` (`IP:PORT`)."""
    merged = Path("/usr/lib/systemd/systemd-socket-proxyd")
    program = merged if merged.exists() else Path("/lib/systemd/systemd-socket-proxyd")
    return [str(program), "--connections-max=4096", address]


def require_free(directory: Path, ports: Iterable[int]) -> None:
    """Do nothing when each of `ports` could be published, or is.

    Raises:
        Failed: some are taken; all of them are told.
    """
    problems: list[Problem] = []
    for port in ports:
        if not _served_by(directory / str(port)):
            try:
                with _listener(port):
                    pass
            except Failed as failed:
                problems += failed.problems
    if problems:
        raise Failed(*problems)


def publish(directory: Path, port: int, command: Sequence[str]) -> None:
    """Let `command` serve `port` of 127.0.0.1 until `unpublish`; idempotent.

    `directory` remembers who serves which port. A port that another command of ours serves changes over.

    Raises:
        Failed: the port is taken; the problem says by whom where that can be read.
    """
    directory.mkdir(parents=True, exist_ok=True)
    record = directory / str(port)
    key = hashlib.sha256("\0".join(command).encode()).hexdigest()
    if _served_by(record) == key:
        return
    _stop(record)
    with _listener(port) as listener:
        subprocess.run(
            ["setsid", "--fork", "sh", "-c", _LAUNCH, "sh", str(record), key, *command],
            check=True,
            stdin=listener.fileno(),
            stdout=subprocess.PIPE,
        )


def unpublish(directory: Path, keep: Collection[int] = ()) -> None:
    """Stop all that `publish` started with this `directory`, but for the ports to `keep`, and forget it; idempotent."""
    for record in sorted(directory.glob("*")):
        if record.name.partition(".")[0] in map(str, keep):
            continue
        if record.name.isdigit():
            _stop(record)
        record.unlink(missing_ok=True)
    if directory.exists() and not keep:
        directory.rmdir()


def published(directory: Path) -> tuple[int, ...]:
    """Return the ports that are being served."""
    return tuple(sorted(int(r.name) for r in directory.glob("*") if r.name.isdigit() and _served_by(r)))


def _served_by(record: Path) -> str:
    """Return the key of the command that serves a port, or an empty string when its process is gone."""
    try:
        pid, started, key = record.read_text().split()
    except (FileNotFoundError, ValueError):
        return ""
    return key if _started(int(pid)) == started else ""


def _started(pid: int) -> str:
    """Return when a process started, in ticks since boot: with the pid it names one process for ever."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _stop(record: Path) -> None:
    """End the process group that a record names, if it is still the one that wrote it; then forget it."""
    if _served_by(record):
        pid = int(record.read_text().split()[0])
        for how in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, how)
            end = time.monotonic() + 3
            while _served_by(record) and time.monotonic() < end:
                time.sleep(0.01)
    record.unlink(missing_ok=True)


@contextlib.contextmanager
def _listener(port: int) -> Iterator[socket.socket]:
    """Open a port of 127.0.0.1."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(1024)
        except OSError as error:
            if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise
            raise Failed(_taken(port, error)) from None
        yield listener


def _taken(port: int, error: OSError) -> Problem:
    """Return the problem of a port that cannot be listened on."""
    return Problem(
        code="machines/port-taken",
        what=f"port {port} of 127.0.0.1 cannot be published: {os.strerror(error.errno or 0).lower()}",
        at=f"127.0.0.1:{port}",
        saw=holders(port),
        now="nothing was changed",
        hint="end what holds the port, or change it under `publish:` in inventory.yaml",
    )


def holders(port: int) -> tuple[str, ...]:
    """Return who listens on a TCP port of this box, one `pid N: COMMAND LINE` each, where that can be read."""
    try:
        shown = subprocess.run(
            ["ss", "-Hltnp", f"sport = :{port}"], check=True, capture_output=True, text=True, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(
        f"pid {pid}: {_command_line(pid) or name}" for name, pid in re.findall(r'\("([^"]*)",pid=(\d+)', shown)
    )


def _command_line(pid: str) -> str:
    """Return a process's command line in at most 200 characters."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()[:200]
    return ""
