"""The wire: frames among noise, and what an apply's output means."""

import base64
from datetime import UTC, datetime

import pytest

from envoymesh.model.mesh import HostName
from envoymesh.plan.change import Action, Change, HostPlan
from envoymesh.plan.generation import Run
from envoymesh.problems import Failed
from envoymesh.resources import Directory, File, Probe, Resource, Unit
from envoymesh.run.converge import apply_problem
from envoymesh.wire.apply import payload_for
from envoymesh.wire.frames import MARK, frames_from
from envoymesh.wire.gather import gather_script, http_answer, observed_from
from envoymesh.wire.generation import encoded

NASTY = "/etc/a b'\"$(reboot)`id`;&|\\é"
FILE = File(NASTY, b"\x00\xff" * 300)
PLAN = HostPlan(
    HostName("web"), "7.1", (Change(FILE.address, Action.CREATE, "", resource=FILE),), (FILE.address,), (FILE,), {}
)

RUN = Run(datetime(2026, 1, 31, 9, 45, 2, tzinfo=UTC), "20260131T094502Z-3fa9", "me@box", NASTY)
PAYLOAD = payload_for(PLAN, RUN, {})
STAGE = next(i for i, call in enumerate(PAYLOAD.calls) if call.verb == "stage")
GATHERED = [f"{MARK}platform x86_64 2.36 3.11", f"{MARK}manifest  "]
STATES = ["LoadState=loaded", "ActiveState=active", "SubState=running", "UnitFileState=enabled", "NeedDaemonReload=yes"]


def packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_frames_are_found_among_whatever_a_login_prints() -> None:
    lines = ["Welcome!", f"{MARK}platform x86_64 2.36 3.11", "EM end", f"{MARK}end"]
    assert [f.kind for f in frames_from(lines)] == ["platform", "end"]


def test_an_answer_that_ends_early_says_nothing_about_the_host() -> None:
    with pytest.raises(Failed) as failed:
        observed_from("web", [f"{MARK}platform x86_64 2.36 3.11"], ())
    assert failed.value.problems[0].code == "host/gather"


@pytest.mark.parametrize(
    "line",
    ["path 7 755:root:root:directory", "path 0 755:root", "unit Id=x.service", "artifact 3 abc", "platform"],
)
def test_an_answer_that_makes_no_sense_is_a_problem_of_that_host(line: str) -> None:
    lines = [*GATHERED, f"{MARK}{line}", f"{MARK}end"]
    if line == "platform":
        del lines[0], lines[1]
    with pytest.raises(Failed) as failed:
        observed_from("web", lines, (FILE,))
    assert failed.value.problems[0].code == "host/gather"
    assert failed.value.problems[0].saw


def test_names_in_scripts_are_words_never_syntax() -> None:
    script = gather_script((FILE, Directory(NASTY)))
    quoted = "'/etc/a b'\"'\"'\"$(reboot)`id`;&|\\é'"
    assert f"directories {quoted}\npaths {quoted}\n" in script
    head = b"".join(PAYLOAD.stream()).split(b"\n", 1)[1]
    assert f"stage {quoted} root root 0644 600 {FILE.sha256} || abort".encode() in head


def test_a_unit_serves_before_anything_refers_to_it_and_the_one_before_it_ends_last() -> None:
    unit = Unit("app-2.service", "s", Probe(80, "/", address="127.7.7.7"), replaces="app")
    units = [File(f"/etc/systemd/system/{name}", b"") for name in (unit.name, "envoy.service")]
    files = (*units, File("/etc/eds.yaml", b""))
    changes = [Change(r.address, Action.CREATE, "", resource=r) for r in files]
    changes.append(Change(unit.address, Action.START, "", resource=unit))
    changes += [Change(f"unit:{name}", Action.DELETE, "") for name in ("app-1.service", "other.service")]
    envoy = Unit("envoy.service", "s", Probe(8001, "/ready"))
    wanted: tuple[Resource, ...] = (*files, unit, envoy)
    plan = HostPlan(HostName("web"), "7.1", tuple(changes), tuple(r.address for r in wanted), wanted, {})
    words = [call.words for call in payload_for(plan, RUN, {}).calls]
    live = [w for w in words[words.index(next(w for w in words if w[0] == "commit")) :] if w[0] != "remember"]
    assert live == [
        ("commit", units[0].path, units[1].path),
        ("reload",),
        ("restart", "app-2.service"),
        ("ready", "app-2.service", "127.7.7.7/80", "/", "60"),
        ("commit",),
        ("remove_unit", "other.service"),
        ("ready", "envoy.service", "127.0.0.1/8001", "/ready", "60"),
        ("settle",),
        ("keep", "5"),
        ("await_idle", "app-1.service", "316"),
        ("remove_unit", "app-1.service"),
    ]


