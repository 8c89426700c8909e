"""One writer: two operators, each with a checkout of their own, on the same hosts."""

import json
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from envoymesh.events import OutcomeKind
from envoymesh.model.mesh import HostName
from envoymesh.plan.writer import Lock
from envoymesh.problems import Failed, Problem
from envoymesh.run.converge import apply
from envoymesh.run.lock import read_to_change, status
from envoymesh.run.provision import desired_of
from envoymesh.run.workspace import Workspace
from tests.labs import eventually
from tests.meshes import TestMesh, held


def locks(lab: TestMesh) -> dict[str, dict[str, Any] | None]:
    """Return who has the lock of each host."""
    told = json.loads(lab.run("lock-status", "--json").stdout)["hosts"]
    return {host["host"]: host["lock"] for host in told}


def drift(lab: TestMesh, *hosts: str) -> None:
    for host in hosts:
        lab.on(host, "chmod 600 /etc/systemd/system/envoymesh-app-*.service")


def test_a_lock_held_by_another_is_told_and_nothing_changes_and_who_reads_passes(lab: TestMesh) -> None:
    drift(lab, "service1-1", "service2-1")
    with held(lab, "service2-1") as other:
        done = lab.run("provision", code=1)
        assert "problem lock/held: another operator is changing these hosts" in done.stderr
        assert "\n  at   service2-1\n" in done.stderr
        assert "the night's work" in done.stderr
        assert re.search(r"since \d{4}-\d\d-\d\d .* UTC, until .* at the latest", done.stderr)
        assert "--lock-wait 300" in done.stderr
        assert "Traceback" not in done.stderr
        assert "problem lock/held" in lab.run("rollback", code=1).stderr
        lock = locks(lab)["service2-1"]
        assert lock is not None
        assert lock["why"] == "the night's work"
        assert locks(lab)["service1-1"] is None, "what was taken is given back"
        assert "service1-1" in lab.run("plan", code=2).stdout
        for task in ("status", "history", "lock-status"):
            lab.run(task)
        assert all(len(line) <= 100 for line in lab.run("lock-status").stdout.splitlines())
        assert other.poll() is None
    lab.run("provision")


def test_who_waits_gets_the_lock_once_it_is_free(lab: TestMesh) -> None:
    drift(lab, "service2-1")
    with held(lab, "service2-1") as other:
        waiting = lab.start("provision", "--lock-wait", "60s")
        assert waiting.stderr is not None
        assert any("waits for the lock of service2-1" in line for line in iter(waiting.stderr.readline, ""))
        assert other.stdin is not None
        other.stdin.close()
        waiting.communicate(timeout=60)
        assert waiting.returncode == 0
    lab.run("plan")


def test_a_lock_whose_holder_was_killed_is_free(lab: TestMesh) -> None:
    with held(lab, *lab.workspace.mesh.hosts) as other:
        assert None not in locks(lab).values()
        os.kill(other.pid, signal.SIGKILL)
        assert lab.run("provision").returncode == 0
    eventually(lambda: set(locks(lab).values()) == {None}, what="free locks")
    eventually(lambda: lab.on("service1-1", "pgrep -f 'lock [0-9]' || true") == "", what="nothing left running")


def test_a_lock_that_was_released_is_lost_to_who_had_it(lab: TestMesh) -> None:
    drift(lab, "service2-1")
    workspace, host = lab.workspace, HostName("service2-1")
    hosts = [workspace.mesh.hosts[host]]
    with workspace.fleet(hosts) as fleet:
        [reading] = read_to_change(workspace, fleet, desired_of(workspace, hosts), lambda event: None).values()
        assert not isinstance(reading, Failed)
        done = lab.run("lock-release", "--limit", host, "--message", "he went home")
        assert workspace.run.who in done.stdout
        assert locks(lab)[host] is None
        with pytest.raises(Failed) as failed:
            apply(fleet, reading, workspace, lambda event: None)  # type: ignore[arg-type]
    [problem] = failed.value.problems
    assert problem.code == "lock/lost"
    assert "nothing was replaced" in problem.now
    assert "released" in "\n".join(problem.saw)
    assert lab.on(host, "stat -c %a /etc/systemd/system/envoymesh-app-*.service") == "600\n"
    lab.run("provision")


def test_a_run_that_has_a_lock_has_it_when_it_reads_again(lab: TestMesh) -> None:
    workspace = lab.workspace
    hosts = list(workspace.mesh.hosts.values())
    desired = desired_of(workspace, hosts)
    with workspace.fleet(hosts) as fleet:
        for _ in range(2):
            read_to_change(workspace, fleet, desired, lambda event: None)
        other = replace(workspace, run=replace(workspace.run, name="other"))
        with pytest.raises(Failed) as failed, workspace.fleet(hosts) as another:
            read_to_change(other, another, desired, lambda event: None)
        assert [p.code for p in failed.value.problems] == ["lock/held"]


def test_a_run_that_takes_its_lock_again_has_it_for_longer_and_not_for_ever(
    lab: TestMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("envoymesh.wire.lock.EXPIRES_AFTER_S", 8)
    workspace, host = lab.workspace, HostName("service2-1")
    hosts = [workspace.mesh.hosts[host]]

    def lock() -> Lock | Problem | None:
        return status(workspace, hosts)[host]

    with workspace.fleet(hosts) as fleet:
        read_to_change(workspace, fleet, {host: ()}, lambda event: None)
        first = lock()
        time.sleep(4)
        read_to_change(workspace, fleet, {host: ()}, lambda event: None)
        second = lock()
        assert isinstance(first, Lock)
        assert isinstance(second, Lock)
        assert second == replace(first, until=second.until)
        assert second.until - first.until >= timedelta(seconds=3)
        time.sleep((first.until - datetime.now(UTC)).total_seconds() + 2)
        assert lock() == second
        eventually(lambda: lock() is None, what="the lock has expired")


def test_a_host_that_cannot_keep_a_lock_is_told(lab: TestMesh) -> None:
    lab.on("service2-1", "mount -t tmpfs -o size=4k,nr_inodes=1 tmpfs /run/envoymesh")
    try:
        done = lab.run("provision", code=1)
        assert "problem lock/failed: the lock of `service2-1` could not be taken" in done.stderr
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        lab.on("service2-1", "umount /run/envoymesh")
    lab.run("provision")


def test_two_operators_at_once_both_end_and_the_hosts_are_whole(lab: TestMesh) -> None:
    drift(lab, "service1-1", "service2-1")
    workspaces = [replace(lab.workspace, lock_wait_s=60) for _ in range(2)]
    assert workspaces[0].run.name != workspaces[1].run.name

    def work(workspace: Workspace) -> set[OutcomeKind]:
        hosts = list(workspace.mesh.hosts.values())
        with workspace.fleet(hosts) as fleet:
            readings = read_to_change(workspace, fleet, desired_of(workspace, hosts), lambda event: None)
            return {apply(fleet, r, workspace, lambda event: None).kind for r in readings.values()}  # type: ignore[arg-type]

    with ThreadPoolExecutor() as pool:
        assert {OutcomeKind.UNCHANGED} in list(pool.map(work, workspaces)), "one of them found all done"
    lab.run("plan")
