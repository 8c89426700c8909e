"""The tools find nothing: ruff, mypy, shellcheck."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conventions.files import in_git
from tests.layers import ROOT, all_required


def finds_nothing(*command: str) -> None:
    """Run a tool in the checkout; fail with what it prints unless it exits 0."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        pytest.fail(done.stdout, pytrace=False)


def is_script(path: Path) -> bool:
    """Tell whether the file's first line asks for a shell."""
    with path.open("rb") as file:
        return file.readline(80).startswith((b"#!/bin/sh", b"#!/bin/bash", b"#!/usr/bin/env bash"))


def test_ruff_finds_nothing() -> None:
    finds_nothing(sys.executable, "-m", "ruff", "check", ".")


def test_ruff_would_format_nothing() -> None:
    finds_nothing(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_mypy_finds_nothing() -> None:
    finds_nothing(sys.executable, "-m", "mypy")


def test_shellcheck_finds_nothing() -> None:
    if shutil.which("shellcheck") is None and not all_required():
        pytest.skip("not found: shellcheck")
    scripts = [str(path) for path in in_git() if is_script(path)]
    fragments = [str(path) for path in in_git() if path.suffix == ".sh" and not is_script(path)]
    assert str(ROOT / "mesh") in scripts
    finds_nothing("shellcheck", "--", *scripts)
    # Parts of a script that is put together: to shellcheck their functions look unused.
    finds_nothing("shellcheck", "--shell=bash", "--severity=warning", "--", *fragments)
