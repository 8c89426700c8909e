"""Check and status against real faults: each is found, called by its name, and counted as what it is."""

import base64
import datetime
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from envoymesh.certificates import make_leaf, names_of
from envoymesh.model.secrets import KeyPair
from roles.render import render, stamped
from tests.lab.test_bad_days import cut_off
from tests.labs import eventually
from tests.meshes import TestMesh, document

FRONT = "/etc/envoymesh/front"


@pytest.fixture(scope="module")
def pair(running: TestMesh) -> Iterator[TestMesh]:
    """The mesh with two hosts of service1, one of which it can lose."""
    text = running.inventory.read_text()
    running.run("scale", "service1=2")
    assert failures(running, code=0) == {}
    yield running
    running.run("scale", "service1=1")
    assert running.inventory.read_text() == text


@pytest.fixture
def mesh(pair: TestMesh) -> Iterator[TestMesh]:
    """That mesh, which each test finds without fault: after each, it is brought back, and found so."""
    yield pair
    pair.run("provision", code=None)
    eventually(lambda: pair.run("check", code=None).returncode == 0, 60, "a mesh without fault")


def failures(mesh: TestMesh, *words: str, code: int | None) -> dict[str, dict[str, Any]]:
    """Return what check finds wrong, `subject: what` to the finding; it must exit with `code`, unless that is None."""
    done = mesh.run("check", "--json", *words, code=code)
    said = document(done.stdout)
    assert (said["version"], said["exit_code"]) == (1, done.returncode)
    assert len(said["findings"]) > 10
    wrong = [f for f in said["findings"] if not f["ok"]]
    assert all(f["hint"] for f in wrong)
    return {f"{f['subject']}: {f['what']}": f for f in wrong}


def found(mesh: TestMesh, what: str, within_s: float = 30) -> None:
    """Wait until check finds `what` wrong."""
    eventually(lambda: what in failures(mesh, code=None), within_s, what)


def replaced(path: str, command: str) -> str:
    """Return a command that replaces a file by what `command` makes of it, keeping owner and mode, as Envoy sees it."""
    return f"cp -p {path} {path}.new && {{ {command}; }} <{path} >{path}.new && mv {path}.new {path}"


def test_a_mesh_without_fault_is_read_in_one_execution_for_each_host(mesh: TestMesh) -> None:
    hosts = list(mesh.workspace.mesh.hosts)
    before = {host: mesh.executions(host) for host in hosts}
    text = mesh.run("check").stdout
    after = {host: mesh.executions(host) for host in hosts}
    assert {host: after[host] - before[host] - 1 for host in hosts} == dict.fromkeys(hosts, 1)
    assert text.splitlines()[-1].endswith("findings, all ok")
    assert max(map(len, text.splitlines())) <= 100
    assert "every host of service1 answers: service1-1, service1-2" in text
    for host in hosts:
        assert re.search(rf"^ok +{host} +Envoy 1\.40\.0 is LIVE$", text, re.MULTILINE)
    mesh.run("status")
    assert {host: mesh.executions(host) - after[host] - 1 for host in hosts} == dict.fromkeys(hosts, 1)


def test_a_limit_leaves_out_what_others_have_wrong(mesh: TestMesh) -> None:
    mesh.on("service2-1", "chmod 0600 /etc/systemd/system/envoymesh-app-*.service")
    assert failures(mesh, "--limit", "service1", code=0) == {}
    assert list(failures(mesh, "--limit", "service2", code=2)) == [
        "service2-1: is not as the inventory says: 1 to change"
    ]


def test_a_stopped_sidecar_is_found_from_inside_and_through_the_front(mesh: TestMesh) -> None:
    mesh.on("service2-1", "systemctl stop envoymesh-sidecar")
    found(mesh, "front-envoy: service2 has 1 members, 0 healthy; the inventory has 1")
    wrong = failures(mesh, code=1)
    assert "journalctl -u envoymesh-sidecar" in wrong["service2-1: Envoy does not answer"]["hint"]
    assert "status 503" in wrong["front-envoy: service2 does not answer as it must over http"]["saw"]
    assert "front-envoy: service2 does not answer as it must over https" in wrong
    assert not any("service1" in what for what in wrong)


def test_a_stopped_application_is_found_although_its_sidecar_runs(mesh: TestMesh) -> None:
    mesh.on("service1-2", "systemctl stop 'envoymesh-app-*'")
    missing = "front-envoy: not every host of service1 answers"
    found(mesh, missing)
    wrong = failures(mesh, code=1)
    assert "service1-2" in wrong[missing]["saw"]
    member = wrong["front-envoy: service1 has 2 members, 1 healthy; the inventory has 2"]
    assert member["saw"] == "service1-2: failed active health check"
    assert not any(what.startswith("service1-1") for what in wrong)


