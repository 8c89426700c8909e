"""Inventories are checked once for as long as they stay as they are."""

from pathlib import Path

import pytest

from envoymesh.model.inventory import load
from envoymesh.problems import Failed
from envoymesh.run import inventories
from envoymesh.run.inventories import mesh_of

TEXT = "name: x\nservices: {a: {path: /a}}\nhosts:\n  front: {role: edge, address: 10.77.0.2}\n"


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "inventory.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_what_did_not_change_is_not_checked_again(
    inventory: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = mesh_of(inventory, cache)
    monkeypatch.setattr(inventories, "parse", None)
    assert mesh_of(inventory, cache) == first == load(inventory)
    [kept] = (cache / "meshes").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_what_changed_is_read_anew_and_so_is_what_moved(inventory: Path, cache: Path, tmp_path: Path) -> None:
    first = mesh_of(inventory, cache)
    inventory.write_text(TEXT.replace("10.77.0.2", "10.77.0.3"), encoding="utf-8")
    assert mesh_of(inventory, cache) == load(inventory) != first
    moved = inventory.rename(tmp_path / "other.yaml")
    assert mesh_of(moved, cache).identifier == load(moved).identifier != first.identifier


def test_what_another_release_of_the_tool_has_checked_is_read_anew(
    inventory: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh_of(inventory, cache)
    monkeypatch.setattr(inventories, "_SOURCES", inventory.parent)
    monkeypatch.setattr(inventories, "parse", lambda *_, **__: "anew")
    assert str(mesh_of(inventory, cache)) == "anew"


@pytest.mark.parametrize("damaged", [b"", b"no end of line", b"\n", b"\x80\x05"])
def test_what_is_damaged_is_read_anew(inventory: Path, cache: Path, damaged: bytes) -> None:
    first = mesh_of(inventory, cache)
    [kept] = (cache / "meshes").iterdir()
    digest = kept.read_bytes().split(b"\n")[0]
    for content in (damaged, digest + b"\n" + damaged):
        kept.write_bytes(content)
        assert mesh_of(inventory, cache) == first


def test_problems_are_told_every_time_and_a_cache_that_takes_nothing_is_none(inventory: Path, cache: Path) -> None:
    cache.write_text("a file where a folder should be", encoding="utf-8")
    assert mesh_of(inventory, cache) == load(inventory)
    inventory.write_text(TEXT.replace("edge", "egde"), encoding="utf-8")
    for _ in range(2):
        with pytest.raises(Failed) as failed:
            mesh_of(inventory, cache)
        assert failed.value.problems[0].at.startswith("inventory.yaml:4:")
