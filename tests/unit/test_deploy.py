"""Deploy: which code is a release, and what becomes of hosts and inventory when one of them fails."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from envoymesh.events import Outcome, OutcomeKind, failed_outcome
from envoymesh.model.mesh import Host, HostName, ServiceName
from envoymesh.problems import ExitCode, Failed, Problem
from envoymesh.run import deploy as deploys
from envoymesh.run.fleet import Fleet
from envoymesh.run.releases import code_of, keep, kept_code, kept_names, package_in
from envoymesh.run.workspace import Workspace, open_workspace
from tests.rendering import INVENTORY, mesh_of

SERVICE = ServiceName("service1")
CODE = {"__main__.py": b"1", "requirements.txt": b"", "parts/one.txt": b"\xff"}
ILL = Problem("rollout/not-healthy", "", saw=("why",), now="given back")
AWAY = Problem("ssh/unreachable", "", exit_code=ExitCode.UNREACHABLE)
HELD = Problem("lock/held", "another has it", now="this command has changed nothing on them")


def code(raised: pytest.ExceptionInfo[Failed]) -> str:
    return raised.value.problems[0].code


def package(folder: Path) -> Path:
    for name, content in CODE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_a_package_is_all_its_files_but_what_python_and_editors_leave(tmp_path: Path) -> None:
    package(tmp_path)
    for name in (".git/config", "__pycache__/x.pyc", "parts/__pycache__/y.pyc", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert package_in(tmp_path) == CODE


@pytest.mark.parametrize("name", ["__main__.py", "requirements.txt", ""])
def test_what_cannot_be_started_is_no_release(tmp_path: Path, name: str) -> None:
    folder = package(tmp_path / "code")
    if name:
        (folder / name).unlink()
    with pytest.raises(Failed) as failed:
        package_in(folder if name else tmp_path / "none")
    assert code(failed) == "release/no-code"
    assert name in failed.value.problems[0].saw[0]


def test_a_release_is_kept_under_its_name_and_never_changes(tmp_path: Path) -> None:
    assert keep(tmp_path, SERVICE, CODE, "one") == keep(tmp_path, SERVICE, CODE, "one") == "one"
    digest = keep(tmp_path, SERVICE, CODE)
    assert len(digest) == 12
    assert set(kept_names(tmp_path, SERVICE)) == {"one", digest}
    assert kept_code(tmp_path, SERVICE, "one") == kept_code(tmp_path, SERVICE, digest) == CODE
    with pytest.raises(Failed) as failed:
        keep(tmp_path, SERVICE, {**CODE, "__main__.py": b"2"}, "one")
    assert code(failed) == "release/taken"
    assert keep(tmp_path, SERVICE, {**CODE, "__main__.py": b"2"}) != digest


@pytest.mark.parametrize("name", ["../one", ".one", "a b", "x" * 65])
def test_a_name_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Failed) as failed:
        keep(tmp_path, SERVICE, CODE, name)
    assert code(failed) == "release/bad-name"


def test_a_release_that_is_not_here_is_told_with_those_that_are(tmp_path: Path) -> None:
    keep(tmp_path, SERVICE, CODE, "one-1")
    with pytest.raises(Failed) as failed:
        kept_code(tmp_path, SERVICE, "one-2")
    [problem] = failed.value.problems
    assert (problem.code, problem.saw) == ("release/not-here", ("kept: one-1",))
    assert "did you mean `one-1`?" in problem.hint
    assert "deploy service1 --from DIR --release one-2" in problem.hint


def test_only_the_code_of_the_hosts_services_is_needed(tmp_path: Path) -> None:
    mesh = mesh_of(INVENTORY.replace("/service/1}", "/service/1, release: one}"))
    [found] = code_of(tmp_path, mesh.services, mesh.hosts_of(ServiceName("service2"))).values()
    assert "app.py" in found
    with pytest.raises(Failed) as failed:
        code_of(tmp_path, mesh.services, mesh.hosts_of(SERVICE))
    assert code(failed) == "release/not-here"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with three hosts of service1."""
    more = (f"  service1-{n}: {{service: service1, address: 10.77.0.2{n}}}\n" for n in (2, 3))
    (tmp_path / "inventory.yaml").write_text("".join(["provider: existing\n", INVENTORY, *more]))
    return open_workspace(tmp_path / "inventory.yaml")


