"""One writer, and its audit log: what hosts say of locks and changes, and how it is told."""

import base64
import gzip
import json
from datetime import UTC, datetime, timedelta

import pytest

from envoymesh.model.mesh import HostName
from envoymesh.plan.change import Action, Change
from envoymesh.plan.generation import Run
from envoymesh.plan.writer import Entry, Lock
from envoymesh.problems import ExitCode, Failed
from envoymesh.report.audit import audit_json, audit_text
from envoymesh.report.lock import locks_json, locks_text
from envoymesh.run.lock import merged, seconds
from envoymesh.wire.audit import entries_from, entry
from envoymesh.wire.frames import MARK
from envoymesh.wire.lock import held_problem, lock_from, locking, refuse_held

RUN = Run(datetime(2026, 1, 31, 9, 45, 2, tzinfo=UTC), "20260131T094502Z-3fa9", "me@box", "why $(reboot)'\n")
SINCE = datetime(2026, 1, 31, 9, 45, 2, tzinfo=UTC)
LOCK = Lock("r1", "ann@ops", "the night's work", SINCE, SINCE + timedelta(hours=1))


def packed(data: str | bytes) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def said(lock: Lock, kind: str = "held") -> list[str]:
    first = f"12 34 {lock.run} {lock.since.timestamp():.0f} {lock.until.timestamp():.0f}"
    record = json.dumps({"who": lock.who, "why": lock.why})
    return ["noise", f"{MARK}lock {kind} {packed(chr(10).join((first, record)))}"]


def test_a_lock_is_read_as_it_was_kept() -> None:
    assert lock_from(said(LOCK)) == LOCK
    assert lock_from([f"{MARK}end"]) is None


@pytest.mark.parametrize("text", ["", "1 2 3", "1 2 r x y\n{}", '1 2 r 3 4\n["who"]', "1 2 r 3 9999999999999999\n{}"])
def test_a_lock_that_is_being_written_is_of_somebody_unknown(text: str) -> None:
    lock = lock_from([f"{MARK}lock held {packed(text)}"])
    assert lock is not None
    assert lock.who == "unknown"


def test_a_lock_of_another_stops_who_would_change() -> None:
    refuse_held("web", [f"{MARK}end"])
    with pytest.raises(Failed) as failed:
        refuse_held("web", said(LOCK))
    [problem] = failed.value.problems
    assert (problem.code, problem.at) == ("lock/held", "web")
    assert problem.saw == (
        "ann@ops: the night's work",
        "since 2026-01-31 09:45:02 UTC, until 10:45:02 at the latest  (run r1)",
    )
    with pytest.raises(Failed) as failed:
        refuse_held("web", [f"{MARK}lock failed {packed('No space left')}"])
    assert failed.value.problems[0].code == "lock/failed"
    assert failed.value.problems[0].saw == ("No space left",)


def test_locks_of_one_operator_on_many_hosts_are_one_problem() -> None:
    problem = merged({HostName(h): held_problem(h, LOCK) for h in "abc"})
    assert problem.at == "a, b and c"
    assert len(problem.saw) == 2
    assert merged({HostName(f"h{n}"): held_problem(f"h{n}", LOCK) for n in range(50)}).at == "50 hosts"


def test_a_message_reaches_the_host_as_data() -> None:
    assert r"""'{"who": "me@box", "why": "why $(reboot)'"'"'\n"}'""" in locking(RUN, "true\n")


@pytest.mark.parametrize(("text", "value"), [("", 0), ("60", 60), ("60s", 60), ("5m", 300)])
def test_a_wait_is_seconds_or_minutes(text: str, value: float) -> None:
    assert seconds(text, "--lock-wait") == value


@pytest.mark.parametrize("text", ["-1", "x", "1h", "1.5", "9999999", " "])
def test_another_wait_is_a_problem(text: str) -> None:
    with pytest.raises(Failed) as failed:
        seconds(text, "--lock-wait")
    assert failed.value.problems[0].code == "task/bad-argument"


def test_locks_are_a_table_and_json() -> None:
    locks = {HostName("a"): LOCK, HostName("b"): None}
    lines = locks_text(locks, "free").splitlines()
    assert lines[1].startswith("a     ann@ops  2026-01-31 09:45:02  10:45:02  the night's work")
    assert lines[2].split() == ["b", "free"]
    [a, b] = json.loads(locks_json(locks, (), ExitCode.DONE))["hosts"]
    assert a["lock"]["who"] == "ann@ops"
    assert b["lock"] is None


CHANGES = [Change("file:/x", Action.UPDATE, "because")]


def logged(*lines: str) -> list[str]:
    return [f"{MARK}audit {packed(gzip.compress(chr(10).join(lines).encode()))}", f"{MARK}end"]


def line(ending: str = "done", takes_back: int | None = None, minute: int = 0) -> str:
    return f'{{"at": "2026-01-31T09:{minute:02}:00Z", "ending": "{ending}", {entry(RUN, CHANGES, takes_back)[1:]}'


def test_the_log_is_read_and_damaged_lines_are_counted() -> None:
    entries, damaged = entries_from("web", logged(line(), '{"at"', "7", "[]", '{"at": "x"}', line("stuck", 3)))
    assert damaged == 4
    assert [(e.what, e.ending) for e in entries] == [("apply", "done"), ("take-back", "stuck")]
    assert (entries[0].why, entries[0].changes) == (RUN.why, ("update file:/x",))
    assert entries_from("web", [f"{MARK}end"]) == ((), 0)
    with pytest.raises(Failed):
        entries_from("web", [])


def of(minute: int, what: str = "apply", ending: str = "done", why: str = "why") -> Entry:
    return Entry(SINCE + timedelta(minutes=minute), what, ending, "r", "me@box", why, ("update file:/x",))


def test_the_logs_of_all_hosts_are_one_by_time() -> None:
    logs = {
        HostName("front-envoy"): ([of(0), of(3, ending="restored", why="w" * 200)], 2),
        HostName("web"): ([of(1, "take-back"), of(2, "lock release", "released")], 0),
    }
    text = audit_text(logs, 3)
    lines = text.splitlines()
    assert all(len(line) <= 100 for line in lines)
    whens = [line.split()[1] for line in lines if line.startswith("2026-")]
    assert whens == ["09:48:02", "09:47:02", "09:46:02"]
    assert "taken back" in text
    assert lines[-1] == "damaged lines, left out: front-envoy: 2"
    told = json.loads(audit_json(logs, 9, (), ExitCode.DONE))
    assert [e["host"] for e in told["entries"]] == ["front-envoy", "web", "web", "front-envoy"]
    assert told["damaged"] == {"front-envoy": 2}
    assert audit_text({HostName("a"): ((), 0)}, 5) == "no host has noted a change"
