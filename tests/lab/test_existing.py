"""Hosts that are there already: reached as OpenSSH would reach them, by root or by a user with sudo."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from envoymesh.machines import netns
from envoymesh.machines.nspawn import Nspawn
from envoymesh.model.mesh import Mesh
from tests.labs import lab, run, small_mesh
from tests.layers import ROOT
from tests.meshes import TestMesh, document
from tests.transport.terminal import terminal

INVENTORY = """\
name: shop
provider: existing
ssh: {{user: ann, key: {key}, host_keys: accept-new}}
services:
  service1: {{path: /service/1}}
hosts:
  front: {{role: edge, address: 10.97.0.10}}
  shop-1: {{service: service1, address: 10.97.0.11}}
"""

ANN = """\
useradd --create-home --shell /bin/dash ann
cp -r /root/.ssh /home/ann/ && chown -R ann /home/ann/.ssh
echo 'ann ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ann
"""


FOUND = "find / -xdev -path '*envoymesh*' -not -path '/run/*'; getent passwd | grep envoymesh; ss -Hltn; true"
"""Tells what a mesh has put on a host, and who listens there."""


class Hosts(TestMesh):
    """Three machines that somebody else has made, seen from inside their network."""

    def __init__(self, folder: Path, machines: Mesh, maker: Nspawn) -> None:
        self.folder, self.machines, self.maker = folder, machines, maker
        self.inventory = folder / "inventory.yaml"
        self.inventory.write_text(INVENTORY.format(key=folder.parent / "machines/ssh/id_ed25519"))
        self.enter = ["nsenter", f"--net={netns.path(machines.identifier)}"]

    def argv(self, *words: str) -> list[str]:
        return [*self.enter, *super().argv(*words)]

    def as_root(self, address: str, script: str) -> str:
        """Run a script on a machine as whoever made it can."""
        return run(self.maker, next(h for h in self.machines.hosts.values() if str(h.address) == address), script)

    def curl(self, path: str) -> str:
        argv = [*self.enter, "curl", "-s", f"10.97.0.10:8080{path}"]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout


def answering(hosts: Hosts) -> set[str]:
    """Return the different answers to twenty requests."""
    return {hosts.curl("/service/1") for _ in range(20)}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("existing")
    machines = small_mesh(2)
    with lab(machines, folder / "machines") as maker:
        (folder / "mesh").mkdir()
        hosts = Hosts(folder / "mesh", machines, maker)
        for host in machines.hosts.values():
            hosts.as_root(str(host.address), ANN)
        yield hosts


def test_a_user_with_sudo_and_another_shell_is_enough(hosts: Hosts) -> None:
    done = hosts.run("up")
    assert "curl -s 10.97.0.10:8080/service/1" in done.stdout
    assert "service 1" in hosts.curl("/service/1")
    assert hosts.on("shop-1", "id -un").strip() == "root"
    hosts.run("plan")


def test_an_existing_machine_is_added_and_removed_with_all_that_was_put_on_it(hosts: Hosts) -> None:
    before, found = hosts.inventory.read_text(), hosts.as_root("10.97.0.12", FOUND)
    add = ("add-service-host", "service1", "--host", "shop-2", "--address", "10.97.0.12")
    added = document(hosts.run(*add, "--json").stdout)
    changed = {host["host"]: host["outcome"] for host in added["hosts"]}
    assert changed == {"shop-2": "changed", "front": "changed"}
    assert "  shop-2: {service: service1, address: 10.97.0.12}\n" in hosts.inventory.read_text()
    assert len(answering(hosts)) == 2
    removed = document(hosts.run("remove-service-host", "shop-2", "--json").stdout)
    assert (removed["exit_code"], removed["counts"]["failed"]) == (0, 0)
    assert hosts.inventory.read_text() == before
    assert len(answering(hosts)) == 1
    assert hosts.as_root("10.97.0.12", FOUND) == found


def test_a_host_that_does_not_answer_any_more_can_be_removed_and_cleaned_later(hosts: Hosts) -> None:
    before, found = hosts.inventory.read_text(), hosts.as_root("10.97.0.12", FOUND)
    add = ("add-service-host", "service1", "--host", "shop-2", "--address", "10.97.0.12")
    hosts.run(*add)
    link = ["ip", "-n", hosts.machines.identifier, "link", "set", "v0a61000c"]
    subprocess.run([*link, "down"], check=True)
    try:
        done = hosts.run("remove-service-host", "shop-2", code=4)
    finally:
        subprocess.run([*link, "up"], check=True)
    assert "problem ssh/unreachable" in done.stderr
    assert "what was put on it is still there" in done.stderr
    assert hosts.own(f"./mesh {' '.join(add)}") in done.stderr
    assert hosts.inventory.read_text() == before
    hosts.run("plan")
    assert len(answering(hosts)) == 1
    hosts.run(*add)
    hosts.run("remove-service-host", "shop-2")
    assert hosts.as_root("10.97.0.12", FOUND) == found


@pytest.mark.parametrize(
    ("name", "address", "code"),
    [
        ("#x", "10.97.0.12", "inventory/bad-name"),
        ('"web"', "10.97.0.12", "inventory/bad-name"),
        ("$(reboot)", "10.97.0.12", "inventory/bad-name"),
        ("shop-1", "10.97.0.12", "inventory/host-taken"),
        ("shop-2", "10.97.0.11", "inventory/host-taken"),
        ("shop-2", "10.97.0.1x", "task/bad-argument"),
    ],
)
def test_a_host_that_cannot_be_added_is_one_error(hosts: Hosts, name: str, address: str, code: str) -> None:
    before = hosts.inventory.read_text()
    done = hosts.run("add-service-host", "service1", f"--host={name}", f"--address={address}", code=1)
    assert done.stderr.startswith(f"problem {code}: ")
    assert "nothing was changed" in done.stderr
    assert "hint" in done.stderr
    assert hosts.inventory.read_text() == before


def test_machines_that_were_not_made_are_not_destroyed(hosts: Hosts) -> None:
    assert "problem machines/not-ours" in hosts.run("down", code=1).stderr
    assert "--host NAME --address" in hosts.run("scale", "service1=2", code=1).stderr
    assert "service 1" in hosts.curl("/service/1")


def test_a_bastion_that_drops_in_the_middle_is_told_and_the_next_run_completes(hosts: Hosts) -> None:
    before = hosts.inventory.read_text()
    hosts.inventory.write_text(before.replace("10.97.0.11}", "10.97.0.11, ssh: {jump: ann@10.97.0.10}}"))
    hosts.as_root("10.97.0.11", "rm -rf /var/lib/envoymesh/artifacts")  # all that is bulky is sent again
    with hosts.start("provision") as process:
        assert process.stderr is not None
        assert any("shop-1" in line and "to send" in line for line in process.stderr)
        hosts.as_root("10.97.0.10", "pkill -f '^sshd: ann'")
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 4, output + errors
    assert "problem ssh/lost: the connection to `shop-1` was lost" in errors
    assert "shop-1: its apply was cut off; the next provision completes it" in errors
    hosts.run("provision")
    hosts.run("plan")
    hosts.inventory.write_text(before)


@pytest.fixture
def asking(hosts: Hosts) -> Iterator[Hosts]:
    """The hosts, of which one lets nobody become root without a password."""
    hosts.as_root(
        "10.97.0.11", "echo 'ann ALL=(ALL) ALL' > /etc/sudoers.d/ann; echo 'ann:not for your eyes' | chpasswd"
    )
    yield hosts
    hosts.as_root("10.97.0.11", "echo 'ann ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ann")
    hosts.run("provision")


def test_sudo_that_asks_for_a_password_is_told_where_there_is_no_terminal(
    asking: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "enter", ["setsid", "--wait", *asking.enter])
    done = asking.run("provision", code=1)
    assert "problem ssh/sudo-password" in done.stderr
    assert "NOPASSWD" in done.stderr


def test_password_for_sudo_is_typed_once_and_seen_nowhere(asking: Hosts) -> None:
    asking.as_root("10.97.0.11", "chmod 600 /etc/systemd/system/envoymesh-*.service")
    look = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n'; journalctl --no-pager"
    for task in (["provision"], ["plan"], ["exec", "shop-1", look]):
        code, said, shown = at_a_terminal(asking, *task)
        assert code == 0, said
        assert shown.count("sudo password of ann on ") == 1
        assert "not for your eyes" not in said + shown
    assert "sudo" in said
    assert not [file for file in asking.folder.rglob("*") if file.is_file() and b"not for your" in file.read_bytes()]


def at_a_terminal(hosts: Hosts, *words: str) -> tuple[int, str, str]:
    """Run a task for somebody who types the password; return exit code, output and what the terminal showed."""
    with terminal({"sudo password": b"not for your eyes\n"}) as at:
        done = subprocess.run(
            hosts.argv(*words),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            start_new_session=True,
            preexec_fn=at.take,
        )
        return done.returncode, done.stdout + done.stderr, at.shown
