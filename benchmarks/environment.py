"""What the contestants run with: the peers' own environment, Envoy to send, and what the document says of the box."""

import gzip
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from benchmarks.contestants import BENCHMARKS, PEERS
from benchmarks.hosts import ROOT
from envoymesh.events import Event, Notify
from envoymesh.machines.image import cache_dir
from envoymesh.model.releases import RELEASES
from envoymesh.problems import Failed, Problem
from envoymesh.resources import EnvoyBinary, Platform
from envoymesh.run.artifacts import blob_for

LOCK = BENCHMARKS / "requirements.txt"
COMPARED = ("ansible-core", "pyinfra", "paramiko")


def make_peers(notify: Notify) -> None:
    """Make the peers' environment from its lock, unless it is there.

    Raises:
        Failed: pip could not install it.
    """
    stamp, wanted = PEERS / "stamp", f"{hashlib.sha256(LOCK.read_bytes()).hexdigest()} {PEERS} {sys.version}"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    notify(Event("", f"making {PEERS.name} (once, about half a minute)"))
    install = ["-m", "pip", "install", "-qq", "--disable-pip-version-check", "--require-hashes", "-r", str(LOCK)]
    for argv in ([sys.executable, "-m", "venv", "--clear", str(PEERS)], [str(PEERS / "bin/python"), *install]):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            saw = tuple((done.stdout + done.stderr).splitlines()[-9:])
            what, hint = "the peers could not be installed", "look at the network and at `pip config list`"
            raise Failed(Problem("bench/peers", what, str(PEERS), saw, "nothing was measured", hint))
    stamp.write_text(wanted)


def packed_envoy() -> Path:
    """Return the newest Envoy as envoymesh sends it, fetched once: a gzip stream."""
    version, builds = next(iter(RELEASES.items()))
    source = EnvoyBinary(version, {machine: build.binary for machine, build in builds.items()})
    return blob_for(source, Platform(platform.machine(), (2, 36), (3, 11)), cache_dir()).path


def unpack(packed: Path, to: Path) -> Path:
    """Unpack Envoy, as the peers send it; return where it is."""
    with gzip.open(packed) as source, to.open("wb") as target:
        shutil.copyfileobj(source, target, 2**20)
    return to


def versions() -> list[str]:
    """Return the peers and their releases, from the lock."""
    pins = [line.split()[0].split("==") for line in LOCK.read_text().splitlines() if "==" in line and line[0] != " "]
    return [f"{name} {version}" for name, version in pins if name in COMPARED[:2]]


def box() -> str:
    """Return what the figures were measured on, in a few words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} processors, {memory:.0f} GiB, Linux {platform.release().split('-')[0]} "
        f"{platform.machine()}, Python {platform.python_version()}, {', '.join(versions())}"
    )


def commit() -> str:
    """Return the short name of the commit that is checked out, or an empty string."""
    with suppress(OSError):
        argv = ["git", "rev-parse", "--short=10", "HEAD"]
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return ""
