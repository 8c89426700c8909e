"""The real Envoy, fetched once and kept where the project keeps what it pushes."""

import gzip
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from envoymesh.machines.image import cache_dir
from envoymesh.model.releases import RELEASES
from envoymesh.resources import EnvoyBinary, Platform
from envoymesh.run.artifacts import blob_for

Validate = Callable[[bytes, str], subprocess.CompletedProcess[str]]


def envoy(version: str) -> Path:
    """Return an Envoy that this box can run."""
    machine = platform.machine()
    source = EnvoyBinary(version, {name: build.binary for name, build in RELEASES[version].items()})
    here = Platform(machine, (2, 31), None)
    path = cache_dir() / "envoy" / source.digest(here) / "envoy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        with gzip.open(blob_for(source, here, cache_dir()).path) as packed, new.open("wb") as file:
            shutil.copyfileobj(packed, file)
        new.chmod(0o755)
        new.replace(path)
    return path


@pytest.fixture
def validate(tmp_path: Path) -> Validate:
    """Let Envoy of a version judge a bootstrap."""

    def run(content: bytes, version: str) -> subprocess.CompletedProcess[str]:
        staged = tmp_path / "staged.yaml"
        staged.write_bytes(content)
        command = [str(envoy(version)), "--mode", "validate", "-c", str(staged)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return run
