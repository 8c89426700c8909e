"""Reboot: what a host is told, what it says, and what becomes of the others."""

import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from envoymesh.events import Outcome, OutcomeKind
from envoymesh.model.mesh import HostName
from envoymesh.model.ports import ADMIN_PORT
from envoymesh.plan.generation import Run
from envoymesh.plan.planner import plan_for
from envoymesh.problems import ExitCode
from envoymesh.run import reboot as hosts_reboot
from envoymesh.run.converge import Desired, Reading
from envoymesh.run.workspace import Workspace, open_workspace
from envoymesh.wire.reboot import reboot_script, reboots
from tests.rendering import BARE, INVENTORY

RUN = Run(datetime(2026, 1, 31, 9, 45, 2, tzinfo=UTC), "20260131T094502Z-3fa9", "me@box", "it's time")


def test_a_reboot_is_one_call_whose_words_are_never_syntax() -> None:
    call = reboot_script(RUN, ADMIN_PORT, 10, 316).splitlines()[-1]
    assert call.startswith(f"reboot {RUN.name} {ADMIN_PORT} 10 316 ")
    assert "it'\"'\"'s time" in call


def test_a_host_boots_when_it_says_so_and_not_when_its_lock_is_lost() -> None:
    assert reboots(["noise", "\x1eEM end reboots"])
    assert not reboots(["\x1eEM end lost"])
    assert not reboots([])


class World:
    """Two edges and two hosts of service1, of which all is well; it notes what is done to them.

    Attributes:
        healthy: what the fronts say of their members.
        told: what became of the edges that were told of a host, at each time; what is not said is well.
    """

    def __init__(self, inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        more = ("service1-2: {service: service1, address: 10.77.0.22}", "front-2: {role: edge, address: 10.77.0.11}")
        head = "provider: existing\nfront: {leave_s: 10}\n"
        inventory.write_text("".join([head, INVENTORY, *(f"  {host}\n" for host in more)]))
        self.workspace = open_workspace(inventory)
        self.steps = list[str]()
        self.healthy = {HostName("service1-1"): "", HostName("service1-2"): ""}
        self.told = list[OutcomeKind]()
        monkeypatch.setattr(hosts_reboot, "desired_of", lambda _, hosts: {h.name: () for h in hosts})
        monkeypatch.setattr(hosts_reboot, "read_to_change", self._read_to_change)
        monkeypatch.setattr(hosts_reboot, "ailments", lambda *_: (self.healthy, list(self.workspace.mesh.edges)))
        monkeypatch.setattr(hosts_reboot, "converge", self._converge)
        monkeypatch.setattr(hosts_reboot, "await_healthy", lambda *_: None)
        monkeypatch.setattr(hosts_reboot, "_boot_again", self._boot_again)
        monkeypatch.setattr(hosts_reboot, "_stands_in", lambda *_: True)

    def _read_to_change(self, _workspace: Workspace, _fleet: object, wanted: Desired, _notify: object) -> object:
        return {host: Reading(BARE, plan_for(host, (), BARE), lock=RUN.name) for host in wanted}

    def _converge(self, workspace: Workspace, _fleet: object, wanted: Desired, _notify: object) -> object:
        self.steps.append(" ".join(["told of", *(h.name for h in workspace.mesh.hosts.values() if not h.is_edge)]))
        kind = self.told.pop(0) if self.told else OutcomeKind.CHANGED
        return {host: Outcome(host, kind) for host in wanted}

    def _boot_again(self, _workspace: Workspace, _fleet: object, turn: hosts_reboot._Turn, *_: object) -> None:
        self.steps.append(f"{turn.host.name} boots")

    def reboot(self, *names: str) -> dict[str, Outcome]:
        """Reboot hosts; return what became of them."""
        hosts = [self.workspace.mesh.hosts[HostName(name)] for name in names]
        outcomes = hosts_reboot.reboot(self.workspace, hosts, lambda event: self.steps.append(event.text))
        return {o.host: o for o in outcomes}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    (tmp_path / ".envoymesh").mkdir()
    return World(tmp_path / "inventory.yaml", monkeypatch)


class Impatient(threading.Event):
    """Ctrl-C is pressed as soon as something waits."""

    def wait(self, timeout: float | None = None) -> bool:
        self.set()
        return True


def test_ctrl_c_while_clients_come_back_begins_no_other_host(world: World) -> None:
    world.workspace = replace(world.workspace, stop=Impatient())
    outcomes = world.reboot("front-envoy", "front-2", "service1-1")
    assert [o.kind for o in outcomes.values()] == [OutcomeKind.CHANGED, *[OutcomeKind.NOT_STARTED] * 2]
    assert [step for step in world.steps if step.endswith("boots")] == ["front-envoy boots"]


def test_a_front_that_was_not_told_keeps_a_host_from_its_reboot(world: World) -> None:
    world.told = [OutcomeKind.NOT_STARTED]
    problem = world.reboot("service1-1")["service1-1"].problem
    assert problem is not None
    assert (problem.code, problem.exit_code) == ("reboot/front-not-told", ExitCode.PROBLEM)
    assert problem.saw == ("front-envoy: not started", "front-2: not started")
    assert "service1-1 boots" not in world.steps
