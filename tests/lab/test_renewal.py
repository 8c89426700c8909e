"""Certificates and their authority are renewed while clients are served, and no connection is closed for it."""

import datetime
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import pytest

from envoymesh import certificates
from envoymesh.model.mesh import HostName
from envoymesh.model.secrets import KeyPair
from tests.labs import eventually
from tests.meshes import TestMesh, document, held

VERSIONS = ("--http1.1", "--http2")


@contextmanager
def kept_alive(lab: TestMesh, folder: Path, authority: Path) -> Iterator[list[Path]]:
    """Give files that get a line `STATUS VERSION CONNECTS` for each answer; each client has one connection.

    A client says how many connections it has made for a request.
    """
    files = [folder / f"client{i}" for i in range(2 * len(VERSIONS))]
    with ExitStack() as opened:
        clients = [client(lab, i, authority, opened.enter_context(file.open("w"))) for i, file in enumerate(files)]
        try:
            eventually(lambda: all(len(lines(f)) > 20 for f in files), what="the first answers")
            yield files
            asked = [len(lines(f)) for f in files]
            eventually(lambda: all(len(lines(f)) > n + 100 for f, n in zip(files, asked, strict=True)), what="more")
            assert all(client.poll() is None for client in clients)
        finally:
            for ended in clients:
                ended.kill()
                ended.wait()


def client(lab: TestMesh, number: int, authority: Path, told: IO[str]) -> subprocess.Popen[bytes]:
    """Start a client that asks again and again, every other one over HTTP/2."""
    return subprocess.Popen(
        [
            *("curl", "-s", "-S", VERSIONS[number % 2], "--cacert", str(authority), "--rate", "200/s"),
            *("-o", "/dev/null", "-w", "%{stderr}%{http_code} %{http_version} %{num_connects}\n"),
            f"https://localhost:{lab.https}/service/1?n=[1-1000000]",
        ],
        stderr=told,
    )


def lines(file: Path) -> list[str]:
    """Return the whole lines of a file, each as often as it is there."""
    return file.read_text().split("\n")[:-1]


def assert_nobody_noticed(files: Sequence[Path]) -> None:
    for number, file in enumerate(files):
        version = ("1.1", "2")[number % 2]
        assert Counter(lines(file)[1:]).keys() == {f"200 {version} 0"}, Counter(lines(file))
        assert lines(file)[0] == f"200 {version} 1"


def serial(lab: TestMesh, authority: Path) -> str:
    """Return the serial number that a new connection of a client of this authority is shown."""
    context = ssl.create_default_context(cafile=authority)
    plain = socket.create_connection(("127.0.0.1", lab.https), timeout=5)
    with context.wrap_socket(plain, server_hostname="localhost") as encrypted:
        certificate = encrypted.getpeercert()
    assert certificate
    return str(certificate["serialNumber"])


def ca(lab: TestMesh) -> Path:
    return lab.folder / ".envoymesh" / "ca.pem"


def test_a_certificate_is_renewed_and_no_connection_closed(lab: TestMesh, tmp_path: Path) -> None:
    before = serial(lab, ca(lab))
    with kept_alive(lab, tmp_path, ca(lab)) as files:
        renewed = document(lab.run("renew", "--json").stdout)
        assert serial(lab, ca(lab)) != before
    assert [(host["host"], host["effect"]) for host in renewed["hosts"]] == [("front-envoy", "hot")]
    assert_nobody_noticed(files)
    lab.run("plan")


