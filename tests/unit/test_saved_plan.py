"""Saved plans: made true as they are, or refused with nothing changed."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from envoymesh.model.mesh import HostName
from envoymesh.plan.generation import Run
from envoymesh.plan.observed import HttpAnswer, Observed
from envoymesh.plan.planner import plan_for
from envoymesh.plan.saved import Known, opened, refuse_what_differs, sealed
from envoymesh.problems import ExitCode, Failed
from envoymesh.report.plan import plan_document
from envoymesh.resources import File, Resource
from envoymesh.run.converge import Reading
from envoymesh.run.plans import read
from envoymesh.run.provision import planned
from tests.rendering import BARE, INVENTORY, NOW, desired_of, files_of, mesh_of, observed_of

AFTER = INVENTORY.replace("/service/2", "/two")
MESH = mesh_of(AFTER)
EDGE, MEMBER = HostName("front-envoy"), HostName("service2-1")
RUN = Run(NOW, "r1", "me@box", "")


def known(change: Mapping[HostName, Callable[[Observed], Observed]] | None = None, text: str = AFTER) -> Known:
    """Return what hosts that have the first inventory need for another one; some of them observed otherwise."""
    found = {}
    for host, resources in desired_of(text).items():
        observed = observed_of(desired_of()[host])
        observed = change[host](observed) if change and host in change else observed
        found[host] = observed, plan_for(host, resources, observed)
    return found


def text_of(of: Known) -> str:
    plan = planned(MESH, {host: Reading(*what) for host, what in of.items()})
    return sealed(plan_document(plan, ExitCode.DRIFT, "./mesh provision --plan p"), MESH, of, RUN)


def refused(text: str, now: Known | None = None) -> tuple[str, str]:
    """Return the code of the problem that a saved plan is refused with, and what was seen; nothing was changed."""
    with pytest.raises(Failed) as failed:
        refuse_what_differs(opened(text, "p.json", MESH), known() if now is None else now)
    [problem] = failed.value.problems
    assert problem.at == "p.json"
    assert problem.now == "nothing was changed"
    assert "./mesh plan --out FILE" in problem.hint
    return problem.code, "\n".join(problem.saw)


def test_a_plan_is_taken_where_nothing_has_moved_and_keeps_who_and_how() -> None:
    saved = opened(text_of(known()), "p.json", MESH)
    refuse_what_differs(saved, known())
    assert set(saved.hosts) == set(MESH.hosts)
    assert (saved.rollout, saved.at) == (MESH.rollout, "p.json")


def moved(by: str) -> tuple[HostName, Callable[[Observed], Observed]]:
    """Return a host, and how it is another one after something was done there."""

    def edited(observed: Observed) -> Observed:
        path = "/etc/envoymesh/front/rds.yaml"
        return replace(observed, paths={**observed.paths, path: replace(observed.paths[path], sha256="0" * 64)})

    def stopped(observed: Observed) -> Observed:
        return replace(observed, units={n: replace(u, active="inactive") for n, u in observed.units.items()})

    def applied(observed: Observed) -> Observed:
        return replace(observed, generation="7.2")

    def loaded(observed: Observed) -> Observed:
        return replace(observed, answers=dict.fromkeys(observed.answers, HttpAnswer(200, "")))

    ways = {"edited": (EDGE, edited), "stopped": (MEMBER, stopped), "applied": (MEMBER, applied)}
    return {**ways, "loaded": (HostName("service1-1"), loaded), "reset": (MEMBER, lambda _: BARE)}[by]


@pytest.mark.parametrize(
    ("by", "saw"),
    [
        ("edited", "front-envoy: something on it was changed by hand, or was started or stopped"),
        ("stopped", "service2-1: something on it was changed by hand, or was started or stopped"),
        ("applied", "service2-1: another apply has changed it"),
        ("loaded", "service1-1: what its Envoy has loaded is not what it was"),
        ("reset", "service2-1: another apply has changed it"),
    ],
)
def test_a_plan_is_refused_once_a_host_has_moved_also_one_that_it_does_not_change(by: str, saw: str) -> None:
    host, change = moved(by)
    assert refused(text_of(known()), known({host: change})) == ("plan/host-moved", saw)


def test_a_host_that_cannot_be_read_now_has_not_moved() -> None:
    now = {host: what for host, what in known().items() if host != EDGE}
    refuse_what_differs(opened(text_of(known()), "p.json", MESH), now)


def test_a_plan_is_refused_once_something_else_is_wanted() -> None:
    other = known(text=INVENTORY.replace("/service/2", "/zwei"))
    assert refused(text_of(known()), other)[0] == "plan/inventory-changed"
    smaller = mesh_of(AFTER.replace("  service2-1: {service: service2, address: 10.77.0.31}\n", ""))
    with pytest.raises(Failed, match="plan/inventory-changed"):
        opened(text_of(known()), "p.json", smaller)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '"x"', '{"saved": 1}', '{"saved": {"format": 1}}', "\x00"])
def test_what_is_no_plan_is_refused(text: str) -> None:
    assert refused(text)[0] == "plan/unreadable"


def test_an_edit_by_hand_is_refused_wherever_it_is() -> None:
    text = text_of(known())
    assert refused(text.replace("its content differs", "why not", 1))[0] == "plan/edited"
    assert refused(text.replace('"canary": 1', '"canary": 0', 1))[0] == "plan/edited"
    assert refused(text.replace(MESH.identifier, "other-1"))[0] == "plan/edited"
    assert refused(text[:-2].rstrip("}\n ")[:-9] + '"}')[0] == "plan/edited"


def test_a_plan_of_another_release_or_mesh_is_refused() -> None:
    text = text_of(known())
    assert refused(text.replace('"format": 1', '"format": 2'))[0] == "plan/unknown-version"
    other = replace(MESH, identifier="other-1234")
    with pytest.raises(Failed) as failed:
        opened(text, "p.json", other)
    assert [p.code for p in failed.value.problems] == ["plan/other-mesh"]
    assert MESH.identifier in failed.value.problems[0].saw[0]


def test_another_certificate_is_another_wish_and_a_plan_tells_no_secret() -> None:
    text = text_of(known())
    secret = next(f for f in files_of(desired_of(AFTER)[EDGE]).values() if f.secret)
    key = [
        line.strip() for line in secret.content.decode().splitlines() if "PRIVATE KEY" not in line and len(line) > 60
    ]
    assert key
    assert not any(line in text for line in key)
    other = replace(secret, content=secret.content + b"\n")
    wanted: tuple[Resource, ...] = tuple(
        other if isinstance(r, File) and r.secret else r for r in desired_of(AFTER)[EDGE]
    )
    observed = observed_of(desired_of()[EDGE])
    now = {**known(), EDGE: (observed, plan_for(EDGE, wanted, observed))}
    assert refused(text, now)[0] == "plan/inventory-changed"


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failed) as failed:
        read(tmp_path / "none.json", MESH)
    [problem] = failed.value.problems
    assert (problem.code, problem.now) == ("plan/unreadable", "nothing was changed")
    assert "No such file" in problem.what


def test_many_hosts_that_moved_are_counted() -> None:
    hosts = "".join(f"  more-{n}: {{service: service1, address: 10.77.0.{n}}}\n" for n in range(100, 107))
    before = {h: (o := observed_of(d), plan_for(h, d, o)) for h, d in desired_of(AFTER + hosts).items()}
    now = {h: (replace(o, generation="8.1"), replace(p, generation="8.1")) for h, (o, p) in before.items()}
    mesh = mesh_of(AFTER + hosts)
    with pytest.raises(Failed) as failed:
        refuse_what_differs(opened(sealed({}, mesh, before, RUN), "p.json", mesh), now)
    [problem] = failed.value.problems
    assert problem.what == "10 hosts moved since this plan was made"
    assert "--limit" not in problem.hint
