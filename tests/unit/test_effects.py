"""Effects: what a plan says that its changes do to what serves, decided by what runs there."""

from dataclasses import replace

import pytest

from envoymesh.model.mesh import HostName, ServiceName
from envoymesh.plan.effects import MEANS, Effect, worst
from envoymesh.plan.observed import Observed
from envoymesh.plan.planner import plan_for
from envoymesh.resources import Resource
from roles import desired
from tests.rendering import BARE, INVENTORY, desired_of, mesh_of, observed_of, secrets_of

EDGE, MEMBER = HostName("front-envoy"), HostName("service1-1")
FRONT, SIDECAR, APP = "envoymesh-front.service", "envoymesh-sidecar.service", "envoymesh-app"


def effects(before: str, after: str, host: HostName = EDGE) -> dict[str, str]:
    """Return the effect of each change that takes a host from one inventory to another."""
    return told(host, desired_of(after)[host], observed_of(desired_of(before)[host]))


def told(host: HostName, desired: tuple[Resource, ...], observed: Observed) -> dict[str, str]:
    return {c.address.replace("/etc/envoymesh/", ""): c.effect for c in plan_for(host, desired, observed).changes}


def test_another_member_is_taken_hot() -> None:
    larger = f"{INVENTORY}  service1-2: {{service: service1, address: 10.77.0.22}}\n"
    assert effects(INVENTORY, larger) == {"file:front/eds/service1.yaml": "hot"}


def test_another_route_is_taken_hot_and_so_is_another_service() -> None:
    assert effects(INVENTORY, INVENTORY.replace("/service/2", "/two")) == {"file:front/rds.yaml": "hot"}
    more = INVENTORY.replace("services:", "services:\n  service3: {path: /service/3}")
    more += "  service3-1: {service: service3, address: 10.77.0.41}\n"
    assert effects(INVENTORY, more) == {
        "file:front/eds/service3.yaml": "hot",
        "file:front/cds.yaml": "hot",
        "file:front/rds.yaml": "hot",
    }


def test_another_listener_drains_and_nothing_else_does() -> None:
    after = f"front: {{http_port: 8090}}\n{INVENTORY}"
    assert effects(INVENTORY, after) == {"file:front/lds.yaml": "drain"}


def test_what_a_process_reads_only_at_its_start_asks_for_another_one_and_with_it_goes_all_that_it_reads() -> None:
    after = f"front: {{http_port: 8090}}\nmachines: {{memory_mib: 700}}\n{INVENTORY}"
    assert effects(INVENTORY, after) == {
        "file:front/lds.yaml": "hot restart",
        "file:front/bootstrap.yaml": "hot restart",
        f"file:/etc/systemd/system/{FRONT}": "hot restart",
        f"unit:{FRONT}": "hot restart",
    }


def test_another_number_of_workers_restarts_an_envoy() -> None:
    after = f"machines: {{cpus: 2}}\n{INVENTORY}"
    assert effects(INVENTORY, after) == {
        f"file:/etc/systemd/system/{FRONT}": "restart",
        f"unit:{FRONT}": "restart",
    }


def test_a_hot_restart_of_the_sidecar_is_none_of_the_application() -> None:
    after = f"machines: {{memory_mib: 700}}\n{INVENTORY}"
    assert {a for a, e in effects(INVENTORY, after, MEMBER).items() if APP in a} == set()
    assert effects(INVENTORY, after, MEMBER)[f"unit:{SIDECAR}"] == "hot restart"


@pytest.mark.parametrize(("before", "after"), [("1.39.3", "1.40.0"), ("1.40.0", "1.39.3")])
def test_another_release_of_envoy_takes_over_from_the_one_that_runs(before: str, after: str) -> None:
    old, new = (f"envoy: {{version: {version}}}\n{INVENTORY}" for version in (before, after))
    told = effects(old, new)
    assert {told[f"unit:{FRONT}"], told[f"file:/etc/systemd/system/{FRONT}"]} == {"hot restart"}


