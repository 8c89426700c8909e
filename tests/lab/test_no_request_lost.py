"""Planned work under load: no request fails. To add a row, add a function to `OPERATIONS`."""

import ssl
from collections.abc import Callable, Generator
from contextlib import closing
from http.client import HTTPConnection

import pytest

from tests.figures import Figures
from tests.labs import eventually
from tests.load import load
from tests.meshes import APP, FRONT, SIDECAR, TestMesh, edited
from tests.releases import release

Operation = Callable[[TestMesh], Generator[None, None, None]]
"""Prepares the mesh, yields, works under load, yields, and ends if it did what it is named for."""

BOTH = {"service1-1", "service1-2"}
OLDER = "1.39.3"
BOOT = "cat /proc/sys/kernel/random/boot_id"
TLS = ("templates/front/lds.yaml.j2", "tls_minimum_protocol_version: TLSv1_2", "tls_minimum_protocol_version: TLSv1_3")
A_PORT = (
    "templates/front/lds.yaml.j2",
    "resources:\n",
    """resources:
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: another
  address: {socket_address: {address: 0.0.0.0, port_value: 8088}}
  traffic_direction: INBOUND
  filter_chains:
  - filters:
    {{ connection_manager() | trim | indent(4) }}
""",
)


def scale_up_from_one_host(lab: TestMesh) -> Generator[None, None, None]:
    yield
    lab.run("scale", "service1=2")
    yield
    assert lab.hostnames("service1") == BOTH


def scale_down_to_one_host(lab: TestMesh) -> Generator[None, None, None]:
    lab.run("scale", "service1=2")
    yield
    lab.run("scale", "service1=1")
    yield
    assert lab.hostnames("service1") == {"service1-1"}


def add_and_remove_a_service_host(lab: TestMesh) -> Generator[None, None, None]:
    yield
    lab.run("add-service-host", "service1")
    assert lab.hostnames("service1") == BOTH
    lab.run("remove-service-host", "service1-1")
    yield
    assert lab.hostnames("service1") == {"service1-2"}


def another_route(lab: TestMesh) -> Generator[None, None, None]:
    before = lab.inventory.read_text()
    yield
    lab.inventory.write_text(before.replace("/service/2", "/service/two"))
    lab.run("provision")
    yield
    assert (lab.get("/service/two")[0], lab.get("/service/2")[0]) == (200, 404)


def another_timeout(lab: TestMesh) -> Generator[None, None, None]:
    yield
    with edited(lab, "templates/front/rds.yaml.j2", "timeout: 15s", "timeout: 14s"):
        lab.run("provision")
    yield
    assert "timeout: 14s" in lab.on("front-envoy", "cat /etc/envoymesh/front/rds.yaml")


def another_port(lab: TestMesh) -> Generator[None, None, None]:
    yield
    with closing(HTTPConnection("127.0.0.1", lab.http, timeout=10)) as kept, edited(lab, *A_PORT):
        assert answers_and_stays_open(kept)
        lab.run("provision")
        assert answers_and_stays_open(kept), "no listener changed but the new one"
    yield
    assert "Hello" in lab.on("front-envoy", "curl -s localhost:8088/service/1")


def another_version_of_tls(lab: TestMesh) -> Generator[None, None, None]:
    yield
    with closing(HTTPConnection("127.0.0.1", lab.http, timeout=10)) as kept, edited(lab, *TLS):
        assert answers_and_stays_open(kept)
        lab.run("provision")
        assert answers_and_stays_open(kept), "the listener for HTTP did not change"
    yield
    lab.on("front-envoy", "curl -sk --tls-max 1.2 https://localhost:8443/service/1", code=35)


def rollback_of_another_version_of_tls(lab: TestMesh) -> Generator[None, None, None]:
    with edited(lab, *TLS):
        lab.run("provision")
    yield
    lab.run("rollback")
    yield
    lab.on("front-envoy", "curl -sk --tls-max 1.2 https://localhost:8443/service/1")


def deploy_to_a_single_host_and_back(lab: TestMesh) -> Generator[None, None, None]:
    first, second = release(lab.folder, "one"), release(lab.folder, "two")
    lab.run("deploy", "service1", "--from", str(first), "--release", "one")
    yield
    lab.run("deploy", "service1", "--from", str(second), "--release", "two")
    lab.run("deploy", "service1", "--release", "one")
    yield
    assert lab.release() == "one"


def deploy_to_two_hosts(lab: TestMesh) -> Generator[None, None, None]:
    lab.run("scale", "service1=2")
    code = release(lab.folder, "three")
    yield
    lab.run("deploy", "service1", "--from", str(code), "--release", "three")
    yield
    assert {lab.release() for _ in range(20)} == {"three"}


def reboot_of_both_hosts(lab: TestMesh) -> Generator[None, None, None]:
    lab.run("scale", "service1=2")
    before = {lab.on(host, BOOT) for host in BOTH}
    yield
    lab.run("reboot", "service1")
    yield
    assert not before & {lab.on(host, BOOT) for host in BOTH}
    assert lab.hostnames("service1") == BOTH


