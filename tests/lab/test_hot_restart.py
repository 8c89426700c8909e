"""Hot restarts under systemd: another Envoy takes over, no request is lost, and what goes wrong is contained."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import NamedTuple

import pytest

from envoymesh.model.mesh import HostName
from envoymesh.problems import Failed
from envoymesh.resources import Effect, File, Resource, Unit
from envoymesh.run.converge import apply, read
from envoymesh.run.provision import desired_of
from tests.labs import eventually, run
from tests.load import load
from tests.meshes import APP, TestMesh, document

FRONT, SIDECAR = ("front-envoy", "envoymesh-front"), ("service1-1", "envoymesh-sidecar")


class Envoy(NamedTuple):
    """The Envoy of a unit: its process as systemd knows it, and what its admin interface says of itself."""

    pid: int
    epoch: int
    version: str


def on(lab: TestMesh, host: str, script: str) -> str:
    return run(lab.workspace.provider, lab.workspace.mesh.hosts[HostName(host)], script, timeout_s=200)


def envoy(lab: TestMesh, host: str, unit: str) -> Envoy:
    """Return the Envoy that serves; its main process must be the one that answers at the admin port."""
    said = on(lab, host, f"systemctl show -p MainPID --value {unit}; curl -sS localhost:8001/server_info")
    pid, _, info = said.partition("\n")
    info = json.loads(info)
    options = info["command_line_options"]
    assert info["state"] == "LIVE"
    words = on(lab, host, f"tr '\\0' ' ' </proc/{pid}/cmdline")
    assert words.endswith(f"--restart-epoch {options['restart_epoch']}")
    return Envoy(int(pid), options["restart_epoch"], info["version"].split("/")[1])


def processes(lab: TestMesh, host: str, unit: str) -> list[int]:
    """Return every process of a unit, the main one first."""
    inside = f"grep -l /{unit}.service$ /proc/[0-9]*/cgroup 2>/dev/null || true"
    main, *paths = on(lab, host, f"systemctl show -p MainPID --value {unit}; {inside}").split()
    return sorted((int(path.split("/")[2]) for path in paths), key=lambda pid: pid != int(main))


def alone(lab: TestMesh, host: str, unit: str) -> bool:
    """Tell whether nothing drains any more."""
    return len(processes(lab, host, unit)) == 1


@pytest.fixture
def fresh(lab: TestMesh) -> Iterator[TestMesh]:
    """The mesh; in the end, all its Envoys start anew, so that none drains."""
    yield lab
    lab.none_drains()


def announced(lab: TestMesh) -> dict[str, str]:
    """Return what a plan says of each unit that it touches: `HOST UNIT` to its effect."""
    plan = document(lab.run("plan", "--json", code=2).stdout)
    changes = ((h["host"], c) for h in plan["hosts"] for c in h["changes"])
    return {f"{host} {c['address'][5:-8]}": c["effect"] for host, c in changes if c["address"].startswith("unit:")}


@pytest.fixture
def versions(fresh: TestMesh) -> Iterator[Callable[[str], None]]:
    """Give what makes the inventory ask for a release of Envoy; in the end it asks for the first one again."""
    before = fresh.inventory.read_text()

    def wanted(version: str) -> None:
        fresh.inventory.write_text(f"{before}envoy: {{version: {version}}}\n")

    yield wanted
    fresh.inventory.write_text(before)
    fresh.run("provision")


def test_a_downgrade_and_an_upgrade_are_hot_restarts_and_the_plan_says_so(
    fresh: TestMesh, versions: Callable[[str], None]
) -> None:
    lab = fresh
    seen = {place: [envoy(lab, *place)] for place in (FRONT, SIDECAR)}
    for version in ("1.39.3", "1.40.0"):
        versions(version)
        effects = announced(lab)
        assert {effects[" ".join(place)] for place in (FRONT, SIDECAR)} == {"hot restart"}
        told = lab.run("provision").stderr
        for place, envoys in seen.items():
            assert re.search(rf"{place[0]} +validates validation:{place[1][10:]}", told)
            envoys.append(envoy(lab, *place))
            assert envoys[-1].version == version
            # One of the first release is gone by now: there are never three. The last one may be done, too.
            assert processes(lab, *place) in ([envoys[-1].pid, envoys[-2].pid], [envoys[-1].pid]), (
                "it drains, in the unit"
            )
        lab.run("check")
    assert on(lab, FRONT[0], "ls /opt/envoymesh/envoy") == version
    for envoys in seen.values():
        first = envoys[0].epoch
        assert [e.epoch for e in envoys] == [first, first + 1, first + 2]
        assert len({e.pid for e in envoys}) == 3


@pytest.mark.parametrize("place", [FRONT, SIDECAR], ids=lambda place: place[1])
def test_a_long_answer_survives_a_reload(fresh: TestMesh, place: tuple[str, str]) -> None:
    lab = fresh
    before = envoy(lab, *place)
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        on(lab, "service1-1", f"systemctl kill --signal=STOP {APP}")
        stack.callback(on, lab, "service1-1", f"systemctl kill --signal=CONT {APP}")
        asked = pool.submit(lab.get, "/service/1", timeout_s=20)
        in_flight = "curl -s localhost:8001/stats?filter=downstream_rq_active"
        eventually(lambda: re.search(r"ingress_http.*: 1", on(lab, "service1-1", in_flight)), what="the request")
        on(lab, place[0], f"systemctl reload {place[1]} && sleep 2")
        assert not asked.done()
        assert envoy(lab, *place).epoch == before.epoch + 1
    assert asked.result()[0] == 200


STALLS = b"""
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 8001}}}
static_resources:
  clusters:
  - name: nobody
    load_assignment:
      cluster_name: nobody
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9}}}}]}]
dynamic_resources:
  lds_config: {resource_api_version: V3, path_config_source: {path: /etc/envoymesh/sidecar/lds.yaml}}
  cds_config:
    resource_api_version: V3
    initial_fetch_timeout: 0s
    api_config_source:
      {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: nobody}}]}