def test_what_takes_back_is_no_generation_and_forgets_the_one_that_there_is() -> None:
    assert about_generations(None) == ["generation", "keep"]
    assert about_generations(7) == ["drop"]
    assert about_generations(0) == []


def about_generations(takes_back: int | None) -> list[str]:
    calls = payload_for(PLAN, RUN, {}, takes_back=takes_back).calls
    return [call.verb for call in calls if call.address == "host:generation"]


def test_the_stream_announces_its_calls_and_ends_with_the_content() -> None:
    stream = b"".join(PAYLOAD.stream())
    length, rest = stream.split(b"\n", 1)
    calls, content = rest[: int(length)], rest[int(length) :]
    assert calls.endswith(b"finish done")
    assert content == FILE.content + encoded((FILE,))


@pytest.mark.parametrize(
    ("end", "now"),
    [("refused", "nothing was replaced"), ("restored", "was put back"), ("stuck", "could not be put back")],
)
def test_a_failed_apply_says_what_is_live_now(end: str, now: str) -> None:
    lines = [
        f"{MARK}at {STAGE}",
        f"{MARK}problem apply/not-stored {STAGE} {packed('No space left')}",
        f"{MARK}end {end}",
    ]
    problem = apply_problem(PAYLOAD, lines)
    assert problem is not None
    assert (problem.code, problem.at, problem.saw) == ("apply/not-stored", f"web  {FILE.address}", ("No space left",))
    assert now in problem.now
    assert problem.hint


def test_an_apply_without_an_end_is_a_failure() -> None:
    assert apply_problem(PAYLOAD, [f"{MARK}at 0"]) is not None
    assert apply_problem(PAYLOAD, [f"{MARK}end done"]) is None


def test_the_end_of_a_manifest_that_was_cut_off_is_no_address() -> None:
    """It could be that of something else: a folder above the one that was meant."""
    managed = packed("user:x\0directory:/opt/x\0artifact:/opt/x")
    lines = [f"{MARK}platform x86_64 2.36 3.11", f"{MARK}manifest 7.1 {managed}", f"{MARK}end"]
    assert observed_from("web", lines, ()).manifest == {"user:x", "directory:/opt/x"}


def test_chunked_answers_are_put_together() -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n"
    assert (http_answer(raw).status, http_answer(raw).body) == (200, "hello, world")
    assert http_answer(b"HTTP/1.1 503 Nope\r\n\r\nbusy").status == 503
    assert http_answer(b"").status is None


def test_names_of_owners_may_have_blanks() -> None:
    lines = [*GATHERED, f"{MARK}path 0 640:root:domain  users:regular empty file", f"{MARK}end"]
    seen = observed_from("web", lines, (FILE,)).paths[NASTY]
    assert (seen.owner, seen.group, seen.kind) == ("root", "domain  users", "regular file")


def test_a_unit_is_told_with_the_stamp_of_what_runs_or_none() -> None:
    running = ["MainPID=7", "ENVOYMESH_STAMP=abc", "ENVOYMESH_TAKEOVER=x", "Id=a.service", *STATES]
    texts = [*running, "", "MainPID=0", "Id=b.service", *STATES]
    units = observed_from("web", [*GATHERED, *(f"{MARK}unit {text}" for text in texts), f"{MARK}end"], ()).units
    told = {name: (unit.stamp, unit.takeover) for name, unit in units.items()}
    assert told == {"a.service": ("abc", "x"), "b.service": ("", "")}
    assert units["b.service"].needs_reload
