"""The nspawn provider keeps the contract, and what is its own."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from envoymesh.machines import cgroup, netns, nspawn, publish
from envoymesh.machines.nspawn import Nspawn
from envoymesh.model.mesh import Mesh
from tests.contract.maker import Bench, MakerContract, Site, operator, problems_of, site
from tests.labs import eventually, quiet, run, small_mesh


def leftovers(mesh: Mesh, state: Path) -> list[str]:
    """Return what is left on this box of a mesh: files, namespaces, mounts, control groups, processes, listeners."""
    marks = (mesh.identifier, str(state))
    return [
        *(f"file {path}" for path in (*state.glob("machines/*"), *state.glob("publish/*"))),
        *(f"namespace {path}" for path in Path("/run/netns").glob(f"*{mesh.identifier}*")),
        *(f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if mesh.identifier in line),
        *(f"control group {path}" for path in Path("/sys/fs/cgroup").glob(f"**/*{mesh.identifier}*/")),
        *(f"process {pid}" for pid in _processes() if any(mark in _about(pid) for mark in marks)),
        *(f"listener {who}" for port in ports_of(mesh) for who in publish.holders(port)),
        *(f"nspawn's {path}" for path in Path("/run/systemd/nspawn").glob("*/*") if path.name in _machine_names(mesh)),
    ]


def ports_of(mesh: Mesh) -> tuple[int, ...]:
    return (mesh.publish.http, mesh.publish.https, mesh.publish.admin)


def _machine_names(mesh: Mesh) -> set[str]:
    return {nspawn._machine_name(f"{mesh.identifier}-{name}") for name in mesh.hosts}


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and int(path.name) != os.getpid()]


def _about(pid: int) -> str:
    """Return a living process's command line and control groups."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text()
        return command + Path(f"/proc/{pid}/cgroup").read_text() if command else ""
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _group(mesh: Mesh) -> Path:
    root = cgroup.hierarchy()
    assert root
    return root / f"envoymesh-{mesh.identifier}"


def _is_off(mesh: Mesh, _: Path) -> bool:
    return not cgroup.populated(_group(mesh) / "front-envoy")


BENCH = Bench(
    make=Nspawn,
    is_off=_is_off,
    leftovers=leftovers,
    tool="systemd-nspawn",
    moments={
        "the mesh has a group": lambda mesh, _: _group(mesh).exists(),
        "the hub is there": lambda mesh, _: netns.path(mesh.identifier).exists(),
        "the edge has a namespace": lambda mesh, _: netns.path(f"{mesh.identifier}-front-envoy").exists(),
        "the edge has a directory": lambda _, state: (state / "machines/front-envoy").exists(),
        "the edge has a key": lambda _, state: any(state.glob("machines/front-envoy/upper/etc/ssh/*")),
        "the edge's disk is whole": lambda _, state: (state / "machines/front-envoy/known_host").exists(),
        "keys are known": lambda _, state: (state / "known_hosts").exists(),
        "the edge runs": lambda mesh, _: cgroup.populated(_group(mesh) / "front-envoy"),
        "both run": lambda mesh, _: all(cgroup.populated(_group(mesh) / name) for name in mesh.hosts),
    },
)


class TestNspawn(MakerContract):
    """The contract, kept."""

    @pytest.fixture
    def bench(self) -> Bench:
        return BENCH


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(BENCH, tmp_path / "state") as made:
        yield made


@contextmanager
def foreign_namespace(name: str) -> Iterator[Path]:
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield netns.path(name)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def _lose_namespace(name: str) -> None:
    subprocess.run(["ip", "netns", "delete", name], check=True)


def reboot_box(here: Site) -> None:
    """Leave of a mesh what a reboot of the box leaves: its files."""
    records = {path: path.read_text() for path in here.state.glob("publish/*")}
    publish.unpublish(here.state / "publish")
    cgroup.kill(_group(here.mesh))
    assert cgroup.emptied(_group(here.mesh), within_s=60)
    cgroup.remove(_group(here.mesh))
    for name in (here.mesh.identifier, *(f"{here.mesh.identifier}-{host}" for host in here.mesh.hosts)):
        _lose_namespace(name)
    for path, text in records.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


# Names.


@pytest.mark.parametrize("suffix", ["", "-front-envoy"])
def test_a_foreign_namespace_is_left_alone(here: Site, suffix: str) -> None:
    with foreign_namespace(here.mesh.identifier + suffix) as foreign:
        inode = foreign.stat().st_ino
        for work in (here.create, here.publish):
            (problem,) = problems_of(work)
            assert problem.code == "machines/name-taken"
            assert f"`{foreign.name}`" in problem.what
        assert here.maker.machines() == []
        here.destroy()
        assert foreign.stat().st_ino == inode


def test_the_machines_of_another_checkout_are_left_alone(here: Site, tmp_path: Path) -> None:
    here.create()
    before = here.boot_id(here.edge)
    copy = Nspawn(here.mesh, tmp_path / "copy")
    (problem,) = problems_of(lambda: copy.create(here.hosts, quiet))
    assert problem.code == "machines/name-taken"
    assert str(here.state) in problem.what
    copy.destroy(here.maker.machines(), quiet)
    assert here.boot_id(here.edge) == before