"""
"""What Envoy finds valid, and then waits for ever for somebody to tell it the clusters: it has begun to take over."""


SHARED = "/dev/shm/envoy_shared_memory_20"
STARTING = f"printf '\\1' | dd of={SHARED} bs=1 seek=$(($(stat -c %s {SHARED}) - 8)) conv=notrunc status=none"
"""Leaves the flag in the sidecar's shared memory that an Envoy leaves which was killed while it started."""


@pytest.mark.parametrize(
    ("file", "change", "further"),
    [
        pytest.param("-sidecar.service", lambda text: text.replace(b"--base-id 2", b"--base-id 7"), 0, id="ends"),
        pytest.param("/bootstrap.yaml", lambda _: STALLS, 1, id="stalls"),
        pytest.param("/hot-restart", lambda text: text, 0, id="is not begun"),
    ],
)
def test_a_new_envoy_that_does_not_come_to_serve_leaves_the_old_one_serving(
    fresh: TestMesh, file: str, change: Callable[[bytes], bytes], further: int
) -> None:
    """Where the old one has lost its admin interface, it is followed by another one of its kind.

    The script that waits for the new one for a minute does so for some seconds here.
    """
    lab, host = fresh, HostName("service1-1")
    workspace = lab.workspace
    desired = desired_of(workspace, [workspace.mesh.hosts[host]])[host]
    [stamp] = [r.stamp.encode() for r in desired if isinstance(r, Unit) and SIDECAR[1] in r.name]
    other = b"0" * 64

    def changed(resource: Resource) -> Resource:
        if isinstance(resource, Unit) and SIDECAR[1] in resource.name:
            return replace(resource, stamp=other.decode())
        if not isinstance(resource, File):
            return resource
        content = change(resource.content) if resource.path.endswith(file) else resource.content
        content = content.replace(b"-lt 60 ]", b"-lt 5 ]") if resource.path.endswith("/hot-restart") else content
        return replace(resource, content=content.replace(stamp, other))

    before = envoy(lab, *SIDECAR)
    if file == "/hot-restart":
        on(lab, host, STARTING)
    with load(lab, "a new Envoy that does not come to serve", share=0.25) as seen:
        with workspace.fleet([workspace.mesh.hosts[host]]) as fleet:
            reading = read(fleet, host, [changed(r) for r in desired])
            assert {c.effect for c in reading.plan.changes} - {Effect.NONE} == {Effect.HOT_RESTART}
            with pytest.raises(Failed) as failed:
                apply(fleet, reading, workspace, lambda _: None)
        [problem] = failed.value.problems
        assert problem.code == "unit/not-replaced"
        assert problem.now == "service1-1: what had been replaced was put back and serves again"
    assert seen.figures.failed == {}, seen.figures
    after = envoy(lab, *SIDECAR)
    assert after.epoch == before.epoch + further
    assert (after.pid == before.pid) == (further == 0)
    lab.run("plan")


