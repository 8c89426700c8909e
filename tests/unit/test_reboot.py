"""Reboot: what a host is told, what it says, and what becomes of the others."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from envoymesh.events import Notify, Outcome, OutcomeKind
from envoymesh.model.mesh import HostName
from envoymesh.model.ports import ADMIN_PORT
from envoymesh.plan.generation import Run
from envoymesh.plan.planner import plan_for
from envoymesh.problems import ExitCode, Failed, Problem
from envoymesh.run import reboot as hosts_reboot
from envoymesh.run.converge import Desired, Reading
from envoymesh.run.fleet import Fleet
from envoymesh.run.last_run import begin, not_done, record
from envoymesh.run.workspace import Workspace, open_workspace
from envoymesh.transport.ssh import Executed
from envoymesh.wire.reboot import BOOTED_SCRIPT, reboot_script, reboots
from tests.rendering import BARE, INVENTORY

RUN = Run(datetime(2026, 1, 31, 9, 45, 2, tzinfo=UTC), "20260131T094502Z-3fa9", "me@box", "it's time")
PLAN = plan_for(HostName("any"), (), BARE)


def test_a_reboot_is_one_call_whose_words_are_never_syntax() -> None:
    call = reboot_script(RUN, ADMIN_PORT, 10, 316).splitlines()[-1]
    assert call.startswith(f"reboot {RUN.name} {ADMIN_PORT} 10 316 ")
    assert "it'\"'\"'s time" in call


def test_a_host_boots_when_it_says_so_and_not_when_its_lock_is_lost() -> None:
    assert reboots(["noise", "\x1eEM end reboots"])
    assert not reboots(["\x1eEM end lost"])
    assert not reboots([])


class Sessions(Fleet):
    """Hosts that boot when they are told to."""

    def __init__(self, steps: list[str]) -> None:
        super().__init__({})
        self.steps, self.boots = steps, 0

    def session(self, host: HostName) -> Any:
        """Return what executes a script of `reboot` on a host."""

        def execute(script: str, *, on_line: Callable[[str], None] = lambda line: None, timeout_s: float) -> Executed:
            if script == BOOTED_SCRIPT:
                return Executed(0, f"\x1eEM booted {self.boots}\n".encode(), b"")
            self.steps.append(f"{host} is told to boot")
            self.boots += 1
            on_line("\x1eEM end reboots")
            return Executed(0, b"", b"")

        return SimpleNamespace(exec=execute)


class World:
    """Two edges and two hosts of service1, of which all is well; it notes what is done to them.

    Attributes:
        healthy: what the fronts say of their members.
        told: what became of the edges that were told of a host, at each time; what is not said is well.
        held: what stops who wants the lock of a host that has booted.
    """

    def __init__(self, inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        more = ("service1-2: {service: service1, address: 10.77.0.22}", "front-2: {role: edge, address: 10.77.0.11}")
        head = "provider: existing\nfront: {leave_s: 10}\n"
        inventory.write_text("".join([head, INVENTORY, *(f"  {host}\n" for host in more)]))
        self.workspace = open_workspace(inventory)
        self.steps = list[str]()
        self.sessions = Sessions(self.steps)
        self.healthy = {"service1-1": "", "service1-2": ""}
        self.told = list[OutcomeKind]()
        self.held: Problem | None = None
        monkeypatch.setattr(Workspace, "fleet", lambda *_: self.sessions)
        monkeypatch.setattr(hosts_reboot, "desired_of", lambda _, hosts: {h.name: () for h in hosts})
        monkeypatch.setattr(hosts_reboot, "read_to_change", self._read_to_change)
        monkeypatch.setattr(hosts_reboot, "ailments", lambda *_: (self.healthy, list(self.workspace.mesh.edges)))
        monkeypatch.setattr(hosts_reboot, "read", lambda *_: Reading(BARE, PLAN))
        monkeypatch.setattr(hosts_reboot, "another_serves", lambda *_: True)
        monkeypatch.setattr(hosts_reboot, "converge", self._converge)
        monkeypatch.setattr(hosts_reboot, "await_healthy", lambda *_: None)

    def _read_to_change(self, _workspace: Workspace, _fleet: Fleet, wanted: Desired, _notify: Notify) -> object:
        self.steps.append(f"locks {' '.join(wanted)}")
        if self.held is not None and self.sessions.boots:
            raise Failed(self.held)
        return dict.fromkeys(wanted, Reading(BARE, PLAN))

    def _converge(
        self, workspace: Workspace, _fleet: Fleet, wanted: Desired, _notify: Notify, *, for_now: bool
    ) -> object:
        assert for_now == (workspace.mesh != self.workspace.mesh), "what is but for now is no generation"
        self.steps.append(" ".join(["told of", *(h.name for h in workspace.mesh.hosts.values() if not h.is_edge)]))
        begin(workspace, wanted)
        kind = self.told.pop(0) if self.told else OutcomeKind.CHANGED
        outcomes = {host: Outcome(host, kind) for host in wanted}
        record(workspace, outcomes.values())
        return outcomes

    def reboot(self, *names: str, force: bool = False) -> list[Outcome]:
        """Reboot hosts; return what became of each."""
        hosts = [self.workspace.mesh.hosts[HostName(name)] for name in names]
        return hosts_reboot.reboot(self.workspace, hosts, lambda event: self.steps.append(event.text), force=force)

    def problem(self, name: str, *, force: bool = False) -> Problem:
        """Return why the reboot of a host did not succeed."""
        [outcome] = self.reboot(name, force=force)
        assert outcome.problem is not None
        return outcome.problem


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
    assert [o.kind for o in outcomes] == [OutcomeKind.CHANGED, *[OutcomeKind.NOT_STARTED] * 2]
    assert [step for step in world.steps if "told to boot" in step] == ["front-envoy is told to boot"]


def test_a_front_that_was_not_told_keeps_a_host_from_its_reboot(world: World) -> None:
    world.told = [OutcomeKind.NOT_STARTED]
    problem = world.problem("service1-1")
    assert (problem.code, problem.exit_code) == ("reboot/front-not-told", ExitCode.PROBLEM)
    assert problem.saw == ("front-envoy: not started", "front-2: not started")
    assert world.sessions.boots == 0


def test_what_has_the_lock_of_a_host_that_has_booted_is_told_with_how_the_host_is(world: World) -> None:
    world.held = Problem("lock/held", "another one", saw=("ann@ops: why",), now="this command has changed nothing")
    problem = world.problem("service1-1")
    assert (problem.code, problem.saw) == ("reboot/not-back", ("another one", "ann@ops: why"))
    assert problem.now == "service1-1: it gets no requests; the others of its kind serve"


def test_a_host_that_nobody_stands_in_for_is_not_said_to_be_stood_in_for(world: World) -> None:
    del world.healthy["service1-2"]
    world.held = Problem("lock/held", "")
    assert "nobody stands in" in world.problem("service1-1", force=True).now


@pytest.mark.parametrize(("others", "way"), [({}, "provision"), ({"service1-2": "it is ill"}, "add-service-host")])
def test_who_cannot_stand_in_as_no_front_has_it_is_entered_first(
    world: World, others: dict[str, str], way: str
) -> None:
    world.healthy = others
    problem = world.problem("service1-1")
    assert problem.code == "reboot/nobody-else"
    assert f"first: ./mesh {way}" in problem.hint
    assert world.sessions.boots == 0
    with pytest.raises(Failed, match="run/none-known"):
        not_done(world.workspace)


EDGES = {"front-envoy", "front-2"}


def test_what_is_left_to_do_are_the_host_and_the_fronts_until_they_have_it_again(world: World) -> None:
    world.held = Problem("lock/held", "")
    world.problem("service1-1")
    assert not_done(world.workspace) == EDGES | {"service1-1"}
    world.held = None
    world.reboot("service1-1", "front-2")
    assert not_done(world.workspace) == set()
    world.told = [OutcomeKind.FAILED]
    world.problem("service1-2")
    assert not_done(world.workspace) == EDGES | {"service1-2"}


def test_the_locks_of_a_host_and_of_all_edges_are_renewed_at_its_turn(world: World) -> None:
    world.reboot("service1-1", "service1-2", "front-2")
    locked = [step for step in world.steps if step.startswith("locks ")]
    assert locked == [
        "locks service1-1 service1-2 front-2 front-envoy",
        *(f"locks {host}" for host in ("service1-1 front-envoy front-2", "service1-1")),
        *(f"locks {host}" for host in ("service1-2 front-envoy front-2", "service1-2")),
        *(f"locks {host}" for host in ("front-2 front-envoy", "front-2")),
    ]
