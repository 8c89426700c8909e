"""What breaks under load: how many requests that may cost, and for how long. To add a row, add it to `FAULTS`.

A thousand requests a second meet two hosts of a service, of which one breaks, or the front. The bounds hold for reads
and uploads together; docs/reliability.md says what was measured.
"""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from envoymesh.machines import cgroup, netns
from envoymesh.model.ports import APP_PORT
from tests.labs import eventually
from tests.layers import ROOT
from tests.load import Site, load
from tests.meshes import APP, FRONT, SIDECAR, TestMesh, cut_off, edited
from tests.releases import release

VICTIM = "service1-2"
IN_FLIGHT = 16
"""Long requests that are in flight at any time: a host that breaks may cost those that it has."""

OVERFLOWED, REJECTED = (f"listener.0.0.0.0_8080.downstream_cx_{why}" for why in ("overflow", "overload_reject"))
"""Connections that were closed at once: more than the port takes, and those for which there is no memory."""

HALF = r"GET /service/1 HTTP/1.1\r\nhost: ha"
HOOKS = ("input", "output")
BOOT = "cat /proc/sys/kernel/random/boot_id; systemctl show -p UserspaceTimestampMonotonic --value"
FRONT_PROCESS = f"systemctl show -p MainPID --value {FRONT}"
DEAD_S = 5
"""For how long nobody looks after a mesh whose operator's box has died."""

HELD_S = 16
"""A fault is held for longer than the front waits for an answer, so that nothing recovers because the fault ended."""

EDS = "/etc/envoymesh/front/eds/service1.yaml"


@dataclass(frozen=True)
class Bound:
    """How many requests may fail, for how long some may, and of which clients (what their names begin with)."""

    failed: int
    seconds: float
    clients: tuple[str, ...] = ("",)

    def __str__(self) -> str:
        names = [f"`{name.rstrip(':')}`" for name in self.clients if name]
        of = f" of {' and '.join(names)}" if names else ""
        return f"{self.failed}{of}, for {self.seconds:g} s" if self.failed else "0"


Fault = Callable[[TestMesh, Site], None]
"""Breaks something under load, waits until it is found out, repairs what does not repair itself, and waits again."""


@pytest.fixture(scope="module")
def two(running: TestMesh) -> Iterator[TestMesh]:
    """The mesh with two hosts of service1."""
    before = running.inventory.read_text()
    running.run("scale", "service1=2")
    yield running
    running.run("scale", "service1=1")
    running.inventory.write_text(before)
    running.run("provision")


def found_out(lab: TestMesh, healthy: int, within_s: float = 30) -> None:
    """Wait until the front has so many healthy members of service1."""
    what = f"{healthy} healthy members"
    eventually(lambda: lab.stat("cluster.service1.membership_healthy") == healthy, within_s, what)


def application_killed(lab: TestMesh, _: Site) -> None:
    lab.on(VICTIM, f"systemctl kill --signal=KILL {APP}")


def application_hung(lab: TestMesh, _: Site) -> None:
    lab.on(VICTIM, f"systemctl kill --signal=STOP {APP}")
    try:
        found_out(lab, 1)
        time.sleep(HELD_S)
    finally:
        lab.on(VICTIM, f"systemctl kill --signal=CONT {APP}")
    found_out(lab, 2)


def application_slow(lab: TestMesh, _: Site) -> None:
    stutter = f"systemctl kill --signal=STOP {APP}; sleep 1.5; systemctl kill --signal=CONT {APP}; sleep 0.2"
    lab.on(VICTIM, f"for i in 1 2 3 4 5 6 7 8; do {stutter}; done")
    found_out(lab, 2)


def application_answers_500(lab: TestMesh, _: Site) -> None:
    before = lab.stat("cluster.service1.outlier_detection.ejections_enforced_failure_percentage")
    with answering_500(lab):
        outliers = "cluster.service1.outlier_detection.ejections_"
        eventually(lambda: lab.stat(f"{outliers}enforced_failure_percentage") > before, what="its ejection")
    eventually(lambda: lab.stat(f"{outliers}active") == 0, within_s=90, what="its return")


@contextmanager
def answering_500(lab: TestMesh) -> Iterator[None]:
    """Let another application answer in place of the real one: health checks with 200, all else with 500."""
    code = shlex.quote((ROOT / "tests" / "bad_application.py").read_text())
    units = lab.on(VICTIM, f"systemctl list-units --plain --no-legend --state=active {APP} | cut -d ' ' -f 1").split()
    listening = lab.on(VICTIM, f"ss -Hltn sport = :{APP_PORT}").split()[3].rpartition(":")[0]
    instead = f"systemd-run --quiet --collect --unit=bad-application python3 -c {code} {listening} {APP_PORT}"
    # At once: an order to stop waits for what is being answered, and is another thing than a bad application.
    lab.on(VICTIM, f"systemctl kill --signal=KILL {' '.join(units)}; systemctl stop {' '.join(units)}; {instead}")
    try:
        yield
    finally:
        lab.on(VICTIM, f"systemctl stop bad-application; systemctl start {' '.join(units)}")


