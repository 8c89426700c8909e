"""The two commands on virtual machines: the same check and the same scaling as everywhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.meshes import TestMesh
from tests.vagrant.gentle_load import gentle_load


@pytest.fixture
def mesh(box: str, artifacts: None, tmp_path: Path) -> Iterator[TestMesh]:
    mesh = TestMesh(tmp_path, provider="vagrant", network=85, machines=f", box: {box}")
    try:
        yield mesh
    finally:
        mesh.run("down")


def test_up_check_scale_up_and_down_and_upgrade(mesh: TestMesh) -> None:
    before = f"envoy: {{version: 1.39.3}}\n{mesh.inventory.read_text()}"
    mesh.inventory.write_text(before)
    done = mesh.run("up", timeout_s=1500)
    assert done.stdout.startswith("provider vagrant: ")
    mesh.run("plan")
    for n, address in (("1", "10.85.0.21"), ("2", "10.85.0.31")):
        body = f"Hello from behind Envoy (service {n})! hostname: service{n}-1 resolvedhostname: {address}\n"
        assert mesh.get(f"/service/{n}") == (200, body)
    with gentle_load(mesh) as answers:
        mesh.run("scale", "service1=2", timeout_s=1200)
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
