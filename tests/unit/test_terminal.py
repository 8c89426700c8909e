"""The report: what is printed for people, and the JSON that says the same."""

import pytest

from envoymesh.events import Event
from envoymesh.report.terminal import Terminal


def test_progress_goes_to_standard_error_and_a_quiet_one_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().notify(Event("a", "booting [bold]not markup[/bold]"))
    Terminal(quiet=True).notify(Event("a", "unheard"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.split(maxsplit=1)[1] == "a                booting [bold]not markup[/bold]\n"