def test_an_envoy_that_lost_its_admin_interface_to_one_that_was_killed_is_replaced(fresh: TestMesh) -> None:
    lab = fresh
    bootstrap, stalls = "/etc/envoymesh/sidecar/bootstrap.yaml", shlex.quote(STALLS.decode())
    before = envoy(lab, *SIDECAR)
    on(lab, "service1-1", f"cp -a {bootstrap} /root/kept && printf %s {stalls} >{bootstrap}")
    try:
        on(lab, "service1-1", "systemctl reload --no-block envoymesh-sidecar")
        stalled = "curl -s localhost:8001/server_info | grep -c 'state.*INITIALIZING'"
        eventually(lambda: on(lab, "service1-1", stalled), what="the new one's start")
        on(lab, "service1-1", "pkill -KILL -n -x envoy -u envoymesh-sidecar")
        eventually(lambda: on(lab, "service1-1", "systemctl is-active envoymesh-sidecar") == "active")
    finally:
        on(lab, "service1-1", f"cp -a /root/kept {bootstrap}")
    assert on(lab, "service1-1", "curl -s localhost:8001/ready || echo refused") == "refused"
    assert lab.get("/service/1")[0] == 200
    assert announced(lab) == {"service1-1 envoymesh-sidecar": "hot restart"}
    lab.run("provision")
    assert envoy(lab, *SIDECAR).epoch == before.epoch + 1


def test_a_main_process_that_dies_after_it_took_over_comes_back_by_itself_from_the_start(fresh: TestMesh) -> None:
    lab = fresh
    on(lab, "service1-1", "systemctl reload envoymesh-sidecar")
    before = envoy(lab, *SIDECAR)
    assert len(processes(lab, *SIDECAR)) == 2
    on(lab, "service1-1", "systemctl kill --kill-who=main --signal=KILL envoymesh-sidecar")
    eventually(lambda: processes(lab, *SIDECAR)[:1] not in ([], [before.pid]), what="another process")
    eventually(lambda: envoy(lab, *SIDECAR).epoch == 0, what="a cold start")
    assert alone(lab, *SIDECAR), "the one that drained went along"


def test_a_stop_ends_all_epochs_and_a_start_begins_anew(fresh: TestMesh) -> None:
    lab = fresh
    on(lab, "service1-1", "systemctl reload envoymesh-sidecar")
    both = processes(lab, *SIDECAR)
    assert len(both) == 2
    on(lab, "service1-1", "systemctl stop envoymesh-sidecar")
    try:
        assert processes(lab, *SIDECAR) == []
        assert on(lab, "service1-1", f"ls -d /proc/{both[0]} /proc/{both[1]} 2>/dev/null | wc -l") == "0"
    finally:
        on(lab, "service1-1", "systemctl start envoymesh-sidecar")
    assert eventually(lambda: envoy(lab, *SIDECAR), what="its start").epoch == 0
