"""`--limit @failed`: what the last run has not done, however it ended."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from envoymesh.events import Outcome, OutcomeKind, failed_outcome
from envoymesh.machines.existing import Existing
from envoymesh.model.mesh import HostName
from envoymesh.plan.generation import Run
from envoymesh.problems import ExitCode, Failed, Problem
from envoymesh.run.last_run import begin, not_done, record
from envoymesh.run.workspace import Workspace, limited
from tests.rendering import INVENTORY, mesh_of

A, B, C = (HostName(name) for name in ("front-envoy", "service1-1", "service2-1"))
AWAY = Problem("ssh/unreachable", "no answer", exit_code=ExitCode.UNREACHABLE)
KEPT = "last-run-of-inventory.yaml.json"
RUN = Run(datetime(2026, 1, 1, tzinfo=UTC), "first", "ann@ops", "")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / ".envoymesh").mkdir()
    return Workspace(tmp_path / "inventory.yaml", mesh_of(INVENTORY), Existing(tmp_path), "", RUN)


def test_a_run_that_is_cut_off_leaves_what_it_has_not_done(workspace: Workspace) -> None:
    begin(workspace, [A, B, C])
    assert not_done(workspace) == {A, B, C}
    record(workspace, [Outcome(A, OutcomeKind.UNCHANGED)])
    record(workspace, [Outcome(B, OutcomeKind.CHANGED), failed_outcome(C, AWAY)])
    assert not_done(workspace) == {C}
    record(workspace, [failed_outcome(B, Problem("rollout/not-healthy", ""))])
    assert not_done(workspace) == {B, C}
    assert [path.name for path in workspace.state_dir.iterdir()] == [KEPT]


def test_what_a_run_does_in_two_parts_counts_together_and_another_run_replaces_it(workspace: Workspace) -> None:
    begin(workspace, [A])
    record(workspace, [failed_outcome(A, AWAY)])
    begin(workspace, [B])
    assert not_done(workspace) == {A, B}
    begin(replace(workspace, run=replace(RUN, name="second")), [C])
    assert not_done(workspace) == {C}


def test_two_inventories_in_one_folder_have_a_last_run_each(workspace: Workspace) -> None:
    other = replace(workspace, inventory=workspace.inventory.with_name("staging.yaml"))
    begin(workspace, [A])
    with pytest.raises(Failed, match="run/none-known"):
        not_done(other)
    begin(other, [B])
    assert not_done(workspace) == {A}
    assert not_done(other) == {B}


def test_a_limit_names_them_beside_others(workspace: Workspace) -> None:
    def names(limit: str, failed: set[str]) -> list[str]:
        return [h.name for h in limited(workspace.mesh, limit, lambda: failed)]

    assert names("@failed", {B, "gone"}) == [B]
    assert names("edge, @failed", {C}) == [A, C]
    assert names("@failed", set()) == []
    assert names("", {C}) == [A, B, C]
    with pytest.raises(Failed) as failed:
        names("@faild", {C})
    assert failed.value.problems[0].hint == "did you mean `@failed`?"


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"run": "x", "hosts": []}', "7"])
def test_without_a_run_that_is_known_it_is_a_problem(workspace: Workspace, text: Any) -> None:
    if text is not None:
        (workspace.state_dir / KEPT).write_text(cast("str", text))
    with pytest.raises(Failed) as failed:
        limited(workspace.mesh, "edge,@failed", lambda: not_done(workspace))
    assert failed.value.problems[0].code == "run/none-known"
    assert [h.name for h in limited(workspace.mesh, "edge", lambda: not_done(workspace))] == [A]
    begin(workspace, [A])
    assert not_done(workspace) == {A}