def test_a_managed_file_edited_by_hand_is_drift_and_nothing_else(mesh: TestMesh) -> None:
    mesh.on("front-envoy", f"echo '# by hand' >> {FRONT}/rds.yaml")
    wrong = failures(mesh, code=2)
    (finding,) = wrong.values()
    assert (finding["subject"], finding["saw"], finding["exit_code"]) == ("front-envoy", f"file:{FRONT}/rds.yaml", 2)
    assert finding["hint"] == mesh.own("./mesh plan --limit front-envoy")


def test_an_application_that_all_can_reach_is_found_from_another_host(mesh: TestMesh) -> None:
    edit = "sed -i s/host=listen/host=None/ /opt/envoymesh/app/*/service/app.py && systemctl restart 'envoymesh-app-*'"
    mesh.on("service2-1", edit)
    listening = "ss -Hltn 'sport = 8080' | grep -q 0.0.0.0:8080"
    eventually(lambda: mesh.run("exec", "service2-1", listening, code=None).returncode == 0, 20)
    wrong = failures(mesh, code=1)
    (finding,) = [f for what, f in wrong.items() if what.startswith("service2-1: lets others in behind its Envoy")]
    assert finding["saw"] == "10.81.0.31:8080 accepts connections"
    mesh.run("provision")
    mesh.on("service2-1", "systemctl restart 'envoymesh-app-*'")  # which runs what it was started from until then


def test_a_member_taken_out_by_hand_is_missed(mesh: TestMesh) -> None:
    mesh.on("front-envoy", replaced(f"{FRONT}/eds/service1.yaml", "head -n -3"))
    missing = "front-envoy: service1 has 1 members, 1 healthy; the inventory has 2"
    found(mesh, missing)
    wrong = failures(mesh, code=1)
    assert wrong[missing]["saw"] == "service1-2: no member"
    assert "service1-2" in wrong["front-envoy: not every host of service1 answers"]["saw"]


def test_a_file_that_envoy_has_not_taken_in_is_told_from_one_that_it_has(mesh: TestMesh) -> None:
    other = "sed 's/^version_info: .*/version_info: \"by-hand\"/'"
    mesh.on("front-envoy", replaced(f"{FRONT}/rds.yaml", other))
    eventually(lambda: "by-hand" in mesh.run("admin", "front-envoy", "/stats?type=TextReadouts").stdout)
    assert list(failures(mesh, code=2)) == ["front-envoy: is not as the inventory says: 1 to change"]
    mesh.on("front-envoy", f"sed 's/by-hand/unseen/' {FRONT}/rds.yaml > /tmp/rds && cp /tmp/rds {FRONT}/rds.yaml")
    saw = failures(mesh, code=1)["front-envoy: does not run what its xDS files say"]["saw"]
    assert saw == f"http.ingress_http.rds.local_route: {FRONT}/rds.yaml is unseen, by-hand runs"


def test_an_update_that_envoy_refuses_is_found_and_one_that_was_replaced_is_over(mesh: TestMesh) -> None:
    earlier = refused_earlier(mesh)
    mesh.on("front-envoy", replaced(f"{FRONT}/lds.yaml", "sed 's/listener.v3.Listener/listener.v3.Lissener/'"))
    refused = "front-envoy: Envoy refuses an update"
    found(mesh, refused)
    assert failures(mesh, code=1)[refused]["saw"] == "listener_manager.lds"
    mesh.run("provision")
    assert refused_earlier(mesh) == earlier + 1


def refused_earlier(mesh: TestMesh) -> int:
    """Return how many updates, by a check that finds nothing wrong, the front has refused since it was started."""
    said = re.search(r"front-envoy +refuses no update(?:; (\d+) were refused earlier)?", mesh.run("check").stdout)
    assert said
    return int(said[1] or 0)


def served_certificate(mesh: TestMesh, days: int) -> str:
    """Return a command that gives the front a certificate with so many days left."""
    state, inventory = mesh.workspace.state_dir, mesh.workspace.mesh
    authority = KeyPair((state / "ca.pem").read_bytes(), (state / "ca-key.pem").read_bytes())
    issued = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=365 - days, hours=-1)
    leaf = make_leaf(authority, names_of(inventory.edges[0], inventory), issued)
    text, _ = stamped(render("front/sds.yaml.j2", pair=leaf))
    return replaced(f"{FRONT}/sds.yaml", f"echo {base64.b64encode(text.encode()).decode()} | base64 -d")


