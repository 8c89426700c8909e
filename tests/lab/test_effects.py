"""What a plan announces for each host, and what then happens to its processes: the same, whatever the change."""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor

import pytest

from envoymesh.plan.effects import Effect, worst
from tests.labs import run
from tests.meshes import TestMesh, document, edited

SEEN = """
for unit in $(systemctl list-units --plain --no-legend --state=active 'envoymesh-*.service' | cut -d ' ' -f 1); do
  echo "$unit $(systemctl show -p MainPID --value $unit)"
done
curl -sS localhost:8001/stats | sed -n -E \
  's/^(server.hot_restart_epoch|listener_manager.listener_modified|.*[.]version): ([0-9]+)$/\\1 \\2/p'
"""
"""Tells what runs on a host: each process, Envoy's epoch, how often it replaced a listener, and what files it has."""

Seen = dict[str, int]
Change = Callable[[TestMesh], Generator[None, None, None]]
"""Makes something else desired, or edits a host by hand, and yields."""


def edited_by_hand(lab: TestMesh) -> Generator[None, None, None]:
    lab.on("front-envoy", "chmod 0600 /etc/envoymesh/front/lds.yaml")
    yield


def a_route(lab: TestMesh) -> Generator[None, None, None]:
    with edited(lab, "templates/front/rds.yaml.j2", "timeout: 15s", "timeout: 14s"):
        yield


def a_listener(lab: TestMesh) -> Generator[None, None, None]:
    with edited(lab, "templates/front/lds.yaml.j2", "protocol_version: TLSv1_2", "protocol_version: TLSv1_3"):
        yield


def a_bootstrap(lab: TestMesh) -> Generator[None, None, None]:
    with edited(lab, "templates/macros.j2", '("disable_http_keepalive", 0.92)', '("disable_http_keepalive", 0.91)'):
        yield
    lab.stop_envoys()


def an_envoy_that_cannot_take_over(lab: TestMesh) -> Generator[None, None, None]:
    with edited(lab, "roles/edge.py", "base_id=1", "base_id=3"):
        yield


def another_application(lab: TestMesh) -> Generator[None, None, None]:
    lab.inventory.write_text(lab.inventory.read_text().replace("{path: /service/2}", "{path: /two}"))
    yield


@pytest.mark.parametrize(
    ("change", "effects"),
    [
        (edited_by_hand, ("none", "none", "none")),
        (a_route, ("hot", "none", "none")),
        (a_listener, ("drain", "none", "none")),
        (a_bootstrap, ("hot restart", "hot restart", "hot restart")),
        (an_envoy_that_cannot_take_over, ("restart", "none", "none")),
        (another_application, ("hot", "none", "stop")),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_a_plan_announces_is_what_happens(lab: TestMesh, change: Change, effects: tuple[str, ...]) -> None:
    changing = change(lab)
    next(changing)
    hosts = document(lab.run("plan", "--json", code=2).stdout)["hosts"]
    announced = {told["host"]: told["effect"] for told in hosts}
    assert announced == dict(zip(("front-envoy", "service1-1", "service2-1"), effects, strict=True))
    before = seen(lab)
    lab.run("provision")
    after = seen(lab)
    assert {host: happened(before[host], after[host]) for host in before} == announced
    assert next(changing, "ended") == "ended"


def seen(lab: TestMesh) -> dict[str, Seen]:
    """Return what runs on each host."""
    workspace = lab.workspace
    with ThreadPoolExecutor() as pool:
        told = pool.map(lambda host: run(workspace.provider, host, SEEN), workspace.mesh.hosts.values())
        return {host: _seen(text) for host, text in zip(workspace.mesh.hosts, told, strict=True)}


def _seen(text: str) -> Seen:
    return {name: int(value) for name, value in map(str.split, text.splitlines())}


def happened(before: Seen, after: Seen) -> Effect:
    """Return what happened to the processes of a host, by what was seen and by nothing that was told."""
    return worst([_happened_to(unit, before, after) for unit in before if unit.endswith(".service")])


def _happened_to(unit: str, before: Seen, after: Seen) -> Effect:
    if unit not in after:
        return Effect.STOP
    if after[unit] != before[unit]:
        took_over = after["server.hot_restart_epoch"] == before["server.hot_restart_epoch"] + 1
        return Effect.HOT_RESTART if took_over and "app" not in unit else Effect.RESTART
    if "app" in unit:
        return Effect.NONE
    if after["listener_manager.listener_modified"] > before["listener_manager.listener_modified"]:
        return Effect.DRAIN
    took = [name for name, version in after.items() if name.endswith(".version") and version != before.get(name)]
    return Effect.HOT if took else Effect.NONE
