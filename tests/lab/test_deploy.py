"""Releases that take the place of others on hosts that serve: no request is lost, and what is not well goes back."""

import http.client
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.labs import eventually
from tests.load import load
from tests.meshes import TestMesh, document
from tests.releases import SERVES, release

HOST = "service1-1"
GOOD = {"GET 200", "POST 200"}
UPLOAD_S = 8
ASKED_BY_A_FRONT = "'Envoy/HC' in request.headers.get('user-agent', '')"


def slow_answer(port: int) -> bytes:
    """Return the body of an answer that takes 5 s."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", "/service/1/slow")
        answer = connection.getresponse()
        return b"%d " % answer.status + answer.read()


def slow_upload(port: int) -> bytes:
    """Return the answer to a body that takes 8 s to arrive."""

    def body() -> Iterator[bytes]:
        for _ in range(UPLOAD_S * 10):
            yield b"x" * 1000
            time.sleep(0.1)

    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("POST", "/service/1", body(), {"Content-Length": str(UPLOAD_S * 10000)})
        answer = connection.getresponse()
        return b"%d " % answer.status + answer.read()


@contextmanager
def in_flight(port: int) -> Iterator[tuple[Future[bytes], Future[bytes]]]:
    """Give an answer of 5 s and an upload of 8 s that have begun."""
    with ThreadPoolExecutor() as pool:
        futures = pool.submit(slow_answer, port), pool.submit(slow_upload, port)
        time.sleep(0.5)  # both have been sent to the application, and end after it
        yield futures


@contextmanager
def loaded(lab: TestMesh) -> Iterator[Counter[str]]:
    """Give the answers to clients that ask before, during and after what is done."""
    with load(lab, "GET", "POST") as answers:
        yield answers
        after = answers.total()
        eventually(lambda: answers.total() > after + 200, what="requests after it")


@pytest.fixture(scope="module")
def deployed(running: TestMesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestMesh]:
    """The mesh of the other tests with a release `first` of service1."""
    text = running.inventory.read_text()
    deploy(running, release(tmp_path_factory.mktemp("releases"), "first"))
    yield running
    running.inventory.write_text(text)
    running.run("up")


@pytest.fixture
def first(deployed: TestMesh) -> Iterator[TestMesh]:
    """The mesh with that release, which every test leaves there."""
    text = deployed.inventory.read_text()
    is_whole(deployed, "first")
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


def is_whole(lab: TestMesh, body: str) -> None:
    """See that one release runs, which answers so, and that nothing is left to do."""
    assert len(units(lab)) == 1
    assert lab.get("/service/1") == (200, f"{body}\n")
    lab.run("plan")


def test_a_release_takes_the_place_of_another_and_back_and_nobody_notices(first: TestMesh, tmp_path: Path) -> None:
    text = first.inventory.read_text()
    with loaded(first) as answers, in_flight(first.http) as (answer, upload):
        told = deploy(first, release(tmp_path, "second"))
        assert answer.result().endswith(b"\nfirst\n")
        assert upload.result() == b"200 first %d\n" % (UPLOAD_S * 10000)
    assert set(answers) == GOOD, told
    is_whole(first, "second")
    assert first.inventory.read_text() == text.replace('"first"', '"second"')
    with loaded(first) as answers:
        first.run("deploy", "service1", "--release", "first")
    assert set(answers) == GOOD
    is_whole(first, "first")
    assert first.inventory.read_text() == text


def test_to_stop_and_start_it_instead_cuts_off_what_takes_longer(first: TestMesh) -> None:
    with in_flight(first.http) as (answer, upload):
        first.on(HOST, "systemctl restart 'envoymesh-app-*'")
        assert not [f for f in (answer, upload) if f.exception() is None and f.result().endswith(b"first\n")]


def test_a_release_that_does_not_start_takes_no_place(first: TestMesh, tmp_path: Path) -> None:
    text, unit = first.inventory.read_text(), units(first)
    pid = first.on(HOST, f"systemctl show -p MainPID {unit[0]}")
    with loaded(first) as answers, in_flight(first.http) as (answer, upload):
        told = deploy(first, release(tmp_path, "broken", start="raise SystemExit(1)"), code=1)
        assert (answer.result()[-6:], upload.result()[-6:]) == (b"first\n", b"80000\n")
    assert set(answers) == GOOD, told
    assert "problem unit/not-ready" in told
    assert re.search(r"now +service1-1: .*; inventory.yaml has release first of service1 again", told)
    assert first.inventory.read_text() == text
    assert first.on(HOST, f"systemctl show -p MainPID {unit[0]}") == pid
    is_whole(first, "first")


def test_a_release_that_the_front_does_not_find_healthy_goes_back(first: TestMesh, tmp_path: Path) -> None:
    text = first.inventory.read_text()
    health = f"if {ASKED_BY_A_FRONT}: raise OSError"
    with loaded(first) as answers:
        done = first.run("deploy", "service1", "--from", str(release(tmp_path, "ill", health=health)), "--json", code=1)
    assert set(answers) == GOOD
    [host] = document(done.stdout)["hosts"]
    assert host["problem"]["code"] == "rollout/not-healthy"
    assert "was given back what it had before" in host["problem"]["now"]
    assert first.inventory.read_text() == text
    is_whole(first, "first")


@pytest.fixture
def two(first: TestMesh) -> Iterator[TestMesh]:
    """The mesh with two hosts of service1."""
    first.run("scale", "service1=2")
    yield first
    first.run("scale", "service1=1")


def test_where_the_second_host_is_not_well_the_first_one_goes_back_too(two: TestMesh, tmp_path: Path) -> None:
    text = two.inventory.read_text()
    health = f"import os\n    if os.uname().nodename == 'service1-2' and {ASKED_BY_A_FRONT}: raise OSError"
    with loaded(two) as answers:
        told = deploy(two, release(tmp_path, "half", health=health), code=1)
    assert set(answers) == GOOD, told
    assert ": batch 1 of 2: service1-1" in re.sub(" +", " ", told).replace("- batch", ": batch")
    assert re.search(r"(?m)^service1-1 +failed +deploy/taken-back$", told)
    assert re.search(r"(?m)^service1-2 +failed +rollout/not-healthy$", told)
    assert two.inventory.read_text() == text
    assert {two.get("/service/1") for _ in range(20)} == {(200, "first\n")}
    two.run("plan")


def test_what_is_cut_off_between_start_and_switch_is_completed(first: TestMesh, tmp_path: Path) -> None:
    slow = release(tmp_path, "slow", start="import time; time.sleep(8); " + SERVES)
    with loaded(first) as answers:
        with first.start("deploy", "service1", "--from", str(slow), "--verbose") as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "waits for unit:envoymesh-app-" in line:
                    process.kill()
                    first.on(HOST, "kill -9 $(ls /run/envoymesh | grep -x '[0-9]*')")
        assert len(units(first)) == 2
        assert first.get("/service/1") == (200, "first\n")
        first.run("provision")
    assert set(answers) == GOOD
    is_whole(first, "slow")


def test_an_application_of_an_earlier_release_of_the_tool_is_left_without_loss(first: TestMesh) -> None:
    """Its unit was `envoymesh-app.service`, on 127.0.0.1."""
    (unit,) = units(first)
    first.on(HOST, EARLIER.format(unit=unit))
    assert units(first) == ["envoymesh-app.service"]
    with loaded(first) as answers, in_flight(first.http) as (answer, upload):
        first.run("provision")
        assert (answer.result()[-6:], upload.result()[-6:]) == (b"first\n", b"80000\n")
    assert set(answers) == GOOD
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