# What others do to the box.


@pytest.mark.parametrize("then", [Site.create, Site.destroy])
def test_a_lost_state_directory_is_no_dead_end(here: Site, then: object) -> None:
    here.create()
    shutil.rmtree(here.state)
    assert sorted(here.maker.machines()) == sorted(here.mesh.hosts)
    if then is Site.create:
        here.create()
        assert run(here.maker, here.edge, "hostname") == here.edge.name


def test_a_reboot_of_the_box_keeps_the_disks(here: Site) -> None:
    here.publish()
    here.create()
    run(here.maker, here.edge, "echo kept > /root/kept")
    reboot_box(here)
    assert sorted(here.maker.machines()) == sorted(here.mesh.hosts)
    here.publish()
    here.create()
    assert run(here.maker, here.edge, "cat /root/kept") == "kept"
    assert publish.published(here.state / "publish") == tuple(sorted(ports_of(here.mesh)))


def test_after_a_reboot_of_the_box_all_can_be_destroyed(here: Site) -> None:
    here.publish()
    here.create()
    reboot_box(here)
    here.destroy()
    here.nothing_is_left()


def test_a_lost_hub_is_made_again_under_running_machines(here: Site) -> None:
    here.create()
    here.publish()
    before = here.boot_id(here.edge)
    _lose_namespace(here.mesh.identifier)
    here.create()
    here.publish()
    assert here.boot_id(here.edge) == before
    edge, other = here.hosts
    assert run(here.maker, edge, f"head -c4 </dev/tcp/{other.address}/22") == "SSH-"


def test_a_lost_namespace_is_made_again_with_its_machine(here: Site) -> None:
    here.create()
    run(here.maker, here.edge, "echo kept > /root/kept")
    here.publish()
    _lose_namespace(f"{here.mesh.identifier}-{here.edge.name}")
    here.create()
    here.publish()
    assert run(here.maker, here.edge, "cat /root/kept") == "kept"


def test_a_changed_address_moves_the_machine(here: Site, tmp_path: Path) -> None:
    here.create()
    moved = replace(here.hosts[1], address=here.mesh.machines.network[77])
    mesh = replace(here.mesh, hosts={**here.mesh.hosts, moved.name: moved})
    maker = Nspawn(mesh, here.state)
    maker.create(list(mesh.hosts.values()), quiet)
    assert run(maker, moved, "hostname") == moved.name
    assert f"src {moved.address} " in run(maker, moved, f"ip route get {here.edge.address}")


def test_the_pid_of_another_process_is_never_killed(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as innocent:
        (tmp_path / "publish").mkdir()
        (tmp_path / "publish" / "1").write_text(f"{innocent.pid} 1 key")
        publish.unpublish(tmp_path / "publish")
        assert innocent.poll() is None
        innocent.kill()


# The box.


def test_the_box_keeps_its_own_network(here: Site) -> None:
    def network() -> set[str]:
        asked = [
            ["ip", "-br", "link"],
            ["ip", "-br", "address"],
            ["ip", "route", "show", "table", "all"],
            ["nft", "--stateless", "list", "ruleset"],
        ]
        shown = [subprocess.run(each, check=True, capture_output=True, text=True).stdout for each in asked]
        return {line for text in shown for line in text.splitlines()}

    # Others change what is theirs at the same time: this looks for what could only be the mesh's.
    ours = ["hub", here.mesh.identifier, "10.97.0.", *(f"v{int(host.address):08x}" for host in here.hosts)]
    assert str(here.mesh.machines.network).startswith("10.97.0.")
    before = network()
    here.create()
    here.publish()
    assert [line for line in network() - before if any(name in line for name in ours)] == []


def test_it_takes_root(here: Site) -> None:
    os.seteuid(65534)
    try:
        assert here.maker.missing() == "it needs root"
        for work in (here.create, here.publish):
            (problem,) = problems_of(work)
            assert problem.code == "machines/not-root"
            assert "sudo" in problem.hint
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", ["with space, comma: colon and 'quote'", "deep/er"])
def test_any_path_will_do_for_the_state(tmp_path: Path, name: str) -> None:
    with site(BENCH, tmp_path / name) as here:
        before = os.umask(0o077)
        try:
            here.create()
        finally:
            os.umask(before)
        modes = run(here.maker, here.edge, "stat -c %a / /etc /etc/ssh /root /root/.ssh /etc/ssh/ssh_host_ed25519_key")
        assert modes.split() == ["755", "755", "755", "700", "700", "600"]


def test_a_file_system_that_holds_no_overlay_will_do(tmp_path: Path) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    over = "lowerdir=lower,upperdir=upper,workdir=work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", over, "merged"], cwd=tmp_path, check=True)
    try:
        with site(BENCH, tmp_path / "merged" / "state") as here:
            here.maker.create([here.edge], quiet)
            assert (here.state / "machines" / here.edge.name / "root").is_dir()
            run(here.maker, here.edge, "echo kept > /root/kept")
            here.reboot(here.edge)
            assert run(here.maker, here.edge, "cat /root/kept") == "kept"
    finally:
        subprocess.run(["umount", tmp_path / "merged"], check=True)


