"""Releases that take the place of others on hosts that serve: what is not well goes back, what is cut off is completed.

That no request is lost while all is well: tests/lab/test_no_request_lost.py.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.load import load
from tests.meshes import TestMesh, document, edited
from tests.releases import HEALTH, release

HOST = "service1-1"
ASKED_BY_A_FRONT = "'Envoy/HC' in request.headers.get('user-agent', '')"


@pytest.fixture
def two(lab: TestMesh) -> Iterator[TestMesh]:
    """The mesh of the other tests with two hosts of service1, which run what is in the project's folder."""
    lab.run("scale", "service1=2")
    yield lab
    lab.run("scale", "service1=1")


def test_without_a_release_before_hosts_get_back_the_code_that_they_had(two: TestMesh) -> None:
    text, before = two.inventory.read_text(), kept(two)
    condition = f"socket.gethostname() == 'service1-2' and {ASKED_BY_A_FRONT}"
    ill = f"{HEALTH.replace('_:', 'request:')}        if {condition}: raise OSError\n"
    with edited(two, "service/app.py", HEALTH, ill):
        done = two.run("deploy", "service1", code=1)
    assert "batch 1 of 2: service1-1" in done.stderr
    assert re.search(r"(?m)^service1-1 +failed +deploy/taken-back$", done.stdout)
    assert re.search(r"(?m)^service1-2 +failed +rollout/not-healthy$", done.stdout)
    assert "inventory.yaml has no release of service1 again: `provision` gives it what is in service/" in done.stderr
    assert two.inventory.read_text() == text
    assert kept(two)[0] == before[0], "what was taken back is not history, though the oldest may be gone for it"
    two.run("plan")


def kept(lab: TestMesh) -> list[str]:
    """Return the runs that are still to be seen on hosts."""
    return [run["run"] for run in document(lab.run("history", "--limit", "service1", "--json").stdout)["runs"]]


@pytest.fixture(scope="module")
def deployed(running: TestMesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestMesh]:
    """The mesh of the other tests with a release `first` of service1."""
    text = running.inventory.read_text()
    deploy(running, release(tmp_path_factory.mktemp("releases"), "first"))
    is_whole(running, "first")
    yield running
    running.inventory.write_text(text)
    running.run("up")


@pytest.fixture
def first(deployed: TestMesh) -> Iterator[TestMesh]:
    """The mesh with that release, which every test leaves there."""
    text = deployed.inventory.read_text()
    yield deployed
    if deployed.inventory.read_text() != text or deployed.run("plan", code=None).returncode != 0:
        deployed.inventory.write_text(text)
        deployed.run("provision")


def deploy(lab: TestMesh, folder: Path, code: int = 0) -> str:
    """Deploy a release by its folder's name; return what was told."""
    done = lab.run("deploy", "service1", "--from", str(folder), "--release", folder.name, "--verbose", code=code)
    return done.stdout + done.stderr


def units(lab: TestMesh) -> list[str]:
    """Return the units of applications on the host: those that run, and those that are there at all."""
    running = lab.on(HOST, "systemctl list-units --no-legend --plain 'envoymesh-app*' | cut -d' ' -f1").split()
    there = lab.on(HOST, "cd /etc/systemd/system && ls -d envoymesh-app* multi-user.target.wants/envoymesh-app*")
    assert there.split() == sorted([*running, *(f"multi-user.target.wants/{name}" for name in running)])
    return running


def is_whole(lab: TestMesh, name: str) -> None:
    """See that one release runs, which is that one, and that nothing is left to do."""
    assert len(units(lab)) == 1
    assert lab.release() == name
    lab.run("plan")


def test_a_release_is_named_by_the_inventory_and_one_from_before_is_kept(first: TestMesh, tmp_path: Path) -> None:
    text = first.inventory.read_text()
    deploy(first, release(tmp_path, "second"))
    is_whole(first, "second")
    assert first.inventory.read_text() == text.replace('"first"', '"second"')
    first.run("deploy", "service1", "--release", "first")
    is_whole(first, "first")
    assert first.inventory.read_text() == text
    assert "did you mean `second`?" in first.run("deploy", "service1", "--release", "scond", code=1).stderr


def test_a_release_that_does_not_start_takes_no_place(first: TestMesh, tmp_path: Path) -> None:
    text, unit = first.inventory.read_text(), units(first)
    pid = first.on(HOST, f"systemctl show -p MainPID {unit[0]}")
    with load(first, "a release that does not start", share=0.25) as seen:
        told = deploy(first, release(tmp_path, "broken", start="raise SystemExit(1)"), code=1)
    assert seen.figures.failed == {}, told
    assert "problem unit/not-ready" in told
    assert re.search(r"now +service1-1: .*; inventory.yaml has release first of service1 again", told)
    assert first.inventory.read_text() == text
    assert first.on(HOST, f"systemctl show -p MainPID {unit[0]}") == pid
    is_whole(first, "first")


def test_a_release_that_the_front_does_not_find_healthy_goes_back(first: TestMesh, tmp_path: Path) -> None:
    text = first.inventory.read_text()
    ill = release(tmp_path, "ill", health=f"if {ASKED_BY_A_FRONT}: raise OSError")
    with load(first, "a release that is not healthy", share=0.25) as seen:
        done = first.run("deploy", "service1", "--from", str(ill), "--json", code=1)
    assert seen.figures.failed == {}, "there is no other host, so the front goes on"
    [host] = document(done.stdout)["hosts"]
    assert host["problem"]["code"] == "rollout/not-healthy"
    assert "was given back what it had before" in host["problem"]["now"]
    assert first.inventory.read_text() == text
    is_whole(first, "first")


def test_an_application_of_an_earlier_release_of_the_tool_is_left_without_loss(first: TestMesh) -> None:
    """Its unit was `envoymesh-app.service`, on 127.0.0.1."""
    (unit,) = units(first)
    first.on(HOST, EARLIER.format(unit=unit))
    assert units(first) == ["envoymesh-app.service"]
    with load(first, "another name of the unit", share=0.25) as seen:
        first.run("provision")
    assert seen.figures.failed == {}
    is_whole(first, "first")
    assert units(first) == [unit]


EARLIER = """
set -e
cd /etc/systemd/system
eds=/etc/envoymesh/sidecar/eds/local_service.yaml
sed 's/--listen [^ ]*/--listen 127.0.0.1/' {unit} >envoymesh-app.service
systemctl daemon-reload
systemctl enable --quiet --now envoymesh-app
until curl -sf 127.0.0.1:8080/healthz; do sleep 0.1; done
sed 's/127[.0-9]*/127.0.0.1/; s/^version_info: .*/version_info: "earlier"/' $eds >$eds.new
mv $eds.new $eds
until curl -s '127.0.0.1:8001/stats?type=TextReadouts' | grep -q earlier; do sleep 0.1; done
systemctl disable --quiet --now {unit}
rm {unit}
systemctl daemon-reload
sed -i 's/{unit}/envoymesh-app.service/g' /var/lib/envoymesh/manifest
"""
