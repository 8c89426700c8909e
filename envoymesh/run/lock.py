"""One writer: the locks of all hosts of a run, or of none."""

import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from envoymesh.events import Event, Notify
from envoymesh.model.mesh import Host, HostName
from envoymesh.plan.writer import Lock
from envoymesh.problems import Failed, Problem, listed
from envoymesh.run.converge import Desired, Reading, reader
from envoymesh.run.fleet import Fleet
from envoymesh.run.workspace import Workspace
from envoymesh.wire.audit import release_entry
from envoymesh.wire.lock import STATUS_SCRIPT, giving_back, lock_from, releasing

T = TypeVar("T")

Locked = Mapping[HostName, Lock | Problem | None]
"""Who has the lock of each host, or why that is not known."""

TIMEOUT_S = 30.0


def seconds(text: str, flag: str) -> float:
    """Return the seconds that `60`, `60s` or `5m` means, as the value of a flag; none for an empty text.

    Raises:
        Failed: it is not of that form.
    """
    found = re.fullmatch(r"(\d{1,6})(s|m)?", text or "0")
    if found is None:
        what = f"`{text}` is not a number of seconds"
        raise Failed(Problem("task/bad-argument", what, flag, now="nothing was changed", hint=f"{flag} 60"))
    return int(found[1]) * (60.0 if found[2] == "m" else 1.0)


def taken(
    workspace: Workspace, fleet: Fleet, hosts: Iterable[HostName], work: Callable[[HostName], T], notify: Notify
) -> dict[HostName, T | Problem]:
    """Do work that takes the lock of each host, on all hosts or on none; a host out of reach has no lock.

    Where another has one, the others are given back, so that two who want the same hosts do not wait for each other;
    then all are tried again until the workspace's `lock_wait_s` are over.

    Raises:
        Failed: another has a lock.
    """
    names, deadline, told = list(hosts), time.monotonic() + workspace.lock_wait_s, ""
    while True:
        results = fleet.each(names, work)
        held = {h: r for h, r in results.items() if isinstance(r, Problem) and r.code == "lock/held"}
        if not held:
            return results
        free = [h for h, r in results.items() if not isinstance(r, Problem)]
        fleet.each(free, lambda host: _lines(fleet, host, giving_back(workspace.run)))
        problem = merged(held)
        if time.monotonic() >= deadline or workspace.stop.is_set():
            raise Failed(problem)
        if problem.saw[0] != told:
            told = problem.saw[0]
            notify(Event("", f"waits for the lock of {problem.at}: {told}"))
        workspace.stop.wait(random.uniform(0.3, 1.2))  # noqa: S311 - spreads tries, nothing secret


def read_to_change(
    workspace: Workspace, fleet: Fleet, wanted: Desired, notify: Notify
) -> dict[HostName, Reading | Problem]:
    """Read the hosts of `wanted`, all at once, with their locks taken.

    Raises:
        Failed: another has a lock.
    """
    return taken(workspace, fleet, wanted, reader(fleet, wanted, run=workspace.run), notify)


def merged(held: Mapping[HostName, Problem]) -> Problem:
    """Return one problem for all hosts that others have locked."""
    first = next(iter(held.values()))
    seen = {p.saw[0]: p.saw for p in held.values()}
    at = listed(list(held)) if len(held) < 6 else f"{len(held)} hosts"
    return replace(first, at=at, saw=tuple(line for saw in seen.values() for line in saw))


def status(workspace: Workspace, hosts: Sequence[Host]) -> Locked:
    """Return who has the lock of each host."""
    with workspace.fleet(hosts) as fleet:
        return fleet.each([h.name for h in hosts], lambda host: lock_from(_lines(fleet, host, STATUS_SCRIPT)))


def release(workspace: Workspace, hosts: Sequence[Host]) -> Locked:
    """Take the locks of hosts from whoever has them; return who had them."""
    script = releasing(release_entry(workspace.run))
    with workspace.fleet(hosts) as fleet:
        return fleet.each([h.name for h in hosts], lambda host: lock_from(_lines(fleet, host, script)))


def _lines(fleet: Fleet, host: HostName, script: str) -> list[str]:
    executed = fleet.session(host).exec(script, timeout_s=TIMEOUT_S)
    return executed.stdout.decode(errors="replace").split("\n")
