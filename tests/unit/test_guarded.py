"""What stops a command: a problem in the format that was asked for, and an honest exit code."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from invoke import Context, Exit

from envoymesh import cli
from envoymesh.cli import guarded
from envoymesh.events import failed_outcome
from envoymesh.model.mesh import HostName
from envoymesh.problems import ExitCode, Failed, Problem, of_inventory
from envoymesh.report.terminal import Terminal
from tests.conventions.test_tasks import afresh


def stopped_by(error: BaseException) -> ExitCode:
    raise error


AWAY = Failed(Problem("ssh/unreachable", "no answer", "a", exit_code=ExitCode.UNREACHABLE))


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (AWAY, "ssh/unreachable", 4),
        (KeyboardInterrupt(), "run/interrupted", 1),
        (PermissionError(13, "Permission denied", "/x/.envoymesh/lock"), "box/file", 1),
        (OSError(28, "No space left on device"), "box/file", 1),
    ],
)
def test_what_stops_a_command_is_a_problem_or_one_json_document(
    error: BaseException, code: str, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(partial(stopped_by, error), Terminal()) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"problem {code}: ")
    assert guarded(partial(stopped_by, error), Terminal(json=True)) == exit_code
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    assert (document["version"], document["exit_code"]) == (1, exit_code)
    assert [problem["code"] for problem in document["problems"]] == [code]


@pytest.mark.parametrize(("count", "code"), [(3, "task/bad-argument"), (0, "task/bad-argument"), (1, "inventory/")])
def test_hosts_that_exist_are_added_one_by_one(tmp_path: Path, count: int, code: str) -> None:
    with pytest.raises(Failed, match=code):
        cli.add_service_host(str(tmp_path / "none.yaml"), "service1", count, ("a", "10.0.0.1"), "", terminal=Terminal())


@pytest.mark.parametrize("bug", [ValueError("a bug"), ConnectionResetError(104, "reset")])
def test_a_bug_is_not_made_to_look_like_a_problem(bug: Exception) -> None:
    with pytest.raises(type(bug)):
        guarded(partial(stopped_by, bug), Terminal())


@pytest.mark.parametrize(
    ("text", "as_pasted"),
    [
        ("./mesh reboot a,b", "./mesh reboot --inventory 'my mesh.yaml' a,b"),
        ("./mesh exec a 'x'    then: ./mesh plan", None),
        ("./mesh vagrant-box", "./mesh vagrant-box"),
        ("chmod 600 key", "chmod 600 key"),
    ],
)
def test_a_command_that_is_shown_is_for_the_inventory_that_was_used(text: str, as_pasted: str | None) -> None:
    assert of_inventory(text, "inventory.yaml") == text
    its = of_inventory(text, "my mesh.yaml")
    assert its == as_pasted or its.count("--inventory 'my mesh.yaml'") == text.count("./mesh")


def test_the_way_out_of_a_problem_is_for_the_inventory_of_the_task(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = afresh()
    monkeypatch.setattr(tasks, "_loaded", lambda: cli)  # it changes how this process loads modules
    for inventory, command in (
        ("staging.yaml", "./mesh reboot --inventory staging.yaml '*'"),
        ("inventory.yaml", "./mesh reboot '*'"),
    ):
        with pytest.raises(Exit):
            tasks.reboot(Context(), hosts="", inventory=inventory)
        assert capsys.readouterr().err.endswith(f"hint all of them: {command}\n")


def test_what_follows_a_run_is_for_its_inventory(capsys: pytest.CaptureFixture[str]) -> None:
    away = failed_outcome(HostName("a"), replace(AWAY.problems[0], hint="./mesh plan --limit a"))
    code = cli._show([away], Terminal(inventory="staging.yaml"), "./mesh reboot a")
    out, err = capsys.readouterr()
    assert code is ExitCode.UNREACHABLE
    assert out.endswith("next: ./mesh reboot --inventory staging.yaml a\n")
    assert err.endswith("hint ./mesh plan --inventory staging.yaml --limit a\n")
