"""Measuring: how long a process takes, and how much memory it needs."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from envoymesh.problems import Failed, Problem

TIMEOUT_S = 1200


@dataclass(frozen=True)
class Command:
    """A process to be measured.

    Attributes:
        name: whose it is, for messages.
        argv: the command line.
        folder: where it runs.
        said: a pattern that its output must have: proof that it did what is measured.
        times: how often.
        environment: what is added to this process's own.
    """

    name: str
    argv: Sequence[str]
    folder: Path
    said: str = ""
    times: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ran:
    """What a process took, in seconds, and what it printed on its standard output."""

    seconds: float
    stdout: str

    @property
    def inside_s(self) -> float:
        """What it says that it took without its own start."""
        return float(json.loads(self.stdout)["inside_s"])


def run(command: Command) -> Ran:
    """Run a command to its end.

    Raises:
        Failed: it did not exit with 0, or did not do what it is measured for.
    """
    began = time.monotonic()
    with _started(command) as process:
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        seconds = time.monotonic() - began
    output = stdout + stderr
    if process.returncode != 0 or len(re.findall(command.said, output)) < command.times:
        expected = f"exit code {process.returncode}, expected 0 and {command.times} times `{command.said}`"
        saw = (expected, *output.splitlines()[-9:])
        raise Failed(Problem("bench/contestant", f"{command.name} did not do its work", saw=saw, now=NOTHING_WRITTEN))
    return Ran(seconds, stdout)


def peak_mib(command: Command) -> float:
    """Run a command to its end; return the most memory that its own process had, resident, in MiB."""
    most = 0
    with _started(command) as process:
        while process.poll() is None:
            most = max(most, _high_water_kib(process.pid))
            time.sleep(0.002)
        process.communicate()
    return most / 1024


NOTHING_WRITTEN = "the hosts of the benchmark are gone; docs/benchmarks.md is as it was"


@contextmanager
def _started(command: Command) -> Iterator["subprocess.Popen[str]"]:
    """Give a process of a group of its own; what is left of the group in the end is killed."""
    with subprocess.Popen(
        list(command.argv),
        cwd=command.folder,
        env={**os.environ, **command.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _high_water_kib(pid: int) -> int:
    """Return the most memory that a process had so far; 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)
