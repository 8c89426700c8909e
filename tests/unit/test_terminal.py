"""The report: what is printed for people, and the JSON that says the same."""

import json
from typing import Any

import pytest

from envoymesh.events import Event, EventKind, Outcome, OutcomeKind, end_of, failed_outcome
from envoymesh.model.mesh import HostName
from envoymesh.problems import Problem
from envoymesh.report.terminal import Terminal


def test_progress_goes_to_standard_error_and_a_quiet_one_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().notify(Event("a", "booting [bold]not markup[/bold]"))
    Terminal(quiet=True).notify(Event("a", "unheard"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.split(maxsplit=1)[1] == "a                booting [bold]not markup[/bold]\n"


def told(capsys: pytest.CaptureFixture[str], **how: Any) -> list[str]:
    """Return the lines of progress for a host that is read and gets 40 MB, without the times of plain ones."""
    terminal = Terminal(**how)
    for event in (
        Event("a", "connects", minor=True),
        Event("a", "", EventKind.WAITS, minor=True),
        Event("a", "receives x"),
        Event("a", "12 of 40 MB sent", EventKind.SENT, minor=True, sent=12_000_000, total=40_000_000),
        end_of(Outcome(HostName("a"), OutcomeKind.CHANGED)),
        end_of(failed_outcome(HostName("b"), Problem("apply/not-stored", "no room"))),
        end_of(Outcome(HostName("d"), OutcomeKind.UNCHANGED)),
    ):
        terminal.notify(event)
    out, err = capsys.readouterr()
    assert out == ""
    return [line if how.get("json") else line[8:] for line in err.splitlines()]


def test_lines_tell_what_takes_long_and_every_step_where_that_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        "a                receives x",
        "a                done",
        "b                failed: apply/not-stored",
    ]
    assert told(capsys) == lines
    assert told(capsys, verbose=True) == [
        "a                connects",
        lines[0],
        "a                12 of 40 MB sent",
        *lines[1:],
        "d                unchanged",
    ]


def test_json_progress_is_a_document_a_line_for_each_event(capsys: pytest.CaptureFixture[str]) -> None:
    documents = [json.loads(line) for line in told(capsys, json=True)]
    assert [d["kind"] for d in documents] == ["step", "waits", "step", "sent", "ends", "ends", "ends"]
    assert all(d["seconds"] >= 0 for d in documents)
    assert documents[2] | {"seconds": 0} == {"seconds": 0, "host": "a", "kind": "step", "text": "receives x"}
    assert (documents[3]["sent"], documents[3]["total"]) == (12_000_000, 40_000_000)
    assert told(capsys, json=True, quiet=True) == []
