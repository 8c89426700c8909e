"""Leaving: which changes an edge tells its clients of, and when in an apply."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from envoymesh.model.mesh import HostName
from envoymesh.model.ports import ADMIN_PORT
from envoymesh.plan.change import HostPlan
from envoymesh.plan.generation import Run
from envoymesh.plan.leave import leaving
from envoymesh.plan.observed import TEXT_STATS, HttpAnswer, Observed
from envoymesh.plan.planner import plan_for
from envoymesh.wire.apply import payload_for
from envoymesh.wire.leave import IDLE_WITHIN_S
from tests.rendering import INVENTORY, desired_of, mesh_of, observed_of

EDGE, MEMBER = HostName("front-envoy"), HostName("service1-1")
TWO = f"{INVENTORY}  front-2: {{role: edge, address: 10.77.0.11}}\n"
RUN = Run(datetime(2026, 1, 31, 9, 45, 2, tzinfo=UTC), "20260131T094502Z-3fa9", "me@box", "it's time")
DRAIN, RESTART = "front: {http_port: 8090}\nservices:", "machines: {cpus: 2}\nservices:"
HOT_RESTART = "machines: {memory_mib: 700}\nservices:"


def plan_of(before: str, after: str, host: HostName = EDGE) -> HostPlan:
    return plan_for(host, desired_of(after)[host], observed_of(desired_of(before)[host]))


def verbs(plan: HostPlan) -> list[str]:
    return [call.verb for call in payload_for(plan, RUN, {}).calls]


@pytest.mark.parametrize(
    ("settings", "within_s", "begun"),
    [(DRAIN, 0, []), (HOT_RESTART, 0, ["commit", "hot_restart"]), (RESTART, IDLE_WITHIN_S, ["commit", "restart"])],
)
def test_one_of_two_edges_is_left_before_its_connections_end(settings: str, within_s: int, begun: list[str]) -> None:
    """Where its unit changes, too, that file is renamed first."""
    plan = plan_of(TWO, TWO.replace("services:", settings))
    [left] = [call for call in payload_for(plan, RUN, {}).calls if call.verb == "leave"]
    assert left.words == ("leave", str(ADMIN_PORT), "10", str(within_s))
    told = ("validate", "leave", "commit", "restart", "hot_restart", "come_back", "ready")
    order = [verb for verb in verbs(plan) if verb in told]
    assert order == ["validate", "leave", "commit", *begun, "come_back", "ready"]


def test_a_hot_change_makes_nobody_leave() -> None:
    plan = plan_of(TWO, TWO + "  service1-2: {service: service1, address: 10.77.0.22}\n")
    assert plan.changes
    assert "leave" not in verbs(plan)


@pytest.mark.parametrize(("inventory", "host"), [(INVENTORY, EDGE), (TWO, MEMBER)])
def test_nobody_leaves_the_only_edge_or_a_service_host(inventory: str, host: HostName) -> None:
    plan = plan_of(inventory, inventory.replace("services:", HOT_RESTART), host)
    assert plan.changes
    assert not list(leaving(plan))


def test_how_long_is_the_inventorys_to_say() -> None:
    settings = "front: {leave_s: 30, http_port: 8090}\nservices:"
    [(unit, _)] = leaving(plan_of(TWO, TWO.replace("services:", settings)))
    assert unit.leave_s == 30
    assert not list(leaving(plan_of(TWO, TWO.replace("services:", settings.replace("30", "0")))))


def test_a_port_may_be_the_number_of_seconds() -> None:
    assert mesh_of(TWO.replace("services:", "front: {leave_s: 90, http_port: 90}\nservices:")).leave_s == 90


def test_an_edge_that_still_reports_that_it_goes_comes_back_and_nothing_else_changes() -> None:
    desired = desired_of(TWO)[EDGE]
    plan = plan_for(EDGE, desired, _telling(observed_of(desired), "server.live: 0"))
    assert [(c.address, c.because) for c in plan.changes] == [
        ("unit:envoymesh-front.service", "it reports that it goes")
    ]
    assert "come_back" in verbs(plan)
    assert not plan_for(EDGE, desired, _telling(observed_of(desired), "server.live: 1")).changes


def _telling(observed: Observed, line: str) -> Observed:
    key = (ADMIN_PORT, TEXT_STATS)
    said = observed.answers[key]
    return replace(observed, answers={**observed.answers, key: HttpAnswer(200, f"{said.body}{line}\n")})
