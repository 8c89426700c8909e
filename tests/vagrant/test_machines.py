"""The Vagrant provider keeps what every provider promises, on virtual machines. They are slow: tests share them."""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from envoymesh.machines import publish
from envoymesh.machines.vagrant import Vagrant
from envoymesh.model.mesh import Mesh
from tests.contract.maker import SERVER, Bench, Site, get, operator, problems_of, site
from tests.labs import eventually, quiet, run, small_mesh

SLOW = 20
"""How many times slower than containers emulated machines are."""

NETWORK = "10.98.0.0/24"


def domains(mesh: Mesh) -> dict[str, str]:
    """Return the state of each of libvirt's machines of a mesh."""
    rows = re.findall(rf"^ \S+ +({mesh.identifier}_\S+) +(.+?)$", virsh("list", "--all"), re.MULTILINE)
    return dict(rows)


def virsh(*words: str) -> str:
    asked = ["virsh", "--connect", "qemu:///system", *words]
    return subprocess.run(asked, check=True, capture_output=True, text=True, timeout=60).stdout


def leftovers(mesh: Mesh, state: Path) -> list[str]:
    """Return what is left on this box of a mesh: files, machines, networks, disks, processes, listeners."""
    lists = {"machine": ("list", "--all"), "network": ("net-list", "--all"), "disk": ("vol-list", "default")}
    marks = (mesh.identifier, str(state))
    commands = [(path.parent.name, path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    return [
        *(f"file {path}" for path in (*state.glob("vagrant"), *state.glob("publish/*"))),
        *(f"{kind} {row}" for kind, ask in lists.items() for row in virsh(*ask).splitlines() if marks[0] in row),
        *(
            f"process {pid}"
            for pid, path in commands
            if pid != str(os.getpid()) and any(m in _text(path) for m in marks)
        ),
        *(f"listener {who}" for port in _ports(mesh) for who in publish.holders(port)),
    ]


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def _ports(mesh: Mesh) -> tuple[int, ...]:
    return (mesh.publish.http, mesh.publish.https, mesh.publish.admin)


def _make(mesh: Mesh, state: Path) -> Vagrant:
    return Vagrant(mesh, state, state.parent / "inventory.yaml")


BENCH = Bench(
    make=_make,
    is_off=lambda mesh, _: domains(mesh)[f"{mesh.identifier}_front-envoy"] == "shut off",
    leftovers=leftovers,
    tool="vagrant",
    slow=SLOW,
)


def mesh_with(box: str, network: str = NETWORK) -> Mesh:
    mesh = small_mesh(network=network)
    return replace(mesh, machines=replace(mesh.machines, box=box))


@pytest.fixture(scope="module")
def shared(box: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Give a mesh whose ports are published and whose machines run; nothing may be left of it."""
    with site(BENCH, tmp_path_factory.mktemp("shared") / "state", mesh_with(box)) as made:
        assert made.maker.missing() == ""
        assert made.maker.machines() == []
        assert made.maker.logins(made.hosts) == {}
        made.publish()
        made.create()
        yield made


def test_a_machine_is_what_its_host_says(shared: Site) -> None:
    assert sorted(shared.maker.machines()) == sorted(shared.mesh.hosts)
    for host in shared.hosts:
        assert run(shared.maker, host, "hostname; id -u").split() == [host.name, "0"]
        assert f" {host.address}/24" in run(shared.maker, host, "ip -4 -brief address")
        eventually(
            lambda host=host: run(shared.maker, host, "systemctl is-system-running") == "running",  # type: ignore[misc]
            60 * SLOW,
            "systemd is content",
        )


def test_machines_reach_each_other(shared: Site) -> None:
    edge, other = shared.hosts
    assert run(shared.maker, edge, f"head -c4 </dev/tcp/{other.address}/22") == "SSH-"


def test_logins_are_for_their_owner_alone(shared: Site) -> None:
    for login in shared.maker.logins(shared.hosts).values():
        assert login.key
        assert login.key.stat().st_mode & 0o077 == 0
        assert (login.host_keys, login.jump) == ("strict", "none")
        assert "insecure" not in login.key.name


def test_creating_again_changes_nothing_and_asks_vagrant_nothing(shared: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {host: shared.boot_id(host) for host in shared.hosts}
    monkeypatch.setenv("VAGRANT_HOME", "/dev/null")  # Vagrant would fail
    shared.create()
    assert {host: shared.boot_id(host) for host in shared.hosts} == before


def test_a_stopped_machine_keeps_its_disk_and_published_ports_lead_to_it_again(shared: Site) -> None:
    def serve() -> None:
        for text, where, port in (("front", str(shared.edge.address), 8080), ("admin", "127.0.0.1", 8001)):
            run(shared.maker, shared.edge, SERVER.format(text=text, address=where, port=port), timeout_s=60)
        for text, port in (("front", shared.mesh.publish.http), ("admin", shared.mesh.publish.admin)):
            eventually(lambda text=text, port=port: get(port, 60) == text, 60 * SLOW, f"the {text} answers")  # type: ignore[misc]

    serve()
    before = shared.boot_id(shared.edge)
    run(shared.maker, shared.edge, "echo kept > /root/kept && sync && systemctl poweroff --no-block")
    eventually(lambda: BENCH.is_off(shared.mesh, shared.state), 60 * SLOW, "the edge is off")
    shared.create()
    assert run(shared.maker, shared.edge, "cat /root/kept") == "kept"
    assert shared.boot_id(shared.edge) != before
    serve()


def test_the_names_of_another_checkout_are_left_alone(shared: Site, tmp_path: Path) -> None:
    before = {host: shared.boot_id(host) for host in shared.hosts}
    copy = _make(shared.mesh, tmp_path / "copy")
    problems = problems_of(lambda: copy.create(shared.hosts, quiet))
    assert {problem.code for problem in problems} == {"machines/name-taken"}
    assert f"`{shared.mesh.identifier}_front-envoy`" in problems[0].what
    copy.destroy(copy.machines(), quiet)
    assert {host: shared.boot_id(host) for host in shared.hosts} == before


def test_the_network_of_another_mesh_is_left_alone(shared: Site, box: str, tmp_path: Path) -> None:
    with site(BENCH, tmp_path / "state", mesh_with(box)) as there:
        problems = problems_of(lambda: there.maker.create([there.edge], quiet))
        assert [problem.code for problem in problems] == ["machines/network-taken"]
        assert NETWORK in problems[0].what
    assert run(shared.maker, shared.edge, "hostname") == "front-envoy"


NETWORK_OF_OTHERS = """\
<network>
  <name>it's with a space</name>
  <bridge name='virbr77'/>
  <ip family='ipv6' address='fd00::1' prefix='64'/>
  <ip address='192.168.77.1' prefix='24'/>
  <ip family='ipv4' address='10.96.0.129' prefix='30'/>
</network>
"""


def test_a_network_of_others_is_told_before_anything_is_made(box: str, tmp_path: Path) -> None:
    (tmp_path / "network.xml").write_text(NETWORK_OF_OTHERS)
    virsh("net-define", str(tmp_path / "network.xml"))
    try:
        with site(BENCH, tmp_path / "state", mesh_with(box, "10.96.0.0/24")) as there:
            for work in (there.publish, there.create):
                (problem,) = problems_of(work)
                assert problem.code == "machines/network-taken"
                assert problem.saw == ("libvirt's network it's with a space has 192.168.77.0/24, 10.96.0.128/30",)
            assert there.leftovers() == []
    finally:
        virsh("net-undefine", "it's with a space")


def test_a_box_that_cannot_be_got_is_named(tmp_path: Path) -> None:
    with site(BENCH, tmp_path / "state", mesh_with("nobody/has-this", "10.99.0.0/24")) as there:
        problems = problems_of(lambda: there.maker.create([there.edge], quiet))
        assert [problem.code for problem in problems] == ["machines/no-box"]
        assert "`nobody/has-this`" in problems[0].what
        assert "./mesh vagrant-box" in problems[0].hint


def test_a_changed_address_is_refused(shared: Site) -> None:
    moved = replace(shared.edge, address=shared.edge.address + 90)
    (problem,) = problems_of(lambda: shared.maker.create([moved], quiet))
    assert problem.code == "machines/address-changed"


def test_a_killed_create_is_completed_with_new_keys(shared: Site) -> None:
    edge, other = shared.hosts
    before = shared.boot_id(edge)
    known = (shared.state / "known_hosts").read_text()
    shared.maker.destroy([other.name], quiet)
    assert shared.maker.machines() == [edge.name]
    domain = f"{shared.mesh.identifier}_{other.name}"
    with operator(shared.maker, "create", shared.hosts) as process:
        eventually(lambda: domains(shared.mesh).get(domain) == "running", 60 * SLOW, "the machine boots")
        process.kill()
    assert other.name not in shared.maker.logins(shared.hosts)
    shared.create()
    assert run(shared.maker, other, "hostname") == other.name
    now = (shared.state / "known_hosts").read_text()
    assert now != known
    assert now.count(f"{other.address} ") == 1
    assert shared.boot_id(edge) == before


def test_a_host_that_left_the_inventory_can_be_destroyed(shared: Site) -> None:
    edge, other = shared.hosts
    smaller = replace(shared.mesh, hosts={edge.name: edge})
    maker = _make(smaller, shared.state)
    assert other.name in maker.machines()
    maker.destroy([other.name], quiet)
    assert shared.maker.machines() == [edge.name]
    assert list(domains(shared.mesh)) == [f"{shared.mesh.identifier}_{edge.name}"]


def test_what_is_left_of_a_machine_that_somebody_undefined_goes_with_it(shared: Site) -> None:
    domain = f"{shared.mesh.identifier}_{shared.edge.name}"
    assert list(domains(shared.mesh)) == [domain]
    virsh("destroy", domain)
    virsh("undefine", domain)
    assert [left for left in shared.leftovers() if left.startswith(("network", "disk"))]
    shared.destroy()
    shared.nothing_is_left()
