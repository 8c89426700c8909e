"""The report: what is printed for people, and the JSON that says the same."""

import json

import pytest

from envoymesh.events import Event, Outcome, OutcomeKind, exit_code_of, failed_outcome
from envoymesh.model.mesh import HostName
from envoymesh.plan.change import Action, Change
from envoymesh.problems import ExitCode, Problem
from envoymesh.report.terminal import Terminal, outcomes_json

FAILED = Problem("apply/not-stored", "no room", "b  file:/x", ("No space left",), "b: nothing was replaced", "df -h")
AWAY = Problem("ssh/unreachable", "no answer", "c", exit_code=ExitCode.UNREACHABLE)
CHANGE = Change("file:/x", Action.UPDATE, "its content differs", "-old\n+new\n")
OUTCOMES = [
    Outcome(HostName("a"), OutcomeKind.CHANGED, (CHANGE,)),
    failed_outcome(HostName("b"), FAILED),
    failed_outcome(HostName("c"), AWAY),
    Outcome(HostName("d"), OutcomeKind.UNCHANGED),
]


def test_outcomes_are_a_line_for_each_host_and_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().outcomes(OUTCOMES)
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "a                changed      1 change",
        "b                failed       apply/not-stored",
        "c                unreachable  ssh/unreachable",
        "d                unchanged",
        "1 unchanged, 1 changed, 1 failed, 1 unreachable",
    ]
    assert err.splitlines()[:5] == [
        "problem apply/not-stored: no room",
        "  at   b  file:/x",
        "  saw  No space left",
        "  now  b: nothing was replaced",
        "  hint df -h",
    ]


def test_a_plan_is_every_change_with_its_reason_and_diff(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().plan([OUTCOMES[0], OUTCOMES[3]])
    assert capsys.readouterr().out.splitlines() == [
        "a",
        "  ~ update   file:/x  (its content differs)",
        "      -old",
        "      +new",
        "1 change on 1 host; 1 host as desired",
    ]


def test_progress_goes_to_standard_error_and_a_quiet_one_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().notify(Event("a", "booting [bold]not markup[/bold]"))
    Terminal(quiet=True).notify(Event("a", "unheard"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.split(maxsplit=1)[1] == "a                booting [bold]not markup[/bold]\n"


def test_json_says_the_same() -> None:
    document = json.loads(outcomes_json(OUTCOMES, ExitCode.PROBLEM))
    assert document["version"] == 1
    assert document["exit_code"] == 1
    assert [h["outcome"] for h in document["hosts"]] == ["changed", "failed", "unreachable", "unchanged"]
    assert document["hosts"][0]["changes"][0]["because"] == CHANGE.because
    assert document["hosts"][1]["problem"]["now"] == FAILED.now


@pytest.mark.parametrize(
    ("hosts", "code"),
    [([0, 3], ExitCode.DONE), ([0, 2], ExitCode.UNREACHABLE), ([1, 2], ExitCode.PROBLEM), ([], ExitCode.DONE)],
)
def test_a_failed_host_counts_before_one_out_of_reach(hosts: list[int], code: ExitCode) -> None:
    assert exit_code_of([OUTCOMES[i] for i in hosts]) is code
