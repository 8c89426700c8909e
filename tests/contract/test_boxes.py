"""Boxes on which a provider cannot work: `up` says so, what to do, and changes nothing."""

import os
from pathlib import Path

import pytest

from envoymesh import cli
from envoymesh.report.terminal import Terminal
from tests.contract.maker import path_without
from tests.meshes import TestMesh


def test_without_vagrant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = TestMesh(tmp_path, provider="auto", network=86)
    monkeypatch.setenv("PATH", path_without("vagrant", tmp_path / "bin"))
    done = mesh.run("up", "--provider", "vagrant", code=1)
    assert "problem machines/provider-unusable: vagrant cannot work on this box" in done.stderr
    assert "saw  this box has no vagrant" in done.stderr
    assert "now  nothing was changed" in done.stderr
    assert mesh.own("hint ./mesh up --provider nspawn (as root)") in done.stderr
    assert [path.name for path in (tmp_path / ".envoymesh").iterdir()] == ["lock"]


def test_without_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mesh = TestMesh(tmp_path, provider="auto", network=86)
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o755)
    os.chown(tmp_path, 65534, 65534)
    os.seteuid(65534)
    try:
        terminal = Terminal()
        code = cli.guarded(lambda: cli.up(str(mesh.inventory), "nspawn", terminal=terminal), terminal)
    finally:
        os.seteuid(0)
    said = capsys.readouterr().err
    assert code == 1
    assert "problem machines/provider-unusable: nspawn cannot work on this box" in said
    assert "saw  it needs root" in said
    assert "now  nothing was changed" in said
    assert "(as root)" in said
    assert [path.name for path in (tmp_path / ".envoymesh").iterdir()] == ["lock"]