def sidecar_killed(lab: TestMesh, _: Site) -> None:
    lab.on(VICTIM, f"systemctl kill --signal=KILL {SIDECAR}")


def host_cut_off_the_network(lab: TestMesh, _: Site) -> None:
    with unplugged(lab):
        found_out(lab, 1)
        time.sleep(HELD_S)
    found_out(lab, 2)


@contextmanager
def unplugged(lab: TestMesh) -> Iterator[None]:
    """Drop all packets to and from the host: nobody is told, as when a cable is pulled."""
    nft = ["nsenter", f"--net={netns.path(f'{lab.workspace.mesh.identifier}-{VICTIM}')}", "nft"]
    chains = " ".join(f"chain {hook} {{ type filter hook {hook} priority 0; policy drop; }};" for hook in HOOKS)
    subprocess.run([*nft, f"table inet cut {{ {chains} }}"], check=True)
    try:
        yield
    finally:
        subprocess.run([*nft, "delete table inet cut"], check=True)


def host_powered_off(lab: TestMesh, _: Site) -> None:
    group = (cgroup.hierarchy() or Path()) / f"envoymesh-{lab.workspace.mesh.identifier}" / VICTIM
    with unplugged(lab):
        cgroup.kill(group)
        found_out(lab, 1)
    lab.run("up")
    found_out(lab, 2)


def host_rebooted(lab: TestMesh, _: Site) -> None:
    before = lab.on(VICTIM, BOOT)
    lab.run("exec", VICTIM, "systemctl reboot", code=None)
    eventually(lambda: lab.run("exec", VICTIM, BOOT, code=None).stdout not in {"", before}, what="the host's return")
    found_out(lab, 2)


FULL = """
for d in /run /tmp /dev/shm; do
  mountpoint -q $d || continue
  mount -o remount,size=$(($(df -k --output=used $d | tail -1) + 64))k $d
  head -c 1M /dev/zero > $d/full 2> /dev/null
done
echo x > /run/more 2> /dev/null && status=9
sleep 8
for d in /run /tmp /dev/shm; do
  mountpoint -q $d && rm -f $d/full $d/more && mount -o remount,size=20% $d
done
exit ${status:-0}
"""
"""Fills a host's file systems for some seconds: those in memory, which all processes write to while they serve."""


def disk_full(lab: TestMesh, _: Site) -> None:
    for host in ("front-envoy", VICTIM):
        lab.on(host, FULL)


def endpoints_broken(lab: TestMesh, _: Site) -> None:
    for write in ("echo '{ [ }' >", f"head -c 300 {EDS} >", ": >"):
        broken_endpoints(lab, write)


def broken_endpoints(lab: TestMesh, write: str) -> None:
    """Put something else in the place of a service's endpoints, as Envoy notices it; then repair it."""
    before = lab.stat("cluster.service1.update_attempt")
    lab.on("front-envoy", f"{write} {EDS}.new && mv {EDS}.new {EDS}")
    eventually(lambda: lab.stat("cluster.service1.update_attempt") > before, what="the front's look at the file")
    lab.run("provision", "--limit", "edge")


def connection_limit_reached(lab: TestMesh, site: Site) -> None:
    assert crowd(site, count=6000, text="", seconds=4)["held"] > 3000


def half_a_request(lab: TestMesh, site: Site) -> None:
    assert crowd(site, count=1, text=HALF, seconds=15) == {"closed": 1}


def ten_thousand_half_requests(lab: TestMesh, site: Site) -> None:
    before = lab.stat(OVERFLOWED)
    crowd(site, count=10_000, text=HALF, seconds=15)
    assert lab.stat(OVERFLOWED) > before


def memory_limit_reached(lab: TestMesh, site: Site) -> None:
    """With an eighth of the heap, memory is full before connections are too many, and everybody is shed."""
    smaller = ("overload_manager(heap_bytes, ", "overload_manager(heap_bytes // 8, ")
    with edited(lab, "templates/front/bootstrap.yaml.j2", *smaller):
        lab.run("provision", "--limit", "edge")
    process, before = lab.on("front-envoy", FRONT_PROCESS), lab.stat(REJECTED)
    crowd(site, count=4000, text=HALF, seconds=15)
    assert lab.stat(REJECTED) > before
    assert lab.on("front-envoy", FRONT_PROCESS) == process
    lab.run("provision", "--limit", "edge")


