"""Authority: whose certificate a front has is not changed by who does not know that authority."""

from dataclasses import replace

import pytest

from envoymesh.certificates import make_authority, make_successor
from envoymesh.model.mesh import HostName
from envoymesh.plan.planner import plan_for
from envoymesh.problems import ExitCode, Failed, Problem
from envoymesh.resources import File
from envoymesh.run.authority import refuse_another, refuse_successor
from envoymesh.run.converge import Reading
from roles import AUTHORITY
from tests.rendering import BARE, NOW, authority, desired_of, observed_of

EDGE, MEMBER = HostName("front-envoy"), HostName("service1-1")


def read_with(there: bytes | None, ours: bytes | None = None) -> dict[HostName, Reading]:
    """Return readings of a mesh whose edge has an authority's certificate; with None, what it is to have: `ours`."""
    readings = {}
    for host in (EDGE, MEMBER):
        desired = desired_of()[host]
        if ours is not None:
            desired = tuple(
                replace(r, content=ours) if isinstance(r, File) and r.path == AUTHORITY else r for r in desired
            )
        observed = observed_of(desired)
        if host == EDGE:
            found = replace(observed.paths[AUTHORITY], content=there, sha256="" if there else None)
            observed = replace(observed, paths={**observed.paths, AUTHORITY: found})
        readings[host] = Reading(observed, plan_for(host, desired, observed))
    return readings


def test_what_is_of_this_authority_or_was_never_made_may_be_changed() -> None:
    refuse_another(read_with(None))
    refuse_another(read_with(authority().chain))
    refuse_another({EDGE: Reading(BARE, plan_for(EDGE, desired_of()[EDGE], BARE))})


@pytest.mark.parametrize("other", ["another", "its successor"])
def test_what_is_of_another_one_is_refused_with_both_and_the_way_out(other: str) -> None:
    there = make_authority("test", NOW) if other == "another" else make_successor(authority(), "test", NOW)
    with pytest.raises(Failed) as failed:
        refuse_another(read_with(there.chain))
    [problem] = failed.value.problems
    assert problem.code == "certificate/other-authority"
    assert len({line.split()[1] for line in problem.saw}) == 2
    assert "nothing was changed" in problem.now
    assert "ca-key.pem" in problem.hint
    assert f"./mesh exec front-envoy 'rm {AUTHORITY}'" in problem.hint


def test_an_authority_gets_a_successor_once_every_front_has_it_or_none() -> None:
    refuse_successor(read_with(None))
    refuse_successor(read_with(authority().chain))
    refuse_successor({EDGE: Reading(BARE, plan_for(EDGE, desired_of()[EDGE], BARE))})


@pytest.mark.parametrize(("ours", "code"), [("its successor", "authority-behind"), ("another", "other-authority")])
def test_an_authority_that_a_front_does_not_have_gets_no_successor(ours: str, code: str) -> None:
    here = make_authority("test", NOW) if ours == "another" else make_successor(authority(), "test", NOW)
    with pytest.raises(Failed) as failed:
        refuse_successor(read_with(authority().chain, here.chain))
    [problem] = failed.value.problems
    assert problem.code == f"certificate/{code}"
    assert "nothing was changed" in problem.now
    if ours == "its successor":
        refuse_another(read_with(authority().chain, here.chain))
        assert problem.hint.startswith("./mesh provision ")


def test_an_authority_gets_no_successor_while_a_front_is_out_of_reach() -> None:
    away = Problem("ssh/unreachable", "no answer", EDGE, hint="ping", exit_code=ExitCode.UNREACHABLE)
    with pytest.raises(Failed) as failed:
        refuse_successor({**read_with(None), EDGE: away})
    [problem] = failed.value.problems
    assert (problem.code, problem.hint, problem.exit_code) == ("ssh/unreachable", "ping", ExitCode.UNREACHABLE)
    assert "nothing was changed" in problem.now
