"""The Vagrant provider keeps what every provider promises, on virtual machines, which are slow.

The tests share the mesh that test_up.py left, and are in the order in which it can go: the last ones destroy it.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from envoymesh.machines.vagrant import Vagrant
from envoymesh.model.mesh import Mesh
from tests.contract.maker import Bench, Site, get, problems_of, site
from tests.labs import eventually, quiet, run, small_mesh
from tests.meshes import TestMesh
from tests.vagrant.leftovers import domains, leftovers, virsh

SLOW = 20
"""How many times slower than containers emulated machines are."""


def _make(mesh: Mesh, state: Path) -> Vagrant:
    return Vagrant(mesh, state, state.parent / "inventory.yaml")


BENCH = Bench(
    make=_make,
    is_off=lambda mesh, _: domains(mesh)[f"{mesh.identifier}_front-envoy"] == "shut off",
    leftovers=leftovers,
    tool="vagrant",
    slow=SLOW,
)


def mesh_with(box: str, network: str) -> Mesh:
    mesh = small_mesh(network=network)
    return replace(mesh, machines=replace(mesh.machines, box=box))


@pytest.fixture(scope="module")
def shared(mesh: TestMesh) -> Site:
    """The mesh that runs, as its provider sees it; where no test brought it up before, that is done here."""
    mesh.run("up", timeout_s=1500)
    workspace = mesh.workspace
    maker = workspace.maker()
    assert maker is not None
    return Site(BENCH, workspace.mesh, workspace.state_dir, maker)


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
    edge, *others = shared.hosts
    assert others
    for other in others:
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


def test_a_stopped_machine_keeps_its_disk_and_published_ports_lead_to_it_again(shared: Site, mesh: TestMesh) -> None:
    def serves() -> None:
        eventually(lambda: mesh.get("/service/1", 60)[0] == 200, 60 * SLOW, "the front answers")
        eventually(lambda: "server_info" in get(mesh.admin, 60), 60 * SLOW, "the admin interface answers")

    serves()
    before = shared.boot_id(shared.edge)
    run(shared.maker, shared.edge, "echo kept > /root/kept && sync && systemctl poweroff --no-block")
    eventually(lambda: BENCH.is_off(shared.mesh, shared.state), 60 * SLOW, "the edge is off")
    shared.create()
    assert run(shared.maker, shared.edge, "cat /root/kept") == "kept"
    assert shared.boot_id(shared.edge) != before
    serves()


def test_the_names_of_another_checkout_are_left_alone(shared: Site, tmp_path: Path) -> None:
    before = {host: shared.boot_id(host) for host in shared.hosts}
    copy = _make(shared.mesh, tmp_path / "copy")
    problems = problems_of(lambda: copy.create(shared.hosts, quiet))
    assert {problem.code for problem in problems} == {"machines/name-taken"}
    assert f"`{shared.mesh.identifier}_front-envoy`" in problems[0].what
    copy.destroy(copy.machines(), quiet)
    assert {host: shared.boot_id(host) for host in shared.hosts} == before


def test_the_network_of_another_mesh_is_left_alone(shared: Site, box: str, tmp_path: Path) -> None:
    network = str(shared.mesh.machines.network)
    with site(BENCH, tmp_path / "state", mesh_with(box, network)) as there:
        problems = problems_of(lambda: there.maker.create([there.edge], quiet))
        assert [problem.code for problem in problems] == ["machines/network-taken"]
        assert network in problems[0].what
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


def test_a_host_that_left_the_inventory_can_be_destroyed(shared: Site) -> None:
    edge, *others = shared.hosts
    gone = {other.name for other in others}
    smaller = replace(shared.mesh, hosts={edge.name: edge})
    maker = _make(smaller, shared.state)
    assert set(maker.machines()) == {edge.name, *gone}
    maker.destroy(sorted(gone), quiet)
    assert shared.maker.machines() == [edge.name]
    assert list(domains(shared.mesh)) == [f"{shared.mesh.identifier}_{edge.name}"]


def test_what_is_left_of_a_machine_that_somebody_undefined_goes_with_it(shared: Site, mesh: TestMesh) -> None:
    domain = f"{shared.mesh.identifier}_{shared.edge.name}"
    assert list(domains(shared.mesh)) == [domain]
    virsh("destroy", domain)
    virsh("undefine", domain)
    assert [left for left in shared.leftovers() if left.startswith(("network", "disk"))]
    mesh.run("down")
    shared.nothing_is_left()
