"""Generations: what a host keeps of a run, and which one is gone back to."""

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envoymesh.model.mesh import HostName
from envoymesh.plan.change import Action, Change
from envoymesh.plan.generation import Generation, Run, after, before, last_run, run_named
from envoymesh.problems import ExitCode, Failed
from envoymesh.report.history import history_json, history_text
from envoymesh.resources import Directory, File, Resource, Unit, User, Validation
from envoymesh.wire.frames import MARK
from envoymesh.wire.generation import about, content_from, decoded, encoded, generations_from
from tests.rendering import desired_of

START = datetime(2026, 1, 31, 9, 45, 2, tzinfo=UTC)
RUNS = [Run(START + timedelta(hours=n), f"r{n}", "me@box", f"why {n}") for n in range(5)]


def kept(*numbers: int) -> tuple[Generation, ...]:
    return tuple(Generation(i + 1, RUNS[n], (f"update file:/{n}",)) for i, n in enumerate(numbers))


def told(resources: Sequence[Resource]) -> list[Resource | tuple[Resource, bytes]]:
    """Return resources with the content that a validation would make."""
    return [(r, r.content()) if isinstance(r, Validation) else r for r in resources]


@pytest.mark.parametrize("host", ["front-envoy", "service1-1"])
def test_what_a_host_is_to_have_survives(host: str) -> None:
    resources = desired_of()[HostName(host)]
    assert told(decoded(encoded(resources))) == told(resources)
    assert encoded(resources) == encoded(decoded(encoded(resources)))


@given(st.text(), st.binary(), st.text(), st.booleans())
def test_any_name_and_any_content_survive(name: str, content: bytes, path: str, secret: bool) -> None:
    resources = (User(name), Directory(path), File(path, content, owner=name, secret=secret))
    assert decoded(encoded(resources)) == resources


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        encoded((User("x"),))[:-9],
        gzip.compress(b"{"),
        gzip.compress(b"7"),
        gzip.compress(b'["x"]'),
        encoded((User("x"),))[:12] + b"\0\0\0" + encoded((User("x"),))[15:],
        gzip.compress(json.dumps([{"Robot": {"name": "x"}}]).encode()),
        gzip.compress(json.dumps([{"User": {"name": "x", "home": "/"}}]).encode()),
        gzip.compress(json.dumps([{"User": {"name": "x"}, "more": 1}]).encode()),
        gzip.compress(json.dumps([{"File": {"path": "x", "content": {"bytes": "?"}}}]).encode()),
    ],
)
def test_what_is_damaged_or_of_another_release_is_a_problem(content: bytes) -> None:
    with pytest.raises(Failed) as failed:
        content_from("web", 3, [f"{MARK}content {base64.b64encode(content).decode()}"])
    [problem] = failed.value.problems
    assert (problem.code, problem.at) == ("history/damaged", "web")
    assert "generation 3" in problem.what


@given(st.text(), st.text())
def test_what_is_kept_of_a_run_survives(why: str, who: str) -> None:
    run = Run(START, "r", who, why)
    text = about(run, [Change("file:/x", Action.UPDATE, "because")])
    line = f"{MARK}generation 7 {base64.b64encode(text.encode()).decode()}"
    assert generations_from("web", ["noise", line, f"{MARK}end"]) == (Generation(7, run, ("update file:/x",)),)


def test_generations_are_in_the_order_of_their_numbers() -> None:
    text = base64.b64encode(about(RUNS[0], []).encode()).decode()
    lines = [f"{MARK}generation {n} {text}" for n in (10, 9, 11)]
    assert [g.number for g in generations_from("web", [*lines, f"{MARK}end"])] == [9, 10, 11]


def test_a_list_that_ends_early_is_a_problem() -> None:
    with pytest.raises(Failed) as failed:
        generations_from("web", [f"{MARK}generation 1 e30="])
    assert failed.value.problems[0].code == "history/damaged"


@pytest.mark.parametrize("text", ["", "x", "{}", "7", '{"at": "now", "name": "", "who": "", "why": "", "changes": []}'])
def test_a_generation_that_does_not_tell_its_run_is_left_out(text: str) -> None:
    frames = [base64.b64encode(t.encode()).decode() for t in (text, about(RUNS[0], []))]
    lines = [f"{MARK}generation {n} {frame}" for n, frame in enumerate(frames)]
    assert [g.number for g in generations_from("web", [*lines, f"{MARK}end"])] == [1]


