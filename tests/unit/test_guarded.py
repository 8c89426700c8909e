"""What stops a command: a problem in the format that was asked for, and an honest exit code."""

import json
from functools import partial

import pytest

from envoymesh.cli import guarded
from envoymesh.problems import ExitCode, Failed, Problem
from envoymesh.report.terminal import Terminal


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


@pytest.mark.parametrize("bug", [ValueError("a bug"), ConnectionResetError(104, "reset")])
def test_a_bug_is_not_made_to_look_like_a_problem(bug: Exception) -> None:
    with pytest.raises(type(bug)):
        guarded(partial(stopped_by, bug), Terminal())
