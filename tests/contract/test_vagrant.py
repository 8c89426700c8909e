"""What the Vagrant provider asks of Vagrant and of virsh, told by programs that only write down what they are asked.

What comes of it on virtual machines is in `tests/vagrant`.
"""

import fcntl
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from envoymesh.machines import publish, vagrant
from envoymesh.machines.vagrant import Vagrant
from envoymesh.model.mesh import Host, HostName
from tests.contract.maker import path_without, problems_of
from tests.labs import eventually, free_ports, quiet, small_mesh

VAGRANT = """#!/bin/sh
echo "$*" >> {folder}/asked
readlink /proc/$$/fd/* > {folder}/held
[ "$1" = ssh-config ] && printf '  HostName 192.0.2.1\n  User vagrant\n  IdentityFile {folder}/100%% key\n' |
    sed "1i Host $2"
case " $* " in
*" stuck "*) echo 'the disk is in use' && exit 1 ;;
*" foreign "*) echo 'Name `x` of domain about to create is already taken.' && exit 1 ;;
esac
exit 0
"""

RECORD = """\
Host {name}
  HostName 10.97.0.{number}
  User vagrant
  IdentityFile "/key"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory of programs that come first, with what they were asked; a lock of its own is for the box."""
    (tmp_path / "bin").mkdir()
    program(tmp_path, "vagrant", VAGRANT.format(folder=tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(vagrant, "BOX_LOCK", tmp_path / "bin")
    monkeypatch.setattr(vagrant, "_hypervisor", lambda: "virtualbox")
    return tmp_path


def program(folder: Path, name: str, text: str) -> None:
    (folder / "bin" / name).write_text(text)
    (folder / "bin" / name).chmod(0o755)


def asked(folder: Path) -> list[str]:
    return (folder / "asked").read_text().splitlines() if (folder / "asked").exists() else []


@pytest.fixture
def maker(folder: Path) -> Iterator[Vagrant]:
    """Give a provider whose state is in a directory with a name that ssh_config would take for tokens."""
    made = Vagrant(small_mesh(), folder / "100%home", folder / "inventory.yaml")
    yield made
    publish.unpublish(made._publish)


def remember(maker: Vagrant, *names: str) -> None:
    """Let machines exist, as far as files tell."""
    for number, name in enumerate(names, 10):
        (maker._home / "dot/machines" / name / "libvirt").mkdir(parents=True)
        maker._record(HostName(name)).parent.mkdir(exist_ok=True)
        maker._record(HostName(name)).write_text(RECORD.format(name=name, number=number))


# Machines that go


def test_one_machine_that_does_not_go_keeps_no_other_and_is_not_forgotten(folder: Path, maker: Vagrant) -> None:
    remember(maker, "a", "foreign", "stuck", "z")
    (problem,) = problems_of(lambda: maker.destroy(maker.machines(), quiet))
    assert (problem.code, problem.at, problem.saw) == ("machines/vagrant", "stuck", ("the disk is in use",))
    assert "until the same command succeeds" in problem.now
    assert asked(folder) == [f"destroy --force {name} --no-color" for name in ("a", "foreign", "stuck", "z")]
    assert "the disk is in use" in maker._log.read_text()
    assert maker.machines() == ["stuck"]
    assert maker.logins([host("stuck")]) == {}


def host(name: str) -> Host:
    return replace(small_mesh().edges[0], name=HostName(name))


# Other meshes


@contextmanager
def locked(place: Path) -> Iterator[None]:
    opened = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def test_the_vagrant_of_another_mesh_is_waited_for(folder: Path, maker: Vagrant) -> None:
    remember(maker, "a")
    told: list[str] = []
    destroy = threading.Thread(target=maker.destroy, args=[["a"], lambda _, text: told.append(text)])
    with locked(vagrant.BOX_LOCK):
        destroy.start()
        eventually(lambda: told == ["waiting for the Vagrant of another mesh on this box"])
        assert asked(folder) == []
    destroy.join()
    assert asked(folder) == ["destroy --force a --no-color"]
    held = (folder / "held").read_text().split("\n")
    assert {str(vagrant.BOX_LOCK), str(maker._state / "machines.lock")} <= set(held), "Vagrant holds both to its end"


# Networks of others


VIRSH = """#!/bin/sh
shift 2
echo "$*" >> {folder}/virsh
case "$*" in
'net-list --all --uuid') echo 1 && echo 2 ;;
'net-dumpxml 1') echo '<network><name>empty</name></network>' ;;
'net-dumpxml 2') echo "<network><name>it's mine</name><ip address='10.97.0.77' prefix='30'/></network>" ;;
'net-list --all --name') printf '%s\\n' {mine} "it's mine" ;;
'net-list --name') echo {mine} ;;
'list --all --name') echo other_{mine}_a ;;
esac
"""


@pytest.fixture
def libvirt(folder: Path, maker: Vagrant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vagrant, "_hypervisor", lambda: "libvirt")
    program(folder, "virsh", VIRSH.format(folder=folder, mine=maker._mesh.identifier))


def publish_all(maker: Vagrant) -> None:
    maker.publish(maker._mesh.edges[0], {maker._mesh.publish.http: 8080}, maker._mesh.publish.admin)


@pytest.mark.usefixtures("libvirt")
def test_a_network_of_others_is_told_before_anything_is_done(folder: Path, maker: Vagrant) -> None:
    remember(maker, "service1-1")
    maker._record(HostName("service1-1")).unlink()
    for work in (lambda: publish_all(maker), lambda: maker.create(list(maker._mesh.hosts.values()), quiet)):
        (problem,) = problems_of(work)
        assert (problem.code, problem.now) == ("machines/network-taken", "no machine was made, changed or removed")
        assert problem.saw == ("libvirt's network it's mine has 10.97.0.76/30",)
    assert publish.published(maker._publish) == ()
    assert asked(folder) == []


@pytest.mark.usefixtures("libvirt")
def test_a_libvirt_that_does_not_answer_is_not_one_without_networks(folder: Path, maker: Vagrant) -> None:
    program(folder, "virsh", "#!/bin/sh\necho 'error: no polkit agent' >&2; exit 1\n")
    for work in (lambda: publish_all(maker), lambda: maker.create(list(maker._mesh.hosts.values()), quiet)):
        (problem,) = problems_of(work)
        assert (problem.code, problem.saw) == ("machines/libvirt", ("error: no polkit agent",))
        assert problem.hint
    assert publish.published(maker._publish) == ()
    assert asked(folder) == []


@pytest.mark.usefixtures("libvirt")
def test_libvirt_takes_virsh(folder: Path, maker: Vagrant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", path_without("virsh", folder / "without"))
    assert maker.missing() == "this box has no virsh"
    (problem,) = problems_of(lambda: publish_all(maker))
    assert (problem.code, problem.hint) == ("machines/tool-missing", "apt-get install libvirt-clients")
    assert vagrant.accelerated() == (False, "this box has no virsh")


@pytest.mark.usefixtures("libvirt")
def test_a_network_that_vagrant_left_goes_with_the_last_machine(folder: Path, maker: Vagrant) -> None:
    mine = maker._mesh.identifier
    remember(maker, "a", "b")
    maker.destroy([HostName("a")], quiet)
    assert not (folder / "virsh").exists()
    maker.destroy([HostName("b")], quiet)
    removed = [line for line in (folder / "virsh").read_text().splitlines() if "list" not in line]
    assert removed == [f"net-destroy {mine}", f"net-undefine {mine}"]
    assert not maker._home.exists()


@pytest.mark.usefixtures("libvirt")
def test_a_network_with_machines_of_a_copy_stays(folder: Path, maker: Vagrant) -> None:
    script = VIRSH.replace("other_{mine}_a", "{mine}_a").format(folder=folder, mine=maker._mesh.identifier)
    program(folder, "virsh", script)
    remember(maker, "a")
    maker.destroy([HostName("a")], quiet)
    assert "net-undefine" not in (folder / "virsh").read_text()


# Ports


def test_a_port_that_is_published_no_more_is_free(maker: Vagrant) -> None:
    publish_all(maker)
    before = publish.published(maker._publish)
    http, admin = free_ports(2)
    maker.publish(maker._mesh.edges[0], {http: 8080}, admin)
    assert publish.published(maker._publish) == tuple(sorted((http, admin)))
    publish.require_free(maker._home, before)


# Logins


def test_a_machine_without_a_host_key_is_not_taken_for_whole(
    folder: Path, maker: Vagrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vagrant, "READY_WITHIN_S", 0.1)
    monkeypatch.setattr(vagrant, "_answers_ssh", lambda *_, **__: True)
    program(folder, "ssh-keyscan", "#!/bin/sh\n")
    (problem,) = problems_of(lambda: maker.create(maker._mesh.edges, quiet))
    assert (problem.code, problem.at) == ("machines/no-key", "front-envoy (10.97.0.10)")
    assert maker.logins(maker._mesh.edges) == {}
    assert not maker._known_hosts.exists()


def test_any_path_will_do_for_ssh(folder: Path, maker: Vagrant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vagrant, "_answers_ssh", lambda *_, **__: True)
    program(folder, "ssh-keyscan", "#!/bin/sh\necho 10.97.0.10 ssh-ed25519 AAAA\n")
    maker.create(maker._mesh.edges, quiet)
    login = maker.logins(maker._mesh.edges)[HostName("front-envoy")]
    assert (login.key, login.jump) == (folder / "100% key", "none")
    record = ["ssh", "-F", str(maker._record(HostName("front-envoy"))), "-G", "front-envoy"]
    said = subprocess.run(record, capture_output=True, text=True, check=True).stdout
    assert f"userknownhostsfile {maker._known_hosts}\n" in said