def test_back_is_before_a_run_or_as_a_run_left_it() -> None:
    host = kept(0, 2, 3)
    assert before(host, RUNS[3]) is host[1]
    assert before(host, RUNS[4]) is host[2]
    assert before(host, RUNS[0]) is None
    assert after(host, RUNS[3]) is host[2]
    assert after(host, RUNS[1]) is host[0]
    assert after(kept(2, 3), RUNS[1]) is None


def test_the_order_on_the_host_counts_more_than_the_clocks() -> None:
    ahead, behind = RUNS[4], RUNS[2]
    host = tuple(Generation(i + 1, run, ()) for i, run in enumerate((RUNS[0], ahead, behind)))
    assert before(host, behind) is host[1]
    assert before(host, ahead) is host[0]
    assert after(host, ahead) is host[1]


def test_the_last_run_is_that_of_any_host() -> None:
    hosts = {HostName("a"): kept(0, 1), HostName("b"): kept(0, 1, 3), HostName("c"): ()}
    assert last_run(hosts) == RUNS[3]
    assert last_run({HostName("c"): ()}) is None
    ahead, behind = RUNS[4], RUNS[2]
    order = tuple(Generation(i + 1, run, ()) for i, run in enumerate((RUNS[0], ahead, behind)))
    assert last_run({HostName("a"): order, HostName("b"): order[:2]}) == behind
    assert run_named(hosts, "r1") == RUNS[1]
    assert run_named(hosts, "r2") is None


def test_a_run_with_several_generations_of_a_host_is_one_run_which_ended_with_the_last_of_them() -> None:
    host = kept(0, 3, 3)
    assert last_run({HostName("a"): host, HostName("b"): kept(0, 2)}) == RUNS[3]
    assert before(host, RUNS[3]) is host[0]
    assert after(host, RUNS[3]) is host[2]


def test_history_is_a_table_of_runs_the_last_one_first() -> None:
    long = replace(RUNS[3], name="20260131T124502Z-3fa9", who="somebody@a-box-with-a-long-name", why="w" * 90)
    hosts = {HostName("front-envoy"): (*kept(0), Generation(2, long, ("x", "y"))), HostName("service1-1"): kept(0)}
    lines = history_text(hosts).splitlines()
    assert lines[0].split() == ["RUN", "WHO", "HOSTS:", "CHANGES", "WHY"]
    assert "front-envoy: 2" in lines[1]
    assert all(len(line) <= 100 for line in lines)
    assert next(line for line in lines if line.startswith("r0")).split()[:4] == ["r0", "me@box", "front-envoy:", "1,"]
    assert lines[-1].startswith("before the last run: ./mesh rollback ")
    odd = replace(RUNS[0], why="red \x1b[31m, \udce9, :rocket:\nand [bold]more")
    told = history_text({HostName("a"): (Generation(1, odd, ()),)})
    assert "red  [31m,  , :rocket: and [bold]more" in told
    many = {HostName(f"h{n}"): kept(0) for n in range(200)}
    assert "200 hosts: 200 changes" in history_text(many)
    assert history_text({HostName("a"): ()}) == "no host keeps what a run made of it"


def test_history_as_json_tells_what_the_table_does() -> None:
    document = json.loads(history_json({HostName("web"): kept(0, 1)}, (), ExitCode.DONE))
    assert (document["version"], document["exit_code"], document["problems"]) == (1, 0, [])
    first = document["runs"][0]
    assert (first["run"], first["who"], first["why"], first["at"]) == (
        "r1",
        "me@box",
        "why 1",
        "2026-01-31T10:45:02+00:00",
    )
    assert first["hosts"] == {"web": {"generation": 2, "changes": ["update file:/1"]}}


def test_a_unit_and_its_probe_survive() -> None:
    units = [r for r in desired_of()[HostName("front-envoy")] if isinstance(r, Unit)]
    assert decoded(encoded(units)) == tuple(units)
    assert units[0].probe.stats