def test_published_ports_survive_the_control_group_that_they_were_started_from(here: Site) -> None:
    # What systemd does to a service, or logind to a session, that ends.
    service = _group(here.mesh).with_name(f"service-{here.mesh.identifier}")
    service.mkdir()
    try:
        with operator(here.maker, "create", here.hosts, group=service) as process:
            assert process.wait() == 0
        ports = {here.mesh.publish.http: 22}
        with operator(here.maker, "publish", here.edge, ports, here.mesh.publish.admin, group=service) as process:
            assert process.wait() == 0
        cgroup.kill(service)
        assert cgroup.emptied(service, within_s=5)
    finally:
        cgroup.remove(service)
    assert run(here.maker, here.edge, "hostname") == here.edge.name
    with socket.create_connection(("127.0.0.1", here.mesh.publish.http), timeout=10) as connection:
        assert connection.recv(4) == b"SSH-"


# The guest.


def test_a_guest_is_like_a_debian_host(here: Site) -> None:
    here.create()
    assert f"127.0.1.1 {here.edge.name}" in run(here.maker, here.edge, "cat /etc/hosts")
    assert run(here.maker, here.edge, "timeout 2 bash -c '</dev/tcp/192.0.2.1/80' 2>/dev/null || echo $?") == "1"
    run(here.maker, here.edge, "python3 -c 'import ssl, asyncio, sqlite3'; curl --version; sudo -n true")


def test_executions_can_be_counted(here: Site) -> None:
    here.create()

    def count() -> int:
        return int(run(here.maker, here.edge, "journalctl --sync; journalctl -u ssh | grep -c 'Starting session'"))

    before = count()
    run(here.maker, here.edge, "true")
    assert count() == before + 2


def test_guests_keep_their_units_to_themselves(here: Site) -> None:
    here.create()
    edge, other = here.hosts
    for host in here.hosts:
        run(here.maker, host, "systemd-run --quiet --unit=same sleep 1000")
    run(here.maker, edge, "systemctl stop same")
    assert run(here.maker, edge, "systemctl is-active same || true") == "inactive"
    assert run(here.maker, other, "systemctl is-active same") == "active"


# Machines that do not come up.


def test_a_machine_that_does_not_answer_shows_its_console(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    here.create()
    run(here.maker, here.edge, "systemctl disable --quiet ssh; systemctl poweroff --no-block")
    eventually(lambda: _is_off(here.mesh, here.state))
    monkeypatch.setattr(nspawn, "READY_WITHIN_S", 12)
    (problem,) = problems_of(here.create)
    assert problem.code == "machines/no-answer"
    assert problem.at == f"{here.edge.name} ({here.edge.address})"
    assert "within 12 s" in problem.what
    assert "login:" in "".join(problem.saw) or "Reached target" in "".join(problem.saw)
    assert "\x1b" not in "".join(problem.saw)
    assert "console.log" in problem.hint


def test_a_machine_that_stops_at_boot_is_told_at_once(here: Site) -> None:
    here.create()
    run(here.maker, here.edge, "systemctl poweroff --no-block")
    eventually(lambda: _is_off(here.mesh, here.state))
    init = here.state / "machines" / here.edge.name / "upper/usr/lib/systemd/systemd"
    init.parent.mkdir(parents=True, exist_ok=True)
    init.write_text("#!/bin/sh\necho cannot boot\n")
    init.chmod(0o755)
    (problem,) = problems_of(here.create)
    assert problem.what == "the machine stopped"
    assert "cannot boot" in problem.saw
    assert run(here.maker, here.hosts[1], "hostname") == here.hosts[1].name


def test_an_image_that_is_gone_is_told(here: Site) -> None:
    here.create()
    run(here.maker, here.edge, "systemctl poweroff --no-block")
    eventually(lambda: _is_off(here.mesh, here.state))
    base = here.state / "machines" / here.edge.name / "base"
    base.unlink()
    base.symlink_to("/nowhere")
    (problem,) = problems_of(here.create)
    assert problem.code == "machines/image-gone"
    assert problem.saw == ("/nowhere",)


def test_a_small_mesh_has_names_of_its_own() -> None:
    assert small_mesh().identifier != small_mesh().identifier


def test_a_control_group_that_goes_while_it_is_killed_is_gone(tmp_path: Path) -> None:
    group = (cgroup.hierarchy() or tmp_path) / f"envoymesh-{small_mesh().identifier}"
    group.mkdir()
    opened = os.open(group / "cgroup.kill", os.O_WRONLY)
    try:
        group.rmdir()
        (tmp_path / "cgroup.kill").symlink_to(f"/proc/self/fd/{opened}")
        cgroup.kill(group)
        cgroup.kill(tmp_path)
    finally:
        os.close(opened)
