"""The two commands on virtual machines: the same check and the same scaling as everywhere.

It comes before test_virtual_machines.py, whose tests go on with this mesh, and destroy it; alone, each makes its own.
"""

import signal
from collections.abc import Sequence
from dataclasses import replace

from envoymesh.model.mesh import HostName
from tests.labs import eventually
from tests.meshes import TestMesh
from tests.vagrant.gentle_load import gentle_load
from tests.vagrant.leftovers import domains, virsh


def test_up_check_scale_up_and_down_and_upgrade(mesh: TestMesh) -> None:
    before = f"envoy: {{version: 1.39.3}}\n{mesh.inventory.read_text()}"
    mesh.inventory.write_text(before)
    maker = mesh.workspace.maker()
    assert maker is not None
    assert maker.missing() == ""
    assert maker.machines() == []
    assert maker.logins(list(mesh.workspace.mesh.hosts.values())) == {}
    done = mesh.run("up", timeout_s=1500)
    assert done.stdout.startswith("provider vagrant: ")
    mesh.run("plan")
    for n, address in (("1", "10.85.0.21"), ("2", "10.85.0.31")):
        body = f"Hello from behind Envoy (service {n})! hostname: service{n}-1 resolvedhostname: {address}\n"
        assert mesh.get(f"/service/{n}") == (200, body)
    known_before = known(mesh)
    with gentle_load(mesh) as answers:
        scaled_up_although_killed(mesh)
    assert set(answers) == {"good"}, answers
    assert mesh.hostnames("service1") == {"service1-1", "service1-2"}
    assert "cluster.service1.membership_total: 2\n" in mesh.run("admin", "front-envoy", "/stats").stdout
    for clock in ("2001-01-01", "2037-01-01"):
        # All that a host is asked for must come right on a host that has its clock wrong.
        mesh.on("service1-2", f"systemctl stop systemd-timesyncd; date -s {clock}; rm /etc/envoymesh/sidecar/rds.yaml")
        mesh.run("provision", "--limit", "service1-2", "--lock-wait", "5")
        assert mesh.on("service1-2", "date +%Y").strip() == clock[:4]
    mesh.run("check")
    with gentle_load(mesh) as answers:
        mesh.run("scale", "service1=1")
    assert set(answers) == {"good"}, answers
    assert mesh.hostnames("service1") == {"service1-1"}
    assert mesh.inventory.read_text() == before
    assert known(mesh) == known_before
    mesh.inventory.write_text(before.replace("1.39.3", "1.40.0"))
    with gentle_load(mesh) as answers:
        upgrade = mesh.run("provision", timeout_s=1200).stdout
    assert set(answers) == {"good"}, answers
    assert upgrade.count("hot restart") == 3, upgrade
    for host in ("front-envoy", "service1-1", "service2-1"):
        running = mesh.run("admin", host, "/server_info").stdout
        assert "1.40.0/" in running
        assert '"restart_epoch": 1' in running
    mesh.run("check")


def scaled_up_although_killed(mesh: TestMesh) -> None:
    """Kill the operator's process as soon as the new machine runs; the same command makes it anew, with new keys."""
    workspace, before = mesh.workspace, mesh.inventory.read_text()
    maker, domain = workspace.maker(), f"{workspace.mesh.identifier}_service1-2"
    assert maker is not None
    with mesh.start("scale", "service1=2") as process:
        try:
            eventually(lambda: domains(workspace.mesh).get(domain) == "running", 1200, "the machine boots")
            first = virsh("domuuid", domain)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    half = replace(workspace.mesh.hosts[HostName("service1-1")], name=HostName("service1-2"))
    assert maker.logins([half]) == {}
    assert mesh.inventory.read_text() == before
    # As if it had been killed after it had learned the keys of the first boot.
    stale = next(line for line in known(mesh) if line.startswith("10.85.0.21 ")).replace("85.0.21", "85.0.22")
    with (workspace.state_dir / "known_hosts").open("a") as file:
        file.write(f"{stale}\n")
    mesh.run("scale", "service1=2", timeout_s=1200)
    assert virsh("domuuid", domain) != first
    (line,) = (line for line in known(mesh) if line.startswith("10.85.0.22 "))
    assert line != stale


def known(mesh: TestMesh) -> Sequence[str]:
    """Return the lines of the host keys that are trusted."""
    return (mesh.workspace.state_dir / "known_hosts").read_text().splitlines()
