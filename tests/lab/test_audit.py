"""The audit log: a line on every host for every change, however it ended."""

import json
from typing import Any

from tests.meshes import TestMesh, held

LOG = "/var/lib/envoymesh/audit"


def entries(lab: TestMesh, *words: str) -> list[dict[str, Any]]:
    """Return what `audit --json` tells, the last line first."""
    told: list[dict[str, Any]] = json.loads(lab.run("audit", "--json", *words).stdout)["entries"]
    return told


def test_every_change_is_told_on_its_host_and_nothing_else(lab: TestMesh) -> None:
    before = entries(lab, "--last", "500")
    lab.on("service1-1", "chmod 600 /etc/systemd/system/envoymesh-app-*.service")
    lab.run("provision", "--message", 'as "before" $(reboot)\né')
    lab.run("provision")
    now = entries(lab, "--last", "500")
    assert len(now) == len(before) + 1
    last = now[0]
    assert (last["host"], last["what"], last["ending"]) == ("service1-1", "apply", "done")
    assert last["why"] == 'as "before" $(reboot)\né'
    assert last["changes"] == [f"update file:/etc/systemd/system/{lab.application('service1-1')}"]
    assert lab.on("service1-1", f"stat -c '%a %U' {LOG}") == "600 root\n"
    text = lab.run("audit").stdout
    assert all(len(line) <= 100 for line in text.splitlines())
    assert len(entries(lab, "--last", "1")) == 1


def test_what_failed_and_what_was_put_back_is_told(lab: TestMesh) -> None:
    lab.on("service2-1", "rm /etc/envoymesh/sidecar/lds.yaml; mkdir -p /etc/envoymesh/sidecar/lds.yaml/x")
    try:
        lab.run("provision", code=1)
    finally:
        lab.on("service2-1", "rm -r /etc/envoymesh/sidecar/lds.yaml")
    assert entries(lab, "--limit", "service2")[0]["ending"] == "refused"
    assert "refused, nothing was replaced" in lab.run("audit", "--limit", "service2", "--last", "1").stdout
    lab.run("provision")


def test_a_lock_that_was_taken_away_is_told(lab: TestMesh) -> None:
    with held(lab, "service2-1"):
        lab.run("lock-release", "--limit", "service2", "--message", "he went home")
    last = entries(lab, "--limit", "service2")[0]
    assert (last["what"], last["why"]) == ("lock release", "he went home")


def test_damaged_lines_are_left_out_and_the_next_one_is_whole(lab: TestMesh) -> None:
    before = len(entries(lab, "--limit", "service2"))
    lab.on("service2-1", f'printf \'{{"at": "20\' >> {LOG}; chmod 600 /etc/systemd/system/envoymesh-app-*.service')
    lab.run("provision")
    done = lab.run("audit", "--limit", "service2")
    assert "damaged lines, left out: service2-1: 1" in done.stdout
    assert len(entries(lab, "--limit", "service2")) == min(before + 1, 49)
    lab.on("service2-1", f"grep '}}$' {LOG} > {LOG}.new; mv {LOG}.new {LOG}")


def test_a_log_stays_bounded_and_one_that_cannot_be_written_stops_nothing(lab: TestMesh) -> None:
    lab.on("service2-1", f"cp {LOG} /root/audit; for i in $(seq 12000); do tail -n 1 /root/audit; done >> {LOG}")
    lab.on("service2-1", "chmod 600 /etc/systemd/system/envoymesh-app-*.service")
    lab.run("provision", "--message", "the last of many")
    assert int(lab.on("service2-1", f"stat -c %s {LOG}")) < 600_000
    assert entries(lab, "--limit", "service2")[0]["why"] == "the last of many"
    lab.on("service2-1", f"rm {LOG}; mkdir {LOG}; chmod 600 /etc/systemd/system/envoymesh-app-*.service")
    try:
        assert "its audit log could not be written" in lab.run("provision").stderr
        lab.run("plan")
    finally:
        lab.on("service2-1", f"rmdir {LOG}; mv /root/audit {LOG}")
