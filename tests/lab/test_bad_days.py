"""Bad days: interruptions, dead hosts, full disks, wrong keys. Each is one clear error, and nothing is half done."""

import fcntl
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from envoymesh.machines import cgroup, netns
from envoymesh.model.mesh import HostName
from envoymesh.problems import Failed
from envoymesh.resources import File, Resource, Unit, Validation
from envoymesh.run.converge import apply, read
from envoymesh.run.provision import desired_of
from tests.labs import eventually
from tests.meshes import TestMesh, document, up

PUSHED = "rm -rf /var/lib/envoymesh/artifacts"
"""What makes a host receive everything bulky once more."""


@contextmanager
def cut_off(lab: TestMesh, host: str) -> Iterator[None]:
    """A host that no packet reaches."""
    namespace = f"{lab.workspace.mesh.identifier}-{host}"
    link = ["nsenter", f"--net={netns.path(namespace)}", "ip", "link", "set"]
    names = subprocess.run([*link[:2], "ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    name = next(line.split("@")[0].split()[0] for line in names.splitlines() if not line.startswith("lo"))
    subprocess.run([*link, name, "down"], check=True)
    try:
        yield
    finally:
        subprocess.run([*link, name, "up"], check=True)
        lab.run("up")


def problem(done: subprocess.CompletedProcess[str], code: str) -> str:
    """Return the text of the problem `code`; it must be there, with its place and its way out, and no traceback."""
    text = done.stdout + done.stderr
    assert "Traceback" not in text
    assert f"problem {code}: " in text, text
    told = text.split(f"problem {code}: ", 1)[1]
    assert re.search(r"^  at   \S", told, re.MULTILINE), told
    assert re.search(r"^  hint \S", told, re.MULTILINE), told
    return told


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("exec", "front-envy", "true"), "inventory/unknown-host", "did you mean `front-envoy`?"),
        (("scale", "servce1=3"), "inventory/unknown-service", "did you mean `service1`?"),
        (("scale", "service1=many"), "task/bad-argument", "./mesh scale service1=3"),
        (("scale", "service1=0"), "task/bad-argument", "./mesh scale service1=3"),
        (("add-service-host", "servce2"), "inventory/unknown-service", "did you mean `service2`?"),
        (("add-service-host", "service2", "--count", "0"), "task/bad-argument", "--count 1"),
        (("add-service-host", "service2", "--host", "x", "--address", "1.2.3.4"), "task/bad-argument", "leave"),
        (("remove-service-host", "front-envoy"), "inventory/not-a-service-host", "service host"),
        (("remove-service-host", "service1-1"), "inventory/last-host", "provision"),
        (("provision", "--limit", "servic1"), "inventory/unknown-limit", "did you mean `service1`?"),
        (("up", "--provider", "vagrnt"), "machines/unknown-provider", "did you mean `vagrant`?"),
        (("up", "--provider", "vagrant"), "machines/other-provider", "./mesh down"),
    ],
)
def test_a_wrong_argument_is_one_error_with_the_way_out(
    running: TestMesh, words: tuple[str, ...], code: str, hint: str
) -> None:
    before = running.inventory.read_text()
    assert running.own(hint) in problem(running.run(*words, code=1), code)
    assert running.inventory.read_text() == before


def test_an_unknown_flag_or_task_suggests_the_nearest(running: TestMesh) -> None:
    assert "Did you mean `--limit`?" in running.run("plan", "--limt", "x", code=1).stderr
    assert "Did you mean `provision`?" in running.run("provison", code=1).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add-service-host", "service1", "--count", "many"), "not a number: 'many'"),
        (("scale",), "'scale' did not receive required positional arguments: 'target'"),
        (("exec", "front-envoy"), "'exec' did not receive required positional arguments: 'command'"),
    ],
)
def test_an_argument_that_is_missing_or_no_number_is_told_in_one_line(
    running: TestMesh, words: tuple[str, ...], said: str
) -> None:
    assert running.run(*words, code=1).stderr.strip() == said


def test_what_stops_a_command_is_json_when_that_was_asked_for(running: TestMesh) -> None:
    for task in ("plan", "provision", "check"):
        said = document(running.run(task, "--json", "--limit", "nope", code=1).stdout)
        assert (said["version"], said["exit_code"]) == (1, 1)
        assert [problem["code"] for problem in said["problems"]] == ["inventory/unknown-limit"]


