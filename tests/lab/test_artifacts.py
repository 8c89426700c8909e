"""Fetching with the real pip: what fits a host's Python, and what goes wrong."""

import re
import tarfile
from pathlib import Path

import pytest

from envoymesh.machines.image import cache_dir
from envoymesh.problems import Failed
from envoymesh.resources import Platform, PythonPackages
from envoymesh.run.artifacts import blob_for
from tests.layers import ROOT

REQUIREMENTS = (ROOT / "service/requirements.txt").read_text()
PINNED = re.findall(r"^([a-z-]+)==", REQUIREMENTS, flags=re.MULTILINE)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("minor", [10, 11, 12, 13])
def test_the_application_has_packages_for_every_python_and_machine(machine: str, minor: int) -> None:
    blob = blob_for(PythonPackages(REQUIREMENTS), Platform(machine, (2, 31), (3, minor)), cache_dir())
    with tarfile.open(blob.path) as tar:
        names = tar.getnames()
    compiled = [name for name in names if name.endswith(".so")]
    assert "aiohttp/__init__.py" in names
    assert compiled
    assert all(f"-3{minor}-{machine}-linux" in name for name in compiled)
    metadata = {name.split("-")[0].replace("_", "-") for name in names if name.endswith(".dist-info/METADATA")}
    assert metadata == set(PINNED)


def test_a_download_with_another_digest_is_refused(tmp_path: Path) -> None:
    wrong, told = "idna==3.20 --hash=sha256:" + "0" * 64, list[str]()
    with pytest.raises(Failed) as failed:
        blob_for(PythonPackages(wrong), Platform("x86_64", (2, 36), (3, 11)), tmp_path, told.append)
    assert told == ["fetching the application's packages"]
    assert failed.value.problems[0].code == "artifact/digest-mismatch"
    assert not list(tmp_path.rglob("*.gz"))


def test_no_index_is_told_with_what_pip_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(Failed) as failed:
        blob_for(PythonPackages(REQUIREMENTS), Platform("x86_64", (2, 36), (3, 11)), tmp_path)
    (problem,) = failed.value.problems
    assert problem.code == "artifact/unavailable"
    assert any("No matching distribution" in line for line in problem.saw)
    assert not list((tmp_path / "artifacts").glob(".pip-*"))