def test_provision_renews_what_is_in_the_last_third_of_its_time(lab: TestMesh, tmp_path: Path) -> None:
    state = lab.folder / ".envoymesh"
    workspace = lab.workspace
    edge = workspace.mesh.hosts[HostName("front-envoy")]
    authority = KeyPair((state / "ca.pem").read_bytes(), (state / "ca-key.pem").read_bytes())
    names = certificates.names_of(edge, workspace.mesh)
    for days, renewed in ((240, False), (250, True)):
        then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
        old = certificates.make_leaf(authority, names, then)
        (state / "front/front-envoy.pem").write_bytes(old.chain)
        (state / "front/front-envoy-key.pem").write_bytes(old.key)
        if not renewed:
            lab.run("provision")
            before = serial(lab, ca(lab))
    planned = lab.run("plan", code=2).stdout
    assert "hot" in planned
    assert "certificate until " in planned
    with kept_alive(lab, tmp_path, ca(lab)) as files:
        lab.run("provision")
        assert serial(lab, ca(lab)) != before
    assert_nobody_noticed(files)


def test_clients_of_the_old_and_of_the_new_authority_are_served(lab: TestMesh, tmp_path: Path) -> None:
    old = tmp_path / "old.pem"
    old.write_bytes(ca(lab).read_bytes())
    before = serial(lab, old)
    with kept_alive(lab, tmp_path, old) as files:
        lab.run("renew", "--ca")
        assert ca(lab).read_bytes() != old.read_bytes()
        assert before != serial(lab, old) == serial(lab, ca(lab))
    assert_nobody_noticed(files)
    for version in VERSIONS:
        for trusted in (old, ca(lab)):
            asked = ["curl", "-s", version, "--cacert", str(trusted), f"https://localhost:{lab.https}/service/1"]
            assert b"Hello" in subprocess.run(asked, capture_output=True, check=True, timeout=20).stdout
    lab.run("check")


def test_an_authority_is_kept_while_another_has_the_lock_of_its_front(lab: TestMesh, tmp_path: Path) -> None:
    old = tmp_path / "old.pem"
    old.write_bytes(ca(lab).read_bytes())
    with held(lab, "front-envoy"):
        assert "problem lock/held: " in lab.run("renew", "--ca", code=1).stderr
        assert ca(lab).read_bytes() == old.read_bytes()
    lab.run("renew", "--ca")
    assert ca(lab).read_bytes() != old.read_bytes()
    serial(lab, old)


def test_an_authority_that_no_front_has_yet_gets_no_successor(lab: TestMesh, tmp_path: Path) -> None:
    old = tmp_path / "old.pem"
    old.write_bytes(ca(lab).read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    certificates.renew(lab.workspace.mesh, lab.workspace.state_dir, now, authority=True)
    made = ca(lab).read_bytes()
    told = lab.run("renew", "--ca", code=1).stderr
    assert "problem certificate/authority-behind: " in told
    assert ca(lab).read_bytes() == made
    lab.run("provision")
    assert serial(lab, old) == serial(lab, ca(lab))
    lab.run("renew", "--ca")


def test_another_operator_without_the_authority_does_not_replace_it(lab: TestMesh, tmp_path: Path) -> None:
    state, kept = lab.folder / ".envoymesh", {}
    for name in ("ca.pem", "ca-key.pem"):
        kept[name] = (state / name).read_bytes()
        (state / name).unlink()
    try:
        for task in ("plan", "provision"):
            told = lab.run(task, code=1).stderr
            assert "problem certificate/other-authority: " in told
            assert "nothing was changed" in told
        lab.on("front-envoy", "rm /etc/envoymesh/authority.pem")
        lab.run("provision")
        serial(lab, ca(lab))
        lab.run("renew", "--ca")
    finally:
        lost = ca(lab).read_bytes()
        for name, content in kept.items():
            (state / name).write_bytes(content)
    assert lost != kept["ca.pem"]
    assert "problem certificate/other-authority: " in lab.run("provision", code=1).stderr
    lab.on("front-envoy", "rm /etc/envoymesh/authority.pem")
    lab.run("provision")
    serial(lab, ca(lab))


@pytest.fixture(autouse=True)
def _trusted(lab: TestMesh) -> None:
    """A mesh whose certificate is what its authority has signed."""
    serial(lab, ca(lab))
