"""Progress as a table: bounded, however many hosts there are, and drawn in its own place."""

import pytest

from envoymesh.events import Event, EventKind
from envoymesh.report.progress import Board, redrawn


def board(hosts: int, at_work: int = 0, done: int = 0) -> Board:
    """Return the table of a run in which the first hosts are done, the next ones at work, and the others wait."""
    made = Board()
    made.take(Event("", f"reading {hosts} hosts"), 0.0)
    for n in range(hosts):
        made.take(Event(f"service1-{n}", "", EventKind.WAITS), 0.0)
    for n in range(done):
        made.take(Event(f"service1-{n}", "done", EventKind.ENDS), 1.0)
    for n in range(done, done + at_work):
        made.take(Event(f"service1-{n}", "validates validation:sidecar"), 2.0 + n)
    return made


def test_one_host() -> None:
    assert board(1, at_work=1).lines(68.0, 100, 24) == [
        f"{'service1-0  validates validation:sidecar':<94}  1:06",
        "reading 1 hosts",
        f"{'1 at work, 0 waiting, 0 done':<94}  1:08",
    ]


def test_five_hosts() -> None:
    assert [line.rstrip() for line in board(5, at_work=2, done=2).lines(9.0, 60, 24)] == [
        f"{'service1-2  validates validation:sidecar':<54}  0:05",
        f"{'service1-3  validates validation:sidecar':<54}  0:04",
        "reading 5 hosts",
        f"{'2 at work, 1 waiting, 2 done':<54}  0:09",
    ]


def test_two_hundred_hosts_do_not_scroll_the_screen_away() -> None:
    many = board(200, at_work=32, done=100)
    lines = many.lines(500.0, 100, 24)
    assert len(lines) == 16 + 3
    assert lines[0].startswith("service1-100  validates")
    assert lines[-3:-1] == ["… and 16 hosts more at work", "reading 200 hosts"]
    assert lines[-1].startswith("32 at work, 68 waiting, 100 done ")
    for height in (1, 3, 5, 8, 24, 60):
        assert len(many.lines(500.0, 100, height)) < max(height, 5)
    for width in (1, 7, 20, 80, 100, 300):
        assert {len(line) <= min(width, 100) for line in many.lines(500.0, width, 24)} == {True}


def test_a_host_is_shown_while_it_is_at_work_with_what_it_is_at_now() -> None:
    one = board(2)
    assert "0 at work, 2 waiting, 0 done" in one.lines(1.0, 100, 24)[-1]
    one.take(Event("service1-1", "receives artifact:/opt/envoy"), 1.0)
    one.take(Event("service1-1", "", EventKind.SENT, sent=12_000_000, total=40_000_000), 1.5)
    assert one.lines(4.0, 100, 24)[0].startswith("service1-1  receives artifact:/opt/envoy  (12 of 40 MB sent) ")
    assert one.lines(4.0, 100, 24)[0].endswith("  0:03")
    one.take(Event("service1-1", "", EventKind.SENT, sent=40_000_000, total=40_000_000), 5.0)
    one.take(Event("service1-1", "waits for unit:\x1b[2Jenvoymesh-app.service"), 5.0)
    assert one.lines(5.0, 100, 24)[0].split("  ")[1] == "waits for unit: [2Jenvoymesh-app.service"
    one.take(Event("service1-1", "done", EventKind.ENDS), 6.0)
    assert one.lines(6.0, 100, 24)[-1].startswith("0 at work, 1 waiting, 1 done")
    one.take(Event("service1-1", "is not healthy: its change is taken back"), 7.0)
    assert one.lines(7.0, 100, 24)[-1].startswith("1 at work, 1 waiting, 0 done")


@pytest.mark.parametrize(
    ("before", "lines", "written"),
    [
        (0, [], ""),
        (0, ["a", "b"], "\x1b[Ja\nb\n"),
        (2, ["c"], "\x1b[2F\x1b[Jc\n"),
        (2, [], "\x1b[2F\x1b[J"),
    ],
)
def test_it_is_drawn_over_what_was_drawn_and_leaves_nothing(before: int, lines: list[str], written: str) -> None:
    assert redrawn(before, lines) == written