def test_a_taken_port_is_told_before_anything_is_made(tmp_path: Path) -> None:
    mesh = TestMesh(tmp_path, provider="nspawn", network=82)
    try:
        with socket.create_server(("127.0.0.1", mesh.https)):
            told = problem(mesh.run("up", code=1), "machines/port-taken")
        assert str(mesh.https) in told
        maker = mesh.workspace.maker()
        assert maker is not None
        assert not list(maker.machines())
    finally:
        mesh.run("down")


def test_a_host_out_of_reach_is_exit_4_and_the_others_are_done(lab: TestMesh) -> None:
    lab.on("service2-1", "chmod 600 /etc/systemd/system/envoymesh-app-*.service")
    with cut_off(lab, "service1-1"):
        done = lab.run("provision", code=4)
        assert "service1-1" in problem(done, "ssh/unreachable")
        assert re.search(r"service2-1 +changed", done.stdout)
        codes = {"plan": 4, "status": 4, "check": 1}  # nobody stands in for it, so a service does not answer
        with ThreadPoolExecutor() as pool:
            said = list(pool.map(lambda task: document(lab.run(task, "--json", code=codes[task]).stdout), codes))
        wrong = {f"{f['subject']}: {f['what']}": f for f in said[-1]["findings"] if not f["ok"]}
        assert wrong.pop("front-envoy: service1 does not answer as it must over http")["exit_code"] == 1
        assert any(f["subject"] == "service1-1" and f["exit_code"] == 4 for f in wrong.values())
        assert not any("service2" in what for what in wrong)
        assert lab.get("/service/2")[0] == 200


def test_a_wrong_key_is_told(lab: TestMesh) -> None:
    key = lab.folder / ".envoymesh/ssh/id_ed25519"
    kept = key.rename(key.with_name("kept"))
    public = key.with_suffix(".pub").read_text()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], input=b"y\n", check=True)
    try:
        problem(lab.run("provision", code=4), "ssh/auth")
    finally:
        kept.replace(key)
        key.with_suffix(".pub").write_text(public)


def test_a_changed_host_key_is_never_accepted(lab: TestMesh) -> None:
    known = lab.folder / ".envoymesh/known_hosts"
    kept = known.read_text()
    other = kept.splitlines()[0].split()[2]
    swapped = [
        " ".join((*line.split()[:2], other)) if line.startswith("10.81.0.21 ") else line for line in kept.splitlines()
    ]
    known.write_text("\n".join(swapped) + "\n")
    try:
        told = problem(lab.run("provision", code=1), "ssh/host-key-changed")
        assert told.count("SHA256:") >= 2
        assert known.read_text().splitlines() == swapped
    finally:
        known.write_text(kept)


def test_a_host_that_cannot_run_envoy_is_told_by_its_architecture(lab: TestMesh) -> None:
    lab.on("service1-1", "cp -a /etc/environment /root/; echo HOSTTYPE=riscv64 >> /etc/environment")  # bash keeps it
    try:
        told = problem(lab.run("provision", code=1), "host/architecture")
        assert "riscv64" in told
        assert "nothing was changed" in told
    finally:
        lab.on("service1-1", "mv /root/environment /etc/environment")


def test_a_full_disk_replaces_nothing_and_the_old_serves_on(lab: TestMesh) -> None:
    try:
        lab.on(
            "service2-1",
            "cp -a /opt/envoymesh /root/kept && mount -t tmpfs -o size=140m tmpfs /opt/envoymesh "
            f"&& cp -a /root/kept/. /opt/envoymesh && {PUSHED} && systemctl restart envoymesh-sidecar",
        )
        eventually(lambda: lab.get("/service/2")[0] == 200, within_s=20, what="service 2")
        told = problem(lab.run("provision", code=1), "apply/not-stored")
        assert "No space left on device" in told
        assert "nothing was replaced" in told
        assert lab.get("/service/2")[0] == 200
        assert lab.on("service2-1", "find /opt/envoymesh -name '*.envoymesh*'") == ""
    finally:
        lab.on("service2-1", "umount -l /opt/envoymesh; rm -rf /root/kept; systemctl restart envoymesh-sidecar")


