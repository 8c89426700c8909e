"""The inventory's file, as commands edit it: in one step, with what others have written meanwhile, or not at all."""

import os
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from envoymesh.model.edit import with_host, without_host
from envoymesh.model.mesh import HostName, ServiceName
from envoymesh.problems import Failed
from envoymesh.run.workspace import Workspace, made, open_workspace, provider_file
from tests.rendering import INVENTORY

NEW = HostName("service1-2")


def enter(text: str) -> str:
    return with_host(text, NEW, ServiceName("service1"), IPv4Address("10.77.0.22"))


def leave(text: str) -> str:
    return without_host(text, NEW)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    path = tmp_path / "inventory.yaml"
    path.write_text(INVENTORY)
    return open_workspace(path, "existing")


def test_an_edit_counts_before_it_is_saved(workspace: Workspace) -> None:
    assert NEW in workspace.edited(enter).mesh.hosts
    assert workspace.inventory.read_text() == INVENTORY
    assert [path.name for path in workspace.inventory.parent.iterdir()] == ["inventory.yaml"]


def test_what_others_have_written_meanwhile_is_kept(workspace: Workspace) -> None:
    workspace.edited(enter)
    workspace.inventory.write_text(f"# by hand\n{INVENTORY}")
    workspace.save(enter)
    assert workspace.inventory.read_text() == f"# by hand\n{enter(INVENTORY)}"
    workspace.save(leave)
    assert workspace.inventory.read_text() == f"# by hand\n{INVENTORY}"


def test_an_edit_that_no_longer_fits_replaces_nothing(workspace: Workspace) -> None:
    workspace.inventory.write_text(enter(INVENTORY))
    with pytest.raises(Failed):
        workspace.save(enter)
    assert workspace.inventory.read_text() == enter(INVENTORY)


def test_a_link_to_the_inventory_stays_one_and_its_state_lies_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real/mesh.yaml", tmp_path / "inventory.yaml"
    real.write_text(INVENTORY)
    link.symlink_to(real)
    workspace = open_workspace(link, "existing")
    workspace.save(enter)
    assert link.is_symlink()
    assert real.read_text() == enter(INVENTORY)
    assert workspace.state_dir == real.parent / ".envoymesh"


def test_mode_and_line_ends_stay_as_they_are(workspace: Workspace) -> None:
    text = INVENTORY.replace("\n", "\r\n")
    workspace.inventory.write_bytes(text.encode())
    workspace.inventory.chmod(0o640)
    workspace.save(enter)
    assert b"service1-2: {service: service1, address: 10.77.0.22}\r\n" in workspace.inventory.read_bytes()
    assert workspace.inventory.stat().st_mode & 0o777 == 0o640
    workspace.save(leave)
    assert workspace.inventory.read_bytes() == text.encode()


def test_a_folder_that_cannot_be_written_to_is_told_before_anything_is_done(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> int:
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Failed) as failed:
        workspace.edited(enter)
    [problem] = failed.value.problems
    assert problem.code == "inventory/not-saved"
    assert "No space left on device" in problem.what
    assert problem.now == "nothing was changed"
    assert [path.name for path in workspace.inventory.parent.iterdir()] == ["inventory.yaml"]


def test_machines_of_an_inventory_that_was_moved_or_renamed_are_not_taken_for_others(workspace: Workspace) -> None:
    kept = provider_file(workspace.inventory)
    kept.parent.mkdir()
    kept.write_text(f"nspawn {workspace.mesh.identifier}\n")
    assert made(workspace.inventory) == ("nspawn", workspace.mesh.identifier)
    assert open_workspace(workspace.inventory).provider.name == "nspawn"
    workspace.inventory.write_text(INVENTORY.replace("name: ", "name: an-"))
    with pytest.raises(Failed) as failed:
        open_workspace(workspace.inventory)
    [problem] = failed.value.problems
    assert problem.code == "machines/moved"
    assert workspace.mesh.identifier in problem.saw[0]
