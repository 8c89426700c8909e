"""What hosts keep of earlier runs, and the way back."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from envoymesh.wire.generation import KEPT
from tests.meshes import TestMesh

FOLDER = "/var/lib/envoymesh/generations"


@pytest.fixture
def moved(lab: TestMesh) -> Iterator[TestMesh]:
    """The mesh, after a run that gave service2 another path; in the end it has the one it had."""
    before = lab.inventory.read_text()
    assert "/service/2" in before
    lab.inventory.write_text(before.replace("/service/2", "/service/two"))
    try:
        lab.run("provision", "--message", 'the second is called "two" $(reboot)\nfrom now on')
        yield lab
    finally:
        lab.inventory.write_text(before)
        lab.run("provision")


def runs(lab: TestMesh, *words: str) -> list[dict[str, Any]]:
    """Return what `history --json` tells, the last run first."""
    told: list[dict[str, Any]] = json.loads(lab.run("history", "--json", *words).stdout)["runs"]
    return told


def answers(lab: TestMesh) -> tuple[int, int]:
    """Return the status of the path that service2 had, and of the one that it was given."""
    return lab.get("/service/2")[0], lab.get("/service/two")[0]


def test_a_good_change_is_rolled_back_and_forth_and_the_history_tells(moved: TestMesh) -> None:
    assert answers(moved) == (404, 200)
    last, earlier = runs(moved)[0], runs(moved, "--limit", "service2,edge")[1]
    assert last["why"] == 'the second is called "two" $(reboot)\nfrom now on'
    assert set(last["hosts"]) == {"front-envoy", "service2-1"}, "service1-1 had nothing to do with it"
    assert "update file:/etc/envoymesh/front/rds.yaml" in last["hosts"]["front-envoy"]["changes"]

    done = moved.run("rollback")
    assert "1 unchanged, 2 changed" in done.stdout.splitlines()
    assert answers(moved) == (200, 404)
    assert "/service/two" in moved.run("plan", code=2).stdout, "the inventory is as it was"
    assert runs(moved)[0]["why"] == "rollback"

    moved.run("rollback", "--to", last["run"], "--message", "two after all")
    assert answers(moved) == (404, 200)
    assert runs(moved)[0]["why"] == "two after all"
    moved.run("plan")
    told = runs(moved)
    moved.on("front-envoy", "rm /etc/envoymesh/front/cds.yaml")
    done = moved.run("rollback", "--to", told[0]["run"])
    assert "2 unchanged, 1 changed" in done.stdout.splitlines(), "it is made so, whatever was done by hand"
    assert runs(moved) == told, "which nothing but the audit log tells: it was to have that before"
    assert moved.run("rollback", "--to", last["run"]).stdout.splitlines()[-1] == "3 unchanged", "they are so already"

    moved.run("rollback", "--limit", "service2,edge", "--to", earlier["run"])
    assert answers(moved) == (200, 404)
    text = moved.run("history").stdout
    assert earlier["run"] in text
    assert moved.width(text) <= 100


def test_a_host_keeps_its_last_five_and_the_key_in_them_is_root_s(lab: TestMesh) -> None:
    text = lab.inventory.read_text()
    for number in range(KEPT + 2):
        lab.inventory.write_text(text.replace("/service/2", f"/service/two-{number}"))
        lab.run("provision", "--limit", "edge")
    told = runs(lab, "--limit", "edge")
    numbers = [run["hosts"]["front-envoy"]["generation"] for run in told]
    assert len(numbers) == KEPT
    assert numbers == list(range(numbers[0], numbers[0] - KEPT, -1))
    assert lab.on("front-envoy", f"ls {FOLDER} | sort -rn").split() == list(map(str, numbers))
    assert lab.on("front-envoy", f"find {FOLDER} -perm /077") == ""


def test_a_damaged_generation_changes_nothing_and_the_others_can_be_chosen(moved: TestMesh) -> None:
    number = runs(moved, "--limit", "edge")[1]["hosts"]["front-envoy"]["generation"]
    moved.on("front-envoy", f"truncate -s -9 {FOLDER}/{number}/desired")
    done = moved.run("rollback", code=1)
    assert "problem history/damaged: its generation" in done.stderr
    assert answers(moved) == (404, 200)
    moved.on("front-envoy", f"echo x > {FOLDER}/{number}/about")
    told = [run["hosts"]["front-envoy"]["generation"] for run in runs(moved, "--limit", "edge")]
    assert number not in told
    assert number + 1 in told


def test_a_run_that_nobody_knows_is_told_with_those_there_are(lab: TestMesh) -> None:
    last = runs(lab)[0]["run"]
    done = lab.run("rollback", "--to", last[:-1], code=1)
    assert "problem history/unknown-run: no host keeps anything of a run" in done.stderr
    assert f"did you mean `{last}`?" in done.stderr
    assert lab.run("plan").returncode == 0


def test_a_host_without_anything_older_stays_as_it_is(lab: TestMesh) -> None:
    lab.on("service2-1", f"rm -r {FOLDER}")
    done = lab.run("rollback", "--limit", "service2", code=1)
    assert "problem history/unknown-run: no host keeps what an earlier run made of it" in done.stderr
    lab.on("service2-1", "rm /etc/envoymesh/sidecar/cds.yaml")
    lab.run("provision", "--limit", "service2")
    done = lab.run("rollback", "--limit", "service2", code=1)
    assert "problem history/nothing-older: `service2-1` keeps nothing that old" in done.stderr
    lab.run("plan")