def crowd(site: Site, count: int, text: str, seconds: float) -> dict[str, int]:
    """Let so many clients do so little at the front's port for HTTP; return what became of them."""
    argv = [sys.executable, "-m", "tests.crowd", site.address, "8080", str(count), text, str(seconds)]
    process = site.start(*argv, said="crowd")
    assert process.wait(seconds + 60) == 0
    became: dict[str, int] = json.loads((site.folder / "crowd").read_text().splitlines()[-1])
    assert sum(became.values()) == count
    return became


def burst_of_connections(lab: TestMesh, site: Site) -> None:
    process = site.start("h2load", "--h1", "-n2000", "-c2000", site.url("http"), said="burst")
    assert process.wait(60) == 0
    said = (site.folder / "burst").read_text()
    assert "2000 succeeded" in said, said


def operator_dead_in_provision(lab: TestMesh, _: Site) -> None:
    """While Envoys are replaced."""
    with edited(lab, "templates/macros.j2", '("disable_http_keepalive", 0.92)', '("disable_http_keepalive", 0.91)'):
        dies(lab, "front-envoy +hot restarts", "provision")
    lab.run("provision")


def operator_dead_in_a_deploy(lab: TestMesh, _: Site) -> None:
    code = release(lab.folder, "six")
    dies(lab, "service1-2 +starts", "deploy", "service1", "--from", str(code), "--release", "six")
    assert {lab.release() for _ in range(20)} == {"six"}


def operator_dead_in_scaling(lab: TestMesh, _: Site) -> None:
    dies(lab, ": entered service1-3", "scale", "service1=3")
    dies(lab, "front-envoy +waits for", "scale", "service1=2")
    assert lab.hostnames("service1") == {"service1-1", "service1-2"}


def operator_dead_in_a_change_of_authority(lab: TestMesh, _: Site) -> None:
    dies(lab, "front-envoy +takes", "renew", "--ca", again=("provision",))


def operator_dead_in_a_reboot(lab: TestMesh, _: Site) -> None:
    dies(lab, f"{VICTIM} +boots", "reboot", VICTIM, again=("provision",))
    assert lab.hostnames("service1") == {"service1-1", "service1-2"}


def dies(lab: TestMesh, step: str, *words: str, again: Sequence[str] = ()) -> None:
    """Let the operator's box die at a step of a task, and have the task, or another, complete it later."""
    cut_off(lab, signal.SIGKILL, step, *words, "--verbose")
    time.sleep(DEAD_S)
    lab.run(*(again or words))
    lab.run("plan")


FAULTS: Mapping[Fault, Bound] = {
    application_killed: Bound(IN_FLIGHT, 15, ("long",)),
    application_hung: Bound(IN_FLIGHT, 30, ("long",)),
    application_slow: Bound(IN_FLIGHT, 30, ("long",)),
    application_answers_500: Bound(2500, 40),
    sidecar_killed: Bound(IN_FLIGHT, 15, ("long",)),
    host_cut_off_the_network: Bound(IN_FLIGHT, 30, ("long",)),
    host_powered_off: Bound(IN_FLIGHT, 30, ("long",)),
    host_rebooted: Bound(IN_FLIGHT, 30, ("long",)),
    disk_full: Bound(0, 0),
    endpoints_broken: Bound(0, 0),
    half_a_request: Bound(0, 0),
    ten_thousand_half_requests: Bound(6000, 20, ("new, HTTP/1.1:", "long")),
    connection_limit_reached: Bound(5000, 15, ("new, HTTP/1.1:", "long")),
    memory_limit_reached: Bound(15_000, 25),
    burst_of_connections: Bound(0, 0),
    operator_dead_in_provision: Bound(0, 0),
    operator_dead_in_a_deploy: Bound(0, 0),
    operator_dead_in_scaling: Bound(0, 0),
    operator_dead_in_a_change_of_authority: Bound(0, 0),
    operator_dead_in_a_reboot: Bound(0, 0),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_costs_no_more_than_its_bound(two: TestMesh, fault: Fault) -> None:
    bound = FAULTS[fault]
    with load(two, fault.__name__, "What breaks", str(bound)) as seen:
        fault(two, seen.site)
    others = {kind for kind in seen.figures.failed if not kind.startswith(bound.clients)}
    assert not others, seen.figures
    assert seen.figures.lost <= bound.failed, seen.figures
    assert seen.figures.disturbed_s <= bound.seconds, seen.figures
