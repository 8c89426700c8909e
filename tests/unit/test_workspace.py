"""`--limit`: which hosts are meant."""

import pytest

from envoymesh.problems import Failed
from envoymesh.run.workspace import limited
from tests.rendering import INVENTORY, mesh_of

MESH = mesh_of(INVENTORY + "  service1-2: {service: service1, address: 10.77.0.22}\n")
EVERY = ["front-envoy", "service1-1", "service2-1", "service1-2"]


@pytest.mark.parametrize(
    ("limit", "hosts"),
    [
        ("", EVERY),
        (" , ", EVERY),
        ("*", EVERY),
        ("edge", ["front-envoy"]),
        ("service1", ["service1-1", "service1-2"]),
        ("service2-1", ["service2-1"]),
        ("service1-?", ["service1-1", "service1-2"]),
        ("service[12]-1", ["service1-1", "service2-1"]),
        ("*-1,front-*", ["front-envoy", "service1-1", "service2-1"]),
        (" service2 ,, edge, ", ["front-envoy", "service2-1"]),
        ("service1-2,service1,service1-2", ["service1-1", "service1-2"]),
    ],
)
def test_a_limit_names_hosts_each_once_in_the_order_of_the_inventory(limit: str, hosts: list[str]) -> None:
    assert [h.name for h in limited(MESH, limit)] == hosts


@pytest.mark.parametrize(
    ("limit", "part", "near"),
    [
        ("servce1", "servce1", "service1"),
        ("edge,fornt-envoy", "fornt-envoy", "front-envoy"),
        ("Edge", "Edge", "edge"),
        ("service3-*", "service3-*", "service2-1"),
        ("service1 service2", "service1 service2", "service1-2"),
        ("service", "service", "service2"),
    ],
)
def test_a_part_that_names_nothing_is_told_with_all_that_there_is(limit: str, part: str, near: str) -> None:
    with pytest.raises(Failed) as failed:
        limited(MESH, limit)
    [problem] = failed.value.problems
    assert (problem.code, problem.at) == ("inventory/unknown-limit", "--limit")
    assert f"`{part}`" in problem.what
    assert problem.saw == ("known: front-envoy, service1-1, service2-1, service1-2, service1, service2, edge, @failed",)
    assert problem.hint == f"did you mean `{near}`?"
