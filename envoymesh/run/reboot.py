"""Reboot: hosts one after the other, each left by its clients first and back with them in the end."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from envoymesh.events import Event, Notify, Outcome, OutcomeKind, end_of, exit_code_of, failed_outcome
from envoymesh.model.mesh import Host, HostName, Mesh
from envoymesh.model.ports import ADMIN_PORT
from envoymesh.problems import Failed, Problem, listed
from envoymesh.resources import Resource, Unit
from envoymesh.run.authority import refuse_another
from envoymesh.run.converge import read
from envoymesh.run.fleet import Fleet
from envoymesh.run.health import ailments, another_serves, await_healthy
from envoymesh.run.interrupt import first_one_stops
from envoymesh.run.last_run import begin, record
from envoymesh.run.lock import read_to_change
from envoymesh.run.provision import converge, desired_of
from envoymesh.run.workspace import Workspace
from envoymesh.wire.leave import IDLE_WITHIN_S
from envoymesh.wire.reboot import BOOTED_SCRIPT, boot_from, reboot_script, reboots

BACK_WITHIN_S = 900
"""How long a machine may take to boot: a server that tests its memory needs minutes."""

READY_WITHIN_S = 120
"""How long its units may take after that."""

TOLD_EVERY_S = 15


@dataclass(frozen=True)
class _Turn:
    """A host that boots again, what it must have then, and whether others serve meanwhile."""

    host: Host
    wanted: Sequence[Resource]
    stands_in: bool


def reboot(workspace: Workspace, hosts: Sequence[Host], notify: Notify, *, force: bool = False) -> list[Outcome]:
    """Boot `hosts` again, one after the other; after one that fails no other is begun.

    A service host is taken out of every front first and finishes what it has; afterwards it is entered again, and done
    once every front finds it healthy. An edge reports first that it goes. What is cut off is completed by `provision`,
    as the inventory has the host all the time. After Ctrl-C the host in hand is seen to its end.

    A host that nobody could stand in for is refused, unless `force`: then its requests fail until it is back.

    Raises:
        Failed: another has the lock of a host or of an edge, or this box lacks what they were provisioned with.
    """
    mesh = workspace.mesh
    concerned = [*hosts, *(e for e in mesh.edges if e not in hosts)]
    wanted = desired_of(workspace, concerned)
    outcomes: list[Outcome] = []
    with workspace.fleet(concerned, notify) as fleet, first_one_stops(workspace.stop, notify):
        refuse_another(read_to_change(workspace, fleet, wanted, notify))
        in_hand = replace(workspace, stop=threading.Event())
        for number, host in enumerate(hosts):
            if not all(o.ok for o in outcomes) or not _may_begin(workspace, hosts[:number], notify):
                outcomes.append(Outcome(host.name, OutcomeKind.NOT_STARTED))
                continue
            outcomes.append(_rebooted(in_hand, fleet, host, wanted[host.name], notify, force=force))
            notify(end_of(outcomes[-1]))
    return outcomes


def _may_begin(workspace: Workspace, done: Sequence[Host], notify: Notify) -> bool:
    """Return whether another host may go after those that are `done`, once the clients of the last one are back."""
    leave_s = workspace.mesh.leave_s if done and done[-1].is_edge else 0
    if leave_s and not workspace.stop.is_set():
        notify(Event(done[-1].name, f"gives its clients {leave_s} s to come back"))
        workspace.stop.wait(leave_s)
    return not workspace.stop.is_set()


def _rebooted(  # noqa: PLR0913 - one for each thing that a turn needs
    workspace: Workspace, fleet: Fleet, host: Host, wanted: Sequence[Resource], notify: Notify, *, force: bool
) -> Outcome:
    try:
        _lock(workspace, fleet, [host, *workspace.mesh.edges], notify)  # from now on for long enough, whenever this is
        alone = _alone(workspace.mesh, fleet, host)
        if alone is not None and not force:
            raise Failed(alone)
        begin(workspace, [host.name])
        turn = _Turn(host, wanted, stands_in=alone is None)
        (_edge if host.is_edge else _service_host)(workspace, fleet, turn, notify)
    except Failed as failed:
        return failed_outcome(host.name, failed.problems[0])
    outcome = Outcome(host.name, OutcomeKind.CHANGED)
    record(workspace, [outcome])
    return outcome


def _lock(workspace: Workspace, fleet: Fleet, hosts: Sequence[Host], notify: Notify) -> None:
    """Take the locks of hosts once more, or for longer; of the first one at least.

    Raises:
        Failed: another has one, or the first host is out of reach.
    """
    readings = read_to_change(workspace, fleet, {h.name: () for h in hosts}, notify)
    first = readings[hosts[0].name]
    if isinstance(first, Problem):
        raise Failed(first)


def _alone(mesh: Mesh, fleet: Fleet, host: Host) -> Problem | None:
    """Return why nobody stands in for a host; None where another edge serves, or the fronts find one healthy."""
    if host.service is None:
        if another_serves(fleet, mesh.edges, host.name):
            return None
        what = f"no other edge serves while `{host.name}` boots"
        return _nobody_else(host, what, (), "add an edge to inventory.yaml, then: ./mesh up")
    members = [h for h in mesh.hosts_of(host.service) if h != host]
    found, answered = ailments(fleet, mesh.edges, members)
    if any(found.get(h.name) == "" for h in members):
        return None
    what = f"no other host of `{host.service}` is healthy while `{host.name}` boots"
    if answered and any(h.name not in found for h in members):
        saw = [f"{h.name}: {found.get(h.name, 'no front has it')}" for h in members]
        return _nobody_else(host, what, saw, "let the fronts have it first: ./mesh provision")
    return _nobody_else(host, what, (), f"add one first: ./mesh add-service-host {host.service}")


def _edge(workspace: Workspace, fleet: Fleet, turn: _Turn, notify: Notify) -> None:
    leave_s = workspace.mesh.leave_s if turn.stands_in else 0
    if leave_s:
        notify(Event(turn.host.name, f"reports that it goes, and waits {leave_s} s for its clients to leave"))
    _boot_again(workspace, fleet, turn, leave_s, notify)


def _service_host(workspace: Workspace, fleet: Fleet, turn: _Turn, notify: Notify) -> None:
    mesh, host = workspace.mesh, turn.host
    if turn.stands_in:
        without = replace(mesh, hosts={n: h for n, h in mesh.hosts.items() if h != host})
        try:
            _tell_fronts(replace(workspace, mesh=without), fleet, host, notify)
        finally:
            begin(workspace, [e.name for e in mesh.edges])  # they are done once they have the host again
        notify(Event(host.name, "finishes the requests that it has"))
    _boot_again(workspace, fleet, turn, 0, notify)
    if turn.stands_in:
        _tell_fronts(workspace, fleet, host, notify)
    await_healthy(workspace, [host], notify)


def _tell_fronts(workspace: Workspace, fleet: Fleet, host: Host, notify: Notify) -> None:
    """Let every front have the members that the mesh of this workspace has.

    Raises:
        Failed: one could not be told.
    """
    try:
        wanted = desired_of(workspace, workspace.mesh.edges)
        told = converge(workspace, fleet, wanted, notify, for_now=host.name not in workspace.mesh.hosts)
        untold = [o for o in told.values() if not o.ok]
    except Failed as failed:
        untold = [failed_outcome(HostName(p.at), p) for p in failed.problems]
    if untold:
        what = f"not every front could be told of `{host.name}`"
        saw = tuple(f"{o.host}: {o.problem.what if o.problem else o.kind}" for o in untold)
        now = f"{host.name}: its service is running; some front may send it nothing"
        hint = "./mesh provision    then, once that is done, the same command"
        raise Failed(Problem("reboot/front-not-told", what, host.name, saw, now, hint, exit_code_of(untold)))


def _boot_again(workspace: Workspace, fleet: Fleet, turn: _Turn, leave_s: int, notify: Notify) -> None:
    """Boot a host, whose clients have `leave_s` seconds to leave; return once it is as it was before."""
    host, within_s = turn.host, IDLE_WITHIN_S if turn.stands_in else 0
    lines = list[str]()
    try:
        before = _start_of(fleet, host.name)
        script = reboot_script(workspace.run, ADMIN_PORT, leave_s, within_s)
        fleet.session(host.name).exec(script, on_line=lines.append, timeout_s=leave_s + within_s + 60.0)
    except Failed as failed:
        if not reboots(lines):
            raise Failed(_not_begun(host, failed.problems[0])) from None
    if not reboots(lines):
        what = f"the lock of `{host.name}` was taken from this run"
        raise Failed(_not_begun(host, Problem("lock/lost", what, host.name)))
    fleet.forget(host.name)
    try:
        _await_start(fleet, host, before, notify)
        _await_ready(workspace, fleet, turn, notify)
    except Failed as failed:
        raise Failed(_not_back(turn, failed.problems[0])) from None


def _start_of(fleet: Fleet, host: HostName) -> str:
    executed = fleet.session(host).exec(BOOTED_SCRIPT, timeout_s=30)
    return boot_from(host, executed.stdout.decode(errors="replace").split("\n"))


def _await_start(fleet: Fleet, host: Host, before: str, notify: Notify) -> None:
    """Wait until the host has another start than `before`."""
    notify(Event(host.name, "boots"))
    began = told = time.monotonic()
    saw = "it is still there"
    while time.monotonic() < began + BACK_WITHIN_S:
        try:
            if _start_of(fleet, host.name) != before:
                return
        except Failed as failed:
            saw = failed.problems[0].what
        fleet.forget(host.name)
        if time.monotonic() > told + TOLD_EVERY_S:
            told = time.monotonic()
            notify(Event(host.name, f"is not back after {told - began:.0f} s: {saw}"))
        time.sleep(0.5)
    raise Failed(Problem("reboot/not-back", f"not within {BACK_WITHIN_S} s", host.name, (saw,)))


def _await_ready(workspace: Workspace, fleet: Fleet, turn: _Turn, notify: Notify) -> None:
    """Wait until the host's Envoy serves, with its lock taken once more.

    Its application is waited for by the fronts: a member that is new to them gets no requests before its first good
    health check.
    """
    host = turn.host
    notify(Event(host.name, "waits for its units"))
    units = [r for r in turn.wanted if isinstance(r, Unit)]
    asked = {u.name: (u.probe.port, u.probe.path) for u in units if not u.replaces}
    _lock(workspace, fleet, [host], notify)
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        answers = read(fleet, host.name, (), tuple(asked.values())).observed.answers
        missing = [name for name, question in asked.items() if answers[question].status != 200]
        if not missing:
            return
        if time.monotonic() > deadline:
            what = f"{listed(missing)} did not become ready within {READY_WITHIN_S} s"
            raise Failed(Problem("reboot/not-back", what, host.name))
        time.sleep(0.2)


def _nobody_else(host: Host, what: str, saw: Sequence[str], way: str) -> Problem:
    return Problem(
        code="reboot/nobody-else",
        what=what,
        at=host.name,
        saw=tuple(saw),
        now="it was not rebooted, and serves",
        hint=f"{way}\nor accept that requests fail until it is back: ./mesh reboot {host.name} --force",
    )


def _not_begun(host: Host, problem: Problem) -> Problem:
    now = f"{host.name}: it was not rebooted, as far as is known; some front may send it nothing"
    return replace(problem, now=now, hint="see who changes it: ./mesh lock-status    then: ./mesh provision")


def _not_back(turn: _Turn, problem: Problem) -> Problem:
    host, others = turn.host.name, "it gets no requests; the others of its kind serve"
    return Problem(
        code="reboot/not-back",
        what=f"`{host}` has not come back from its reboot as it was",
        at=host,
        saw=(problem.what, *problem.saw),
        now=f"{host}: {others if turn.stands_in else 'its requests fail, as nobody stands in for it'}",
        hint=f'look at it: ./mesh exec {host} "systemctl --failed"    once it runs: ./mesh provision',
    )
