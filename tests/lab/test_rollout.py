"""Changes that reach hosts in batches: what is not healthy afterwards gets back what it had, and nobody notices."""

from collections.abc import Callable, Iterator

import pytest

from envoymesh.events import Event, OutcomeKind
from envoymesh.model.mesh import ServiceName
from envoymesh.problems import ExitCode
from envoymesh.run.provision import provision
from tests.figures import Figures
from tests.labs import eventually
from tests.load import load
from tests.meshes import TestMesh

APP = "systemctl show -p MainPID --value 'envoymesh-app-*'"


@pytest.fixture(scope="module")
def many(running: TestMesh) -> Iterator[TestMesh]:
    """The mesh with three hosts of service1, for all tests here that need them."""
    running.run("scale", "service1=3")
    yield running
    running.run("scale", "service1=1")


@pytest.fixture
def three(many: TestMesh, lab: TestMesh) -> TestMesh:
    """That mesh, converged; one that a test has changed is repaired after it."""
    return lab


@pytest.fixture
def a_change(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return how to give the applications another unit, and another path for their health check."""

    def change(path: str) -> None:
        monkeypatch.setattr("roles.service.HEALTH_PATH", path)

    return change


def rolled_out(mesh: TestMesh, rollout: str, told: list[str]) -> dict[str, OutcomeKind]:
    """Provision service1 with settings of `rollout`, in this process; return what became of each host."""
    before = mesh.inventory.read_text()
    mesh.inventory.write_text(before.replace("{canary: 0}", rollout))
    try:
        workspace = mesh.workspace
        hosts = workspace.mesh.hosts_of(ServiceName("service1"))
        outcomes = provision(workspace, hosts, lambda event: told.append(line(event)))
    finally:
        mesh.inventory.write_text(before)
    problems = [o.problem for o in outcomes if o.problem]
    assert {p.code for p in problems} <= {"rollout/not-healthy"}
    assert all(p.exit_code is ExitCode.PROBLEM and "was given back what it had before" in p.now for p in problems)
    assert all("failed active health check" in p.saw[0] for p in problems)
    return {o.host: o.kind for o in outcomes}


def all_but_uploads(figures: Figures) -> dict[str, int]:
    """Return what failed. Envoy keeps 32 KiB of a request: more of it cannot wait for an application that restarts."""
    return {kind: count for kind, count in figures.failed.items() if "slow_upload" not in kind}


def line(event: Event) -> str:
    return f"{event.host}: {event.text}"


def processes(mesh: TestMesh) -> dict[str, str]:
    return {f"service1-{n}": mesh.on(f"service1-{n}", APP).strip() for n in (1, 2, 3)}


def test_a_canary_that_fails_its_gate_is_put_back_alone_and_no_client_notices(
    three: TestMesh, a_change: Callable[[str], None]
) -> None:
    before, told = processes(three), list[str]()
    generations = three.on("service1-1", "ls -v /var/lib/envoymesh/generations").split()
    a_change("/elsewhere")
    with load(three, "a canary that fails", share=0.25) as seen:
        became = rolled_out(three, "{canary: 1, max_parallel: 1}", told)
    assert became == {
        "service1-1": OutcomeKind.FAILED,
        "service1-2": OutcomeKind.NOT_STARTED,
        "service1-3": OutcomeKind.NOT_STARTED,
    }
    assert all_but_uploads(seen.figures) == {}, seen.figures
    now = processes(three)
    assert [name for name in now if now[name] != before[name]] == ["service1-1"]
    assert ": batch 1 of 3: service1-1" in told
    of_others = {t.partition(": ")[2] for t in told if t.startswith(("service1-2: ", "service1-3: "))}
    assert of_others <= {"connects", "is read", "", "not started"}, "they are read, and no more"
    kept = three.on("service1-1", "ls -v /var/lib/envoymesh/generations").split()
    assert kept[-1] == generations[-1], "the bad one is forgotten"
    three.run("plan")
    eventually(lambda: three.hostnames("service1") == {"service1-1", "service1-2", "service1-3"})
    three.run("check")


def test_as_many_may_fail_as_the_inventory_allows(three: TestMesh, a_change: Callable[[str], None]) -> None:
    a_change("/elsewhere")
    became = rolled_out(three, "{canary: 0, max_parallel: 1, max_failed: 1}", [])
    assert list(became.values()) == [OutcomeKind.FAILED, OutcomeKind.FAILED, OutcomeKind.NOT_STARTED]
    three.run("plan")


def test_flags_say_how_many_at_a_time(three: TestMesh) -> None:
    before = three.inventory.read_text()
    three.inventory.write_text(before.replace("machines: {", "machines: {memory_mib: 600, "))
    done = three.run("provision", "--limit", "service1", "--canary", "0", "--max-parallel", "100%")
    assert "batch" not in done.stderr
    assert "3 changed" in done.stdout.splitlines()
    three.inventory.write_text(before)
    three.none_drains()
    assert "problem task/bad-argument" in three.run("provision", "--max-parallel", "0", code=1).stderr
    told = three.run("provision", "--limit", "service1", "--canary", "1", "--max-parallel", "100%").stderr
    assert "batch 1 of 2: service1-1\n" in told
    assert "batch 2 of 2: service1-2 and service1-3\n" in told