def test_a_configuration_that_envoy_refuses_replaces_nothing(lab: TestMesh) -> None:
    workspace = lab.workspace
    [resources] = desired_of(workspace, workspace.mesh.edges).values()

    def misspelled(content: bytes) -> bytes:
        assert b"ROUND_ROBIN" in content
        return content.replace(b"ROUND_ROBIN", b"ROUND_ROBBER")

    def broken_of(resource: Resource) -> Resource:
        if isinstance(resource, Validation):
            return replace(resource, content=lambda: misspelled(resource.content()))
        if isinstance(resource, File) and resource.path.endswith("cds.yaml"):
            return replace(resource, content=misspelled(resource.content))
        return resource

    broken = tuple(map(broken_of, resources))
    with workspace.fleet(workspace.mesh.edges) as fleet:
        reading = read(fleet, HostName("front-envoy"), broken)
        assert reading.plan.changes
        with pytest.raises(Failed) as failed:
            apply(fleet, reading, workspace, lambda event: None)
    [told] = failed.value.problems
    assert told.code == "envoy/refused"
    assert "ROUND_ROBBER" in "\n".join(told.saw)
    assert "nothing was replaced" in told.now
    lab.run("plan")
    assert lab.get("/service/1")[0] == 200


def test_a_unit_that_does_not_become_ready_puts_everything_back(lab: TestMesh) -> None:
    workspace = lab.workspace
    [resources] = desired_of(workspace, workspace.mesh.edges).values()
    new = File("/etc/envoymesh/new.txt", b"new\n")
    changed = tuple(
        replace(r, content=r.content + b"\n[Service]\nExecStartPre=/bin/false\n")
        if isinstance(r, File) and r.path.endswith("envoymesh-front.service")
        else replace(r, stamp="another", takeover="another")
        if isinstance(r, Unit)
        else r
        for r in resources
    )
    with workspace.fleet(workspace.mesh.edges) as fleet:
        reading = read(fleet, HostName("front-envoy"), (*changed, new))
        with pytest.raises(Failed) as failed:
            apply(fleet, reading, workspace, lambda event: None)
    [told] = failed.value.problems
    assert told.code == "unit/not-started"
    assert "was put back" in told.now
    eventually(lambda: lab.get("/service/1")[0] == 200, within_s=20, what="the front as it was")
    assert lab.on("front-envoy", "ls /etc/envoymesh/new.txt 2>/dev/null || true") == ""
    left = lab.run("plan", code=2).stdout
    assert "  - delete   file:/etc/envoymesh/new.txt  (" in left, "it was to be, so it is looked after"
    assert "1 change on 1 host; 2 hosts as desired" in left
    lab.run("provision")


def test_a_host_that_dies_in_the_middle_does_not_stop_the_others(lab: TestMesh) -> None:
    for host in lab.workspace.mesh.hosts:
        lab.on(host, PUSHED)
    run = lab.start("provision")
    assert run.stderr is not None
    for line in run.stderr:
        if "service1-1" in line and "to send" in line:
            break
    kill_machine(lab, "service1-1")
    output, errors = run.communicate(timeout=120)
    assert run.returncode == 4, output + errors
    assert re.search(r"service1-1 +unreachable", output)
    assert re.search(r"service2-1 +changed", output)
    assert re.search(r"front-envoy +changed", output)
    assert lab.get("/service/2")[0] == 200
    lab.run("up")


def kill_machine(lab: TestMesh, host: str) -> None:
    """End a machine as a power cut does."""
    group = (cgroup.hierarchy() or Path("/")) / f"envoymesh-{lab.workspace.mesh.identifier}" / host
    assert cgroup.populated(group)
    cgroup.kill(group)


def test_two_commands_at_once_do_not_meet(lab: TestMesh) -> None:
    before = lab.inventory.read_text()
    with (lab.folder / ".envoymesh/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(os.getpid()))
        lock.flush()
        for words in CHANGES:
            told = problem(lab.run(*words, code=1), "lock/held")
            assert f"process {os.getpid()} " in told
            assert "nothing was read or changed" in told
        for task in ("plan", "check", "status"):
            lab.run(task)
    assert lab.inventory.read_text() == before
    assert lab.run("provision").stdout.splitlines()[-1] == "3 unchanged"


CHANGES = (
    ("up",),
    ("provision",),
    ("scale", "service1=2"),
    ("add-service-host", "service1"),
    ("remove-service-host", "service1-1"),
    ("down",),
)
"""Every task that changes something."""


def test_two_meshes_on_one_box_do_not_meet(lab: TestMesh, tmp_path: Path) -> None:
    with up(tmp_path, provider="nspawn", network=81) as other:
        assert other.hostnames("service1") == {"service1-1"}
        other.run("scale", "service2=2")
        assert lab.hostnames("service2") == {"service2-1"}
    lab.run("check")
