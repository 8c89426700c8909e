"""Deploy: which code is a release, and what becomes of hosts and inventory when one of them fails."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from envoymesh.events import Outcome, OutcomeKind, failed_outcome
from envoymesh.model.mesh import Host, HostName, ServiceName
from envoymesh.problems import ExitCode, Failed, Problem
from envoymesh.run import deploy as deploys
from envoymesh.run.releases import code_of, keep, kept_code, kept_names, package_in
from envoymesh.run.workspace import Workspace, open_workspace
from tests.rendering import INVENTORY, mesh_of

SERVICE = ServiceName("service1")
CODE = {"__main__.py": b"1", "requirements.txt": b"", "parts/one.txt": b"\xff"}
ILL = Problem("rollout/not-healthy", "", now="given back")
AWAY = Problem("ssh/unreachable", "", exit_code=ExitCode.UNREACHABLE)
HELD = Problem("lock/held", "")


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


class Provisions:
    """What takes the place of `provision`: it notes which release it was asked for on which hosts."""

    def __init__(self, *kinds: OutcomeKind | Problem) -> None:
        self.kinds, self.asked = kinds, list[tuple[str | None, list[str]]]()

    def __call__(self, workspace: Workspace, hosts: Sequence[Host], notify: object) -> list[Outcome]:
        self.asked.append((workspace.mesh.services[SERVICE].release, [h.name for h in hosts]))
        if self.kinds == (HELD,):
            raise Failed(HELD)
        kinds = self.kinds if len(self.asked) == 1 else [OutcomeKind.CHANGED] * len(hosts)
        return [
            failed_outcome(h.name, kind) if isinstance(kind, Problem) else Outcome(h.name, kind)
            for h, kind in zip(hosts, kinds, strict=True)
        ]


def deployed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, *kinds: OutcomeKind | Problem
) -> tuple[Provisions, dict[HostName, Outcome]]:
    provisions = Provisions(*kinds)
    monkeypatch.setattr(deploys, "provision", provisions)
    outcomes = deploys.deploy(workspace, SERVICE, "two", lambda event: None)
    return provisions, {o.host: o for o in outcomes}


CHANGED, UNCHANGED, NOT_STARTED = OutcomeKind.CHANGED, OutcomeKind.UNCHANGED, OutcomeKind.NOT_STARTED


@pytest.mark.parametrize("kinds", [[CHANGED] * 3, [CHANGED, AWAY, CHANGED], [CHANGED, UNCHANGED, NOT_STARTED]])
def test_the_inventory_has_a_release_that_no_host_failed_with(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, kinds: list[OutcomeKind | Problem]
) -> None:
    provisions, _ = deployed(workspace, monkeypatch, *kinds)
    assert provisions.asked == [("two", ["service1-1", "service1-2", "service1-3"])]
    assert open_workspace(workspace.inventory).mesh.services[SERVICE].release == "two"


def test_where_a_host_fails_all_go_back_and_so_does_the_inventory(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = workspace.inventory.read_text()
    provisions, outcomes = deployed(workspace, monkeypatch, CHANGED, ILL, NOT_STARTED)
    assert provisions.asked[1] == (None, ["service1-1", "service1-2"])
    assert workspace.inventory.read_text() == text
    problems = {host: o.problem for host, o in outcomes.items() if o.problem}
    assert {host: p.code for host, p in problems.items()} == {
        "service1-1": "deploy/taken-back",
        "service1-2": "rollout/not-healthy",
    }
    assert all(p.now.endswith("; inventory.yaml has no release of service1 again") for p in problems.values())


def test_where_nothing_could_begin_the_inventory_is_as_it_was(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = workspace.inventory.read_text()
    with pytest.raises(Failed) as failed:
        deployed(workspace, monkeypatch, HELD)
    assert code(failed) == "lock/held"
    assert workspace.inventory.read_text() == text
