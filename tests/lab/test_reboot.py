"""Hosts that boot again: nobody notices where another host stands in, and nothing happens where none does."""

import re
from collections.abc import Iterator

import pytest

from tests.labs import eventually
from tests.load import load
from tests.meshes import TestMesh, document

BOOT = "cat /proc/sys/kernel/random/boot_id"


def test_a_host_must_be_named(running: TestMesh) -> None:
    assert "problem task/bad-argument: " in running.run("reboot", "", code=1).stderr


def test_a_host_that_nobody_stands_in_for_is_not_rebooted_unless_that_is_wanted(lab: TestMesh) -> None:
    before = boots(lab)
    for host, way in (("service1-1", "./mesh add-service-host service1"), ("front-envoy", "add an edge")):
        refused = lab.run("reboot", host, code=1)
        assert "problem reboot/nobody-else: " in refused.stderr
        assert lab.own(way) in refused.stderr
        assert lab.own(f"./mesh reboot {host} --force") in refused.stderr
    assert boots(lab) == before
    lab.run("reboot", "service1-1,front-envoy", "--force")
    now = boots(lab)
    assert {name for name in now if now[name] != before[name]} == {"service1-1", "front-envoy"}
    eventually(lambda: lab.get("/service/1")[0] == 200)
    lab.run("plan")


@pytest.fixture(scope="module")
def pair(running: TestMesh) -> Iterator[TestMesh]:
    """The mesh with two hosts of service1, for all tests here that need them."""
    running.run("scale", "service1=2")
    yield running
    running.run("scale", "service1=1")


@pytest.fixture
def two(pair: TestMesh, lab: TestMesh) -> TestMesh:
    """That mesh, converged; one that a test has changed is repaired after it."""
    return lab


def boots(mesh: TestMesh) -> dict[str, str]:
    return {name: mesh.on(name, BOOT).strip() for name in mesh.workspace.mesh.hosts}


def test_hosts_of_a_service_boot_again_one_after_the_other_and_no_client_notices(two: TestMesh) -> None:
    before, history = boots(two), two.run("history", "--json").stdout
    with load(two, "a reboot of both hosts", share=0.25) as seen:
        done = two.run("reboot", "service1")
    assert two.run("history", "--json").stdout == history, "a rollback goes back behind the last change, not to it"
    assert seen.figures.failed == {}, seen.figures
    now = boots(two)
    assert {name for name in now if now[name] != before[name]} == {"service1-1", "service1-2"}
    told = [
        line.split(maxsplit=1)[1] for line in done.stderr.splitlines() if re.search(r"service1-\d +(boots|done)", line)
    ]
    assert [re.sub(" +", " ", line) for line in told] == [
        *("service1-1 boots", "service1-1 done", "service1-2 boots", "service1-2 done"),
    ]
    two.run("plan")
    assert two.hostnames("service1") == {"service1-1", "service1-2"}
    last = document(two.run("audit", "--limit", "service1-1", "--json").stdout)["entries"][0]
    assert (last["what"], last["ending"], last["why"]) == ("reboot", "done", "reboot service1")


def test_a_reboot_whose_lock_is_taken_does_not_happen(two: TestMesh) -> None:
    """While a request is answered again and again, it waits for that."""
    before = boots(two)
    asking = "while curl -sf http://10.81.0.22:8000/service/1/stream & sleep 2; do :; done"
    two.on("service1-2", f"systemd-run --quiet --unit=asking bash -c '{asking}'")
    process = two.start("reboot", "service1-2")
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(r"service1-2 +finishes", line):
            break
    two.run("lock-release", "--limit", "service1-2")
    two.on("service1-2", "systemctl stop asking")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "problem lock/lost: " in told
    assert "it was not rebooted" in told
    two.run("provision")
    assert boots(two) == before


def test_who_does_not_know_the_authority_reboots_nothing(two: TestMesh) -> None:
    """Telling the fronts would give them another one."""
    before, state = boots(two), two.folder / ".envoymesh"
    files = [*state.glob("ca*.pem"), *state.glob("front/*")]
    kept = {file: file.read_bytes() for file in files}
    try:
        for file in files:
            file.unlink()
        told = two.run("reboot", "service1-1", code=1).stderr
    finally:
        for file in files:
            file.write_bytes(kept[file])
    assert "problem certificate/other-authority: " in told
    two.run("plan")
    assert boots(two) == before


def test_a_host_whose_release_this_box_does_not_have_is_not_rebooted(two: TestMesh) -> None:
    before, text = boots(two), two.inventory.read_text()
    two.inventory.write_text(text.replace("path: /service/1", "path: /service/1, release: gone"))
    try:
        told = two.run("reboot", "service1-1", code=1).stderr
    finally:
        two.inventory.write_text(text)
    assert "problem release/not-here: " in told
    two.run("plan")
    assert boots(two) == before


def test_a_host_is_not_rebooted_where_the_other_one_is_not_healthy(two: TestMesh) -> None:
    before = boots(two)
    application = two.application("service1-2")
    two.on("service1-2", f"systemctl stop {application}")
    try:
        eventually(lambda: two.hostnames("service1") == {"service1-1"})
        assert "problem reboot/nobody-else: " in two.run("reboot", "service1-1", code=1).stderr
    finally:
        two.on("service1-2", f"systemctl start {application}")
    assert boots(two) == before


def test_a_reboot_that_is_cut_off_is_completed_by_provision(two: TestMesh) -> None:
    with load(two, "a reboot that is cut off", share=0.25) as seen:
        process = two.start("reboot", "service1-2")
        assert process.stderr is not None
        for line in process.stderr:
            if re.search(r"service1-2 +boots", line):
                break
        process.kill()
        process.communicate()
        assert two.hostnames("service1") == {"service1-1"}
        again = ("provision", "--limit", "@failed")
        eventually(lambda: two.run(*again, code=None).returncode == 0, within_s=60, what="the host is back")
        eventually(lambda: two.hostnames("service1") == {"service1-1", "service1-2"})
    assert seen.figures.failed == {}, seen.figures
