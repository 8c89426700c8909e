"""Rollout: which hosts change together, and what each goes back to."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envoymesh.model.inventory import rollout_with
from envoymesh.model.mesh import HostName, Mesh, Rollout
from envoymesh.plan.change import Action, Change, HostPlan
from envoymesh.plan.generation import Generation, Run
from envoymesh.plan.rollout import batches, concerns_clients, size_of
from envoymesh.problems import Failed
from envoymesh.resources import Artifact, Directory, File, Unit, User
from envoymesh.run import rollout as rollouts
from envoymesh.run.converge import Reading
from envoymesh.run.fleet import Fleet
from envoymesh.run.rollout import read_as_before
from envoymesh.run.workspace import Workspace, open_workspace
from tests.rendering import BARE, INVENTORY, desired_of, mesh_of

HEAD = "name: x\nprovider: existing\nservices: {a: {path: /a}, b: {path: /b}}\n"


def mesh(a: int, b: int, edges: int = 1, rollout: str = "{}") -> Mesh:
    names = [("role: edge", f"edge-{n}") for n in range(edges)]
    names += [(f"service: {name}", f"{name}-{n}") for name, many in (("a", a), ("b", b)) for n in range(many)]
    hosts = "".join(
        f"  {name}: {{{role}, address: 10.0.{n // 200}.{n % 200 + 1}}}\n" for n, (role, name) in enumerate(names)
    )
    return mesh_of(f"{HEAD}rollout: {rollout}\nhosts:\n{hosts}")


HostsKeep = Callable[..., tuple[Workspace, Fleet]]


@pytest.fixture
def hosts_keep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HostsKeep:
    """Return what makes hosts keep generations of these runs, and gives the workspace of a run called `now`."""

    def make(*names: str) -> tuple[Workspace, Fleet]:
        (tmp_path / "inventory.yaml").write_text(f"provider: existing\n{INVENTORY}")
        opened = open_workspace(tmp_path / "inventory.yaml")
        workspace = replace(opened, run=replace(opened.run, name="now"))
        kept = tuple(Generation(n, replace(opened.run, name=name), ()) for n, name in enumerate(names, 1))
        monkeypatch.setattr(rollouts, "kept_by", lambda fleet, host: kept)
        monkeypatch.setattr(rollouts, "had", lambda fleet, host, number: (User(f"as {number}"),))
        monkeypatch.setattr(rollouts, "read", reading_of)
        return workspace, workspace.fleet(())

    return make


def reading_of(fleet: Fleet, host: HostName, resources: Sequence[User], run: Run) -> Reading:
    return Reading(BARE, HostPlan(host, "", (), (), tuple(resources), {}), lock=run.name)


def told(of: Mesh, changing: Collection[HostName], serving: Collection[HostName]) -> list[str]:
    return [" ".join(batch) for batch in batches(of, changing, serving)]


def test_where_nothing_serves_all_change_at_once() -> None:
    new = mesh(2, 1, edges=2)
    [together] = told(new, set(new.hosts), ())
    assert sorted(together.split()) == ["a-0", "a-1", "b-0", "edge-0", "edge-1"]


def test_new_hosts_of_a_mesh_that_serves_change_at_once_service_hosts_first() -> None:
    grown = mesh(2, 1, edges=2)
    assert told(grown, set(grown.hosts), {HostName("b-0")}) == ["a-0 a-1", "b-0", "edge-0 edge-1"]


def test_a_canary_is_first_then_a_share_of_each_service_then_edge_by_edge() -> None:
    several = mesh(8, 3, edges=2)
    assert told(several, set(several.hosts), set(several.hosts)) == [
        *("a-0", "a-1 a-2 b-0", "a-3 a-4 b-1", "a-5 a-6 b-2", "a-7", "edge-0", "edge-1")
    ]


def test_new_hosts_come_before_those_that_serve() -> None:
    both = mesh(2, 1)
    assert told(both, set(both.hosts), set(both.hosts) - {HostName("a-1")}) == ["a-1", "a-0", "b-0", "edge-0"]


def test_what_does_not_change_is_in_no_batch() -> None:
    four = mesh(4, 4)
    assert told(four, {HostName("b-2"), HostName("edge-0")}, set(four.hosts)) == ["b-2", "edge-0"]
    assert told(four, (), ()) == []


@pytest.mark.parametrize(
    ("most", "total", "size"),
    [
        ("25%", 1, 1),
        ("25%", 4, 1),
        ("25%", 8, 2),
        ("25%", 11, 2),
        ("100%", 7, 7),
        ("1%", 50, 1),
        ("3", 50, 3),
        ("9", 2, 9),
    ],
)
def test_a_share_is_at_least_one_host_and_never_more_than_it_says(most: str, total: int, size: int) -> None:
    assert size_of(Rollout(max_parallel=most), total) == size


def test_a_gate_is_for_what_serves() -> None:
    resources = desired_of()[HostName("service1-1")]

    def plan(*kinds: type) -> HostPlan:
        changes = tuple(Change(r.address, Action.UPDATE, "", "", r) for r in resources if isinstance(r, kinds))
        return HostPlan(HostName("service1-1"), "", changes, (), resources, {})

    assert concerns_clients(plan(Unit))
    assert concerns_clients(plan(File))
    assert not concerns_clients(plan(User, Directory, Artifact))
    assert not concerns_clients(plan())


def test_flags_override_the_inventory() -> None:
    assert rollout_with(Rollout(), {"canary": "", "max_parallel": ""}) == Rollout()
    flags = {"max_parallel": "3", "canary": "0", "max_failed": "2"}
    assert rollout_with(Rollout(), flags) == Rollout(max_parallel="3", canary=0, max_failed=2)
    assert rollout_with(Rollout(canary=5), {"max_parallel": "50%"}) == Rollout(max_parallel="50%", canary=5)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("max_parallel", "0"),
        ("max_parallel", "0%"),
        ("max_parallel", "101%"),
        ("max_parallel", "all"),
        ("canary", "-1"),
    ],
)
def test_a_flag_that_makes_no_sense_is_told(name: str, text: str) -> None:
    with pytest.raises(Failed) as failed:
        rollout_with(Rollout(), {name: text})
    [problem] = failed.value.problems
    assert (problem.code, problem.at) == ("task/bad-argument", f"--{name.replace('_', '-')}")
    assert f"`{text}`" in problem.what


@pytest.mark.parametrize(
    ("runs", "number", "takes_back"),
    [
        pytest.param(["up", "now"], 1, 2, id="it went well at first"),
        pytest.param(["up"], 1, 0, id="it came to nothing, or was taken back already"),
    ],
)
def test_back_is_what_a_host_had_before_this_run(
    hosts_keep: HostsKeep, runs: Sequence[str], number: int, takes_back: int
) -> None:
    workspace, fleet = hosts_keep(*runs)
    reading = read_as_before(workspace, fleet, HostName("service1-1"))
    assert (reading.plan.desired, reading.takes_back) == ((User(f"as {number}"),), takes_back)


def test_a_host_that_keeps_nothing_from_before_cannot_go_back(hosts_keep: HostsKeep) -> None:
    workspace, fleet = hosts_keep("now")
    with pytest.raises(Failed) as failed:
        read_as_before(workspace, fleet, HostName("service1-1"))
    [problem] = failed.value.problems
    assert (problem.code, problem.now) == ("rollout/nothing-kept", "service1-1: the change is live")


@given(st.data(), st.integers(0, 9), st.integers(0, 9), st.integers(0, 3), st.sampled_from(["1", "2", "25%", "60%"]))
def test_every_host_that_changes_is_in_one_batch_and_few_of_a_service_change_together(
    data: st.DataObject, a: int, b: int, canary: int, most: str
) -> None:
    of = mesh(a, b, edges=2, rollout=f"{{canary: {canary}, max_parallel: {most}}}")
    changing = data.draw(st.sets(st.sampled_from(sorted(of.hosts))))
    serving = data.draw(st.sets(st.sampled_from(sorted(of.hosts))))
    made = list(batches(of, changing, serving))
    assert sorted(name for batch in made for name in batch) == sorted(changing)
    assert all(made)
    for batch in made:
        for service in of.services:
            together = [h for h in of.hosts_of(service) if h.name in batch and h.name in serving]
            assert len(together) <= max(canary, size_of(of.rollout, len(of.hosts_of(service))))