@pytest.mark.parametrize(
    ("days", "what", "saw"),
    [
        (10, "its certificate has 10 days left", ""),
        (-1, "its port for https cannot be used", "certificate has expired"),
    ],
)
def test_a_certificate_that_ends_soon_or_has_ended_is_found(mesh: TestMesh, days: int, what: str, saw: str) -> None:
    mesh.on("front-envoy", served_certificate(mesh, days))
    found(mesh, f"front-envoy: {what}")
    finding = failures(mesh, code=1)[f"front-envoy: {what}"]
    assert saw in finding["saw"]
    assert finding["hint"] == mesh.own("./mesh provision --limit front-envoy")


def test_a_dead_host_that_others_stand_in_for_is_out_of_reach_and_no_other_problem(mesh: TestMesh) -> None:
    with cut_off(mesh, "service1-2"):
        wrong = failures(mesh, code=4)
        assert "10.81.0.22" in next(f["what"] for f in wrong.values() if f["subject"] == "service1-2")
        assert "front-envoy: not every host of service1 answers" in wrong
        rows = document(mesh.run("status", "--json", code=4).stdout)["hosts"]
        assert [r["host"] for r in rows if not r["reachable"]] == ["service1-2"]


def test_a_front_that_cannot_be_asked_says_what_to_allow(mesh: TestMesh) -> None:
    file = "/etc/ssh/sshd_config.d/00-test.conf"
    mesh.on("front-envoy", f"echo AllowTcpForwarding no > {file} && systemctl reload ssh")

    try:
        found(mesh, "front-envoy: its port for http cannot be used")
        wrong = failures(mesh, code=1)["front-envoy: its port for http cannot be used"]
        assert "AllowTcpForwarding yes" in wrong["hint"]
        said = mesh.run("admin", "front-envoy", "/ready", code=1).stderr
        assert "problem admin/no-answer" in said
        assert "AllowTcpForwarding yes" in said
    finally:
        mesh.on("front-envoy", f"rm {file} && systemctl reload ssh")


def test_status_shows_the_worst_first_and_why(mesh: TestMesh) -> None:
    mesh.on("service2-1", "systemctl stop envoymesh-sidecar")
    seen = "service2-1: a front sends it nothing: failed active health check"
    eventually(lambda: seen in mesh.run("status").stdout)
    lines = mesh.run("status").stdout.splitlines()
    assert [line.split()[0] for line in lines if "DEGRADED" in line] == ["front-envoy", "service2-1"]
    assert "DEGRADED" in lines[1]
    assert mesh.width("\n".join(lines)) <= 100
    assert "service2-1: envoymesh-sidecar.service is inactive" in lines
    rows = {row["host"]: row for row in document(mesh.run("status", "--json").stdout)["hosts"]}
    assert list(rows) == list(mesh.workspace.mesh.hosts)
    assert rows["service1-1"]["seen_by"] == {"healthy": 1, "fronts": 1}
    assert rows["service2-1"]["seen_by"] == {"healthy": 0, "fronts": 1}
    assert rows["front-envoy"]["members"]["service1"] == {"healthy": 2, "total": 2}
    assert rows["front-envoy"]["certificate_days"] > 300


@pytest.mark.parametrize(
    ("path", "code", "hint"),
    [
        ("stats", "task/bad-argument", "did you mean `/stats`?"),
        ("/stat", "admin/refused", "did you mean `/stats`?"),
        ("/reset_counters", "admin/refused", "./mesh admin service1-1 '/reset_counters' --post"),
        ("/stats?filter=[", "admin/refused", "/help"),
    ],
)
def test_what_an_admin_interface_refuses_has_a_way_out(pair: TestMesh, path: str, code: str, hint: str) -> None:
    said = pair.run("admin", "service1-1", path, code=1).stderr
    assert f"problem {code}: " in said
    assert pair.own(hint) in said


def test_an_admin_interface_takes_posts_and_any_filter(pair: TestMesh) -> None:
    assert pair.run("admin", "front-envoy", "/reset_counters", "--post").stdout == "OK\n"
    stats = pair.run("admin", "front-envoy", "/stats?filter=^cluster.(service1|no such).membership_total$").stdout
    assert stats == "cluster.service1.membership_total: 2\n"


def test_a_command_keeps_its_exit_status_and_its_bytes(pair: TestMesh) -> None:
    argv = pair.argv("exec", "service1-1", r"printf '\x00\xff'; id -u >&2; exit 7")
    done = subprocess.run(argv, cwd=Path(__file__).parents[2], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"\x00\xff", b"0\n")


def test_a_shell_is_roots_and_its_exit_status_is_kept(pair: TestMesh) -> None:
    argv = pair.argv("shell", "service1-1")
    done = subprocess.run(
        argv,
        cwd=Path(__file__).parents[2],
        input="hostname; id -u; exit 5\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout.split()[-2:]) == (5, ["service1-1", "0"])