def test_an_envoy_that_does_not_tell_who_can_take_over_is_restarted_once() -> None:
    """One that an earlier release of this tool started."""
    desired = desired_of()[EDGE]
    observed = observed_of(desired)
    unit = replace(observed.units[FRONT], stamp="of another unit", takeover="")
    assert told(EDGE, desired, replace(observed, units={FRONT: unit})) == {f"unit:{FRONT}": "restart"}


def test_nothing_that_runs_is_touched_on_a_bare_host_or_where_a_process_is_down() -> None:
    desired = desired_of()[EDGE]
    assert set(told(EDGE, desired, BARE).values()) == {"none"}
    after = desired_of(f"front: {{http_port: 8090}}\n{INVENTORY}")[EDGE]
    down = replace(observed_of(desired), units={})
    assert told(EDGE, after, down) == {"file:front/lds.yaml": "none", f"unit:{FRONT}": "none"}


@pytest.mark.parametrize(
    ("name", "sha256", "effect"),
    [
        ("front/lds.yaml", "0" * 64, "drain"),
        ("front/rds.yaml", "0" * 64, "hot"),
        ("front/bootstrap.yaml", "0" * 64, "none"),
        ("front/lds.yaml", None, "none"),
    ],
)
def test_an_edit_by_hand_that_envoy_may_have_taken_costs_what_taking_it_back_does(
    name: str, sha256: str | None, effect: str
) -> None:
    desired = desired_of()[EDGE]
    observed = observed_of(desired)
    path = f"/etc/envoymesh/{name}"
    there = observed.paths[path]
    edited = {**observed.paths, path: replace(there, mode=0o600, sha256=sha256 or there.sha256, content=b"edited")}
    assert told(EDGE, desired, replace(observed, paths=edited)) == {f"file:{name}": effect}


@pytest.mark.parametrize(
    ("stat", "effect"),
    [("listener_manager.lds.version_text", "drain"), ("cluster_manager.cds.version_text", "hot"), ("", "none")],
)
def test_an_envoy_that_is_made_to_read_its_files_again_takes_those_that_it_has_not(stat: str, effect: str) -> None:
    desired = desired_of()[EDGE]
    observed = observed_of(desired)
    answers = {key: replace(a, body=a.body.replace(f"{stat}: ", "x: ")) for key, a in observed.answers.items()}
    units = {FRONT: replace(observed.units[FRONT], enabled="enabled" if stat else "disabled")}
    observed = replace(observed, answers=answers if stat else observed.answers, units=units)
    assert told(EDGE, desired, observed) == {f"unit:{FRONT}": effect}


def test_another_release_is_taken_hot_and_the_process_of_the_one_before_ends() -> None:
    mesh = mesh_of()
    code = {"service1": {"__main__.py": b"print()", "requirements.txt": b""}}
    hosts = mesh.hosts_of(ServiceName("service1"))
    after = desired(mesh, secrets_of(mesh), {ServiceName(n): c for n, c in code.items()}, hosts)[MEMBER]
    found = told(MEMBER, after, observed_of(desired_of()[MEMBER]))
    assert {a.replace(SIDECAR, ""): e for a, e in found.items() if e != "none"} == {
        "file:sidecar/eds/local_service.yaml": "hot",
        next(a for a in found if a.startswith("unit:envoymesh-app-") and found[a] == "stop"): "stop",
    }
    assert sorted(e for a, e in found.items() if a.startswith("unit:")) == ["none", "stop"]


def test_what_goes_takes_its_process_along() -> None:
    observed = observed_of(desired_of()[EDGE])
    left = {"unit:old.service", "file:/etc/systemd/system/old.service", "user:old"}
    observed = replace(observed, manifest=observed.manifest | left)
    assert told(EDGE, desired_of()[EDGE], observed) == {
        "unit:old.service": "stop",
        "file:/etc/systemd/system/old.service": "none",
        "user:old": "none",
    }


def test_every_effect_is_told_in_words_and_the_worst_is_found() -> None:
    assert list(MEANS) == list(Effect)
    assert worst([Effect.HOT, Effect.RESTART, Effect.DRAIN]) is Effect.RESTART
    assert worst([]) is Effect.NONE
