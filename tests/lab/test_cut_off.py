"""Commands that are cut off at any step: the same command, once more, completes what they began."""

import os
import re
import signal
from collections.abc import Iterator
from functools import partial

import pytest

from envoymesh.run.interrupt import STOPS
from tests.labs import run
from tests.meshes import TestMesh, cut_off, held


def at(*steps: str, ctrl_c: tuple[str, ...]) -> pytest.MarkDecorator:
    """Return the mark of a test that is cut off by `kill -9` at each step, and by Ctrl-C at some, which is kinder."""
    cases = [(signal.SIGKILL, step) for step in steps] + [(signal.SIGINT, step) for step in ctrl_c]
    names = [f"{'Ctrl-C' if how is signal.SIGINT else 'kill -9'} {step}" for how, step in cases]
    return pytest.mark.parametrize(("how", "step"), cases, ids=names)


def is_whole(lab: TestMesh) -> None:
    """See that there is nothing left to do, nothing wrong and nothing lying about."""
    lab.run("plan")
    lab.run("check")
    assert set(lab.on_all("find / -xdev -name '*.envoymesh' -o -name '*.envoymesh.*'")) == {""}
    assert not list(lab.folder.glob(".inventory*"))


@at(
    "service2-1 +receives .*/envoy$",
    "service1-1 +renames",
    "front-envoy +starts",
    ctrl_c=("service1-1 +renames",),
)
def test_provision_completes_what_was_cut_off(lab: TestMesh, how: signal.Signals, step: str) -> None:
    gone = "rm -rf /var/lib/envoymesh/artifacts /etc/envoymesh /etc/systemd/system/envoymesh-*"
    lab.on_all(f"systemctl stop 'envoymesh-*'; {gone}")
    cut_off(lab, how, step, "provision", "--verbose")
    lab.run("provision")
    is_whole(lab)


def test_ctrl_c_once_ends_what_is_in_hand_and_begins_no_more(lab: TestMesh) -> None:
    lab.on_all("systemctl stop 'envoymesh-*'")
    with lab.start("provision", "--canary", "1") as process:
        assert process.stderr is not None
        assert process.stdout is not None
        for line in process.stderr:
            if re.search("service1-1 +starts", line):
                os.killpg(process.pid, signal.SIGINT)
                break
        told, shown = process.stderr.read(), process.stdout.read()
    assert process.returncode == 1, told
    assert STOPS in told
    assert "service1-1       done" in told
    assert "run/interrupted" not in told
    assert not re.search("(service2-1|front-envoy) +(takes|starts|done)", told)
    became = {words[0]: " ".join(words[1:3]) for line in shown.splitlines() if len(words := line.split()) > 2}
    assert became["service1-1"].startswith("changed")
    assert became["service2-1"] == became["front-envoy"] == "not started"
    assert shown.splitlines()[-1].endswith(lab.own("./mesh provision --limit @failed"))
    done = lab.run("provision", "--limit", "@failed")
    assert "service1-1" not in done.stdout
    assert lab.run("plan", "--limit", "@failed").returncode == 0
    is_whole(lab)


def test_provision_waits_for_an_apply_that_still_goes_on_by_itself(lab: TestMesh) -> None:
    workspace = lab.workspace
    front = partial(run, workspace.provider, workspace.mesh.edges[0])
    folder = "/run/systemd/system/envoymesh-front.service.d"
    front(
        f"mkdir {folder}; printf '[Service]\\nExecStartPre=sleep 12\\n' > {folder}/slow.conf; systemctl daemon-reload"
    )
    try:
        front("systemctl stop envoymesh-front")
        cut_off(lab, signal.SIGKILL, "front-envoy +starts", "provision")
        assert "reading once more" in lab.run("provision").stderr
    finally:
        front(f"rm -r {folder}; systemctl daemon-reload")
    is_whole(lab)


def test_adding_that_is_cut_off_once_the_inventory_has_the_host_is_completed_by_provision(scaled: TestMesh) -> None:
    told = cut_off(scaled, signal.SIGINT, ": entered service1-2", "add-service-host", "service1")
    assert told.endswith(scaled.own("hint complete it: ./mesh provision\n"))
    scaled.run("provision")
    assert members(scaled) == ["service1-1", "service1-2"]
    is_whole(scaled)


def test_adding_while_another_has_the_lock_of_a_front_is_completed_by_provision(scaled: TestMesh) -> None:
    with held(scaled, "front-envoy"):
        told = scaled.run("add-service-host", "service1", code=1).stderr
    assert "problem lock/held: " in told
    assert "the new hosts are ready and in inventory.yaml; no front knows them" in told
    assert scaled.own("hint wait for it: ./mesh provision --lock-wait 300\n") in told
    assert scaled.hostnames("service1") == {"service1-1"}
    scaled.run("provision")
    assert members(scaled) == ["service1-1", "service1-2"]
    is_whole(scaled)


@pytest.mark.parametrize(
    ("how", "up", "down"),
    [
        pytest.param(signal.SIGKILL, "service1-2 +booting", "front-envoy +1 change", id="kill -9 at first"),
        pytest.param(signal.SIGKILL, "service1-3 +starts", "service1-3 +destroying", id="kill -9 in the middle"),
        pytest.param(
            signal.SIGKILL, ": entered service1-2, service1-3", ": removed service1-2, service1-3", id="kill -9 at last"
        ),
        pytest.param(signal.SIGINT, "service1-2 +booting", "front-envoy +waits for", id="Ctrl-C"),
    ],
)
def test_scaling_completes_what_was_cut_off(scaled: TestMesh, how: signal.Signals, up: str, down: str) -> None:
    cut_off(scaled, how, up, "scale", "service1=3")
    scaled.run("scale", "service1=3")
    assert members(scaled) == ["service1-1", "service1-2", "service1-3"]
    is_whole(scaled)
    cut_off(scaled, how, down, "scale", "service1=1", is_last=down.startswith(": removed"))
    scaled.run("scale", "service1=1")
    assert members(scaled) == ["service1-1"]
    is_whole(scaled)


@pytest.fixture
def scaled(lab: TestMesh) -> Iterator[TestMesh]:
    """The mesh, to scale service1; with one host of it again, its inventory is byte for byte as it was."""
    before = lab.inventory.read_bytes()
    yield lab
    lab.run("scale", "service1=1")
    assert lab.inventory.read_bytes() == before
    assert members(lab) == ["service1-1"]


def members(lab: TestMesh) -> list[str]:
    """Return the hosts of service1, as they are in the inventory, as machines and as those who answer."""
    mesh, maker = lab.workspace.mesh, lab.workspace.maker()
    assert maker is not None
    names: list[str] = [h.name for h in mesh.hosts.values() if h.service == "service1"]
    assert sorted(maker.machines()) == sorted(mesh.hosts)
    assert lab.hostnames("service1") == set(names)
    return names