class Hosts:
    """What takes the place of hosts: it notes which release they were to have, and which were read to go back.

    `kinds` becomes of them first; `again`, of those that are to go back, what is not `CHANGED`.
    """

    def __init__(self, *kinds: OutcomeKind | Problem, again: Mapping[str, OutcomeKind | Problem]) -> None:
        self.kinds, self.again = kinds, again
        self.asked, self.read = list[tuple[str | None, list[str]]](), list[str]()
        self.fleets = list[Fleet]()

    def provision(self, workspace: Workspace, fleet: Fleet, hosts: Sequence[Host], notify: object) -> list[Outcome]:
        self.fleets.append(fleet)
        self.asked.append((workspace.mesh.services[SERVICE].release, [h.name for h in hosts]))
        if self.kinds == (HELD,):
            raise Failed(HELD)
        return [became(h.name, kind) for h, kind in zip(hosts, self.kinds, strict=True)]

    def read_as_before(self, workspace: Workspace, fleet: Fleet, host: HostName) -> str:
        self.read.append(host)
        if self.again.get(host) is HELD:
            raise Failed(HELD)
        return f"as {host} was"

    def made_so(
        self, workspace: Workspace, fleet: Fleet, readings: Mapping[HostName, object], notify: object
    ) -> dict[HostName, Outcome]:
        self.fleets.append(fleet)
        assert not workspace.stop.is_set(), "hosts in hand are seen to their end"
        read = {h: r if isinstance(r, Problem) else self.again.get(h, CHANGED) for h, r in readings.items()}
        return {h: became(h, kind) for h, kind in read.items()}


def became(host: HostName, kind: OutcomeKind | Problem) -> Outcome:
    return failed_outcome(host, kind) if isinstance(kind, Problem) else Outcome(host, kind)


def deployed(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    *kinds: OutcomeKind | Problem,
    again: Mapping[str, OutcomeKind | Problem] = {},
) -> tuple[Hosts, dict[HostName, Outcome]]:
    hosts = Hosts(*kinds, again=again)
    monkeypatch.setattr(deploys, "provision_over", hosts.provision)
    monkeypatch.setattr(deploys, "read_as_before", hosts.read_as_before)
    monkeypatch.setattr(deploys, "made_so", hosts.made_so)
    outcomes = deploys.deploy(workspace, SERVICE, "two", lambda event: None)
    assert len(set(map(id, hosts.fleets))) == 1, "over other connections, another could have taken the locks"
    return hosts, {o.host: o for o in outcomes}


CHANGED, UNCHANGED, NOT_STARTED = OutcomeKind.CHANGED, OutcomeKind.UNCHANGED, OutcomeKind.NOT_STARTED


@pytest.mark.parametrize("kinds", [[CHANGED] * 3, [CHANGED, AWAY, CHANGED], [CHANGED, UNCHANGED, NOT_STARTED]])
def test_the_inventory_has_a_release_that_no_host_failed_with(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, kinds: list[OutcomeKind | Problem]
) -> None:
    hosts, _ = deployed(workspace, monkeypatch, *kinds)
    assert hosts.asked == [("two", ["service1-1", "service1-2", "service1-3"])]
    assert hosts.read == []
    assert open_workspace(workspace.inventory).mesh.services[SERVICE].release == "two"


def test_where_a_host_fails_all_go_back_and_so_does_the_inventory(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = workspace.inventory.read_text()
    workspace.stop.set()  # Ctrl-C was pressed meanwhile
    hosts, outcomes = deployed(workspace, monkeypatch, CHANGED, ILL, NOT_STARTED)
    assert hosts.read == ["service1-1", "service1-2"]
    assert workspace.inventory.read_text() == text
    problems = {host: o.problem for host, o in outcomes.items() if o.problem}
    assert {host: p.code for host, p in problems.items()} == {
        "service1-1": "deploy/taken-back",
        "service1-2": "rollout/not-healthy",
    }
    assert all("; inventory.yaml has no release of service1 again: " in p.now for p in problems.values())


@pytest.mark.parametrize(
    ("again", "saw", "now"),
    [
        (NOT_STARTED, ("not started",), "service1-1: it serves with release two still; "),
        (HELD, ("lock/held: another has it",), "service1-1: it serves with release two still; "),
        (ILL, ("rollout/not-healthy: ", "why"), "given back; "),
    ],
)
def test_a_host_that_did_not_go_back_is_not_told_to_have_done_so(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, again: OutcomeKind | Problem, saw: tuple[str], now: str
) -> None:
    _, outcomes = deployed(workspace, monkeypatch, CHANGED, CHANGED, ILL, again={"service1-1": again})
    problem, of_another = outcomes[HostName("service1-1")].problem, outcomes[HostName("service1-2")].problem
    assert problem is not None
    assert (problem.code, problem.saw) == ("deploy/not-taken-back", saw)
    assert problem.now.startswith(now)
    assert "./mesh rollback --limit service1-1 --to RUN" in problem.hint
    assert of_another is not None
    assert of_another.code == "deploy/taken-back"


def test_where_nothing_could_begin_the_inventory_is_as_it_was(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = workspace.inventory.read_text()
    with pytest.raises(Failed) as failed:
        deployed(workspace, monkeypatch, HELD)
    assert code(failed) == "lock/held"
    assert workspace.inventory.read_text() == text
