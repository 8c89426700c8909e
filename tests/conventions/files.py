"""The files of the checkout."""

import subprocess
from pathlib import Path

from tests.layers import ROOT


def in_git() -> list[Path]:
    """Return the files that git knows and that are there."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]
