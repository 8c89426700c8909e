"""Plans on real hosts: what they announce, and that a saved one is made true as it is or not at all."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from envoymesh.report.plan import outcome_lines, plan_lines
from tests.meshes import TestMesh, document

FRONT = "systemctl show -p MainPID --value envoymesh-front"


@pytest.fixture
def other_path(lab: TestMesh) -> Iterator[TestMesh]:
    """The mesh with an inventory that wants another path for service2; the hosts have the one before."""
    before = lab.inventory.read_text()
    lab.inventory.write_text(before.replace("{path: /service/2}", "{path: /two}"))
    yield lab
    lab.inventory.write_text(before)
    lab.run("provision")


def test_the_text_of_a_plan_and_of_its_outcome_is_drawn_from_the_document(other_path: TestMesh) -> None:
    told = document(other_path.run("plan", "--json", code=2).stdout)
    text = other_path.run("plan", code=2).stdout
    assert text == "".join(f"{line}\n" for line, _ in plan_lines(told))
    assert {(h["host"], h["effect"]) for h in told["hosts"]} == {
        ("front-envoy", "hot"),
        ("service1-1", "none"),
        ("service2-1", "stop"),
    }
    assert told["batches"] == [["service2-1"], ["front-envoy"]]
    before = other_path.on("front-envoy", FRONT)
    done = document(other_path.run("provision", "--json").stdout)
    assert [line for line, _ in outcome_lines(done)][:3] == [
        "front-envoy      changed      1 change, hot",
        "service1-1       unchanged",
        "service2-1       changed      6 changes, stop",
    ]
    assert other_path.on("front-envoy", FRONT) == before, "hot means that its process is the same"


def test_a_saved_plan_is_made_so_as_it_is(other_path: TestMesh, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    shown = other_path.run("plan", "--out", str(file), code=2).stdout
    assert shown.splitlines()[-1].endswith(f"--plan {file}")
    assert file.stat().st_mode & 0o777 == 0o600
    assert shown == "".join(f"{line}\n" for line, _ in plan_lines(json.loads(file.read_text())))
    before = {host: other_path.executions(host) for host in ("front-envoy", "service1-1")}
    done = other_path.run("provision", "--plan", str(file)).stdout
    assert "1 unchanged, 2 changed" in done.splitlines()
    assert other_path.executions("service1-1") - before["service1-1"] == 2, "one to read it, one of this count"
    other_path.run("plan")
    refused = other_path.run("provision", "--plan", str(file), code=1).stderr
    assert "problem plan/host-moved: front-envoy and service2-1 moved since this plan was made" in refused


def test_a_saved_plan_is_refused_before_anything_is_changed_once_one_host_has_moved(
    other_path: TestMesh, tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    other_path.run("plan", "--out", str(file), code=2)
    newest = "stat -c %i.%.Y /var/lib/envoymesh/manifest"
    before = [other_path.on(host, newest) for host in ("front-envoy", "service2-1")]
    other_path.on("service2-1", "chmod 0600 /etc/envoymesh/sidecar/cds.yaml")
    refused = json.loads(other_path.run("provision", "--plan", str(file), "--json", code=1).stdout)
    [problem] = refused["problems"]
    assert (problem["code"], problem["now"]) == ("plan/host-moved", "nothing was changed")
    assert problem["saw"] == ["service2-1: something on it was changed by hand, or was started or stopped"]
    assert [other_path.on(host, newest) for host in ("front-envoy", "service2-1")] == before


def test_a_saved_plan_is_refused_when_it_was_edited_or_its_inventory_was(lab: TestMesh, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    lab.run("plan", "--out", str(file))
    text = file.read_text()
    file.write_text(text.replace('"exit_code": 0', '"exit_code": 2'))
    assert "problem plan/edited" in lab.run("provision", "--plan", str(file), code=1).stderr
    file.write_text(text)
    inventory = lab.inventory.read_text()
    lab.inventory.write_text(inventory.replace("{path: /service/1}", "{path: /one}"))
    refused = lab.run("provision", "--plan", str(file), code=1).stderr
    lab.inventory.write_text(inventory)
    assert "problem plan/inventory-changed: what front-envoy and service1-1 shall have" in refused
    lab.run("provision", "--plan", str(file), "--limit", "service1", code=1)
    lab.run("provision", "--plan", str(file))
    assert os.listdir(tmp_path) == ["plan.json"]