def renewal_of_the_certificate(lab: TestMesh) -> Generator[None, None, None]:
    before = certificate(lab)
    yield
    lab.run("renew")
    yield
    assert certificate(lab) != before


def another_authority(lab: TestMesh) -> Generator[None, None, None]:
    before = certificate(lab)
    yield
    lab.run("renew", "--ca")
    yield
    assert certificate(lab) != before


def certificate(lab: TestMesh) -> str:
    """Return the certificate that a new connection is shown."""
    return ssl.get_server_certificate(("127.0.0.1", lab.https), timeout=10)


def an_older_release_of_envoy(lab: TestMesh) -> Generator[None, None, None]:
    """On all hosts: a new process takes over from the one that serves."""
    before = lab.inventory.read_text()
    yield
    lab.inventory.write_text(f"{before}envoy: {{version: {OLDER}}}\n")
    lab.run("provision")
    yield
    assert f"/{OLDER}/" in lab.run("admin", "front-envoy", "/server_info").stdout
    lab.stop_envoys()


def a_newer_release_of_envoy(lab: TestMesh) -> Generator[None, None, None]:
    before = lab.inventory.read_text()
    lab.inventory.write_text(f"{before}envoy: {{version: {OLDER}}}\n")
    lab.stop_envoys()
    lab.run("up")
    yield
    lab.inventory.write_text(before)
    lab.run("provision")
    yield
    assert f"/{OLDER}/" not in lab.run("admin", "front-envoy", "/server_info").stdout


def reloads_by_hand(lab: TestMesh) -> Generator[None, None, None]:
    lab.none_drains()
    places = (("service1-1", SIDECAR), ("front-envoy", FRONT))
    before = [lab.on(host, f"systemctl show -p MainPID --value {unit}") for host, unit in places]
    yield
    for host, unit in places:
        lab.on(host, f"systemctl reload {unit}")
    yield
    for pid, (host, unit) in zip(before, places, strict=True):
        assert lab.on(host, f"systemctl show -p MainPID --value {unit}") != pid


def answers_and_stays_open(connection: HTTPConnection) -> bool:
    """Tell whether an answer comes over a connection that was made before, or is made now, and leaves it open."""
    before = connection.sock
    connection.request("GET", "/service/1")
    answer = connection.getresponse()
    answer.read()
    return answer.status == 200 and answer.getheader("connection") != "close" and before in {None, connection.sock}


OPERATIONS: list[Operation] = [
    scale_up_from_one_host,
    scale_down_to_one_host,
    add_and_remove_a_service_host,
    deploy_to_a_single_host_and_back,
    deploy_to_two_hosts,
    another_route,
    another_timeout,
    another_port,
    another_version_of_tls,
    rollback_of_another_version_of_tls,
    reboot_of_both_hosts,
    renewal_of_the_certificate,
    another_authority,
    an_older_release_of_envoy,
    a_newer_release_of_envoy,
    reloads_by_hand,
]


def stop_and_start_of_the_front(lab: TestMesh) -> Generator[None, None, None]:
    yield
    lab.on("front-envoy", f"systemctl stop {FRONT} && systemctl start {FRONT}")
    yield


def reboot_of_a_host_at_once(lab: TestMesh) -> Generator[None, None, None]:
    lab.run("scale", "service1=2")
    before = lab.on("service1-2", BOOT)
    yield
    lab.run("exec", "service1-2", "systemctl reboot", code=None)
    eventually(lambda: lab.run("exec", "service1-2", BOOT, code=None).stdout not in {"", before})
    yield


def stop_and_start_of_an_application(lab: TestMesh) -> Generator[None, None, None]:
    code = release(lab.folder, "four")
    lab.run("deploy", "service1", "--from", str(code), "--release", "four")
    yield
    lab.on("service1-1", f"systemctl restart {APP}")
    yield


NAIVE: list[Operation] = [stop_and_start_of_the_front, stop_and_start_of_an_application, reboot_of_a_host_at_once]
"""How it is done without care: the load must see its losses, else it is blind."""


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_planned_work_loses_no_request(lab: TestMesh, operation: Operation) -> None:
    seen = under_load(lab, operation, "Planned work", "0")
    assert seen.sent >= 10_000
    assert seen.failed == {}, seen


@pytest.mark.parametrize("operation", NAIVE, ids=lambda operation: operation.__name__)
def test_the_load_sees_what_work_without_care_loses(lab: TestMesh, operation: Operation) -> None:
    assert under_load(lab, operation, "Planned work without care", "must see losses").lost > 0


def under_load(lab: TestMesh, operation: Operation, part: str, bound: str) -> Figures:
    """Return what came of a load during an operation, for a part of docs/reliability.md."""
    steps = operation(lab)
    next(steps)
    with load(lab, operation.__name__, part, bound) as seen:
        next(steps)
    assert next(steps, "ended") == "ended"
    return seen.figures
