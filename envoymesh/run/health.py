"""Health: whom the fronts send requests to, as they say it themselves."""

import time
from collections.abc import Callable, Mapping, Sequence

from envoymesh.events import Event, Notify
from envoymesh.model.mesh import Host, HostName
from envoymesh.model.ports import ADMIN_PORT
from envoymesh.plan.observed import Observed
from envoymesh.problems import Failed, Problem, listed
from envoymesh.run import envoy
from envoymesh.run.converge import Reading, read
from envoymesh.run.fleet import Fleet
from envoymesh.run.workspace import Workspace

HEALTHY_WITHIN_S = 15

HEALTHY_FOR_S = 7
"""Longer than a front takes to find out that a member is not healthy any more: two checks, each 2.2 s after the other
where there is no traffic, and 0.8 s until an application that hangs is given up (templates/front/cds.yaml.j2)."""

SETTLED_WITHIN_S = 20
"""Longer than a member that is well takes to be found so, and then to stay so."""

ASKED = ((ADMIN_PORT, envoy.CLUSTERS),)


def await_healthy(workspace: Workspace, hosts: Sequence[Host], notify: Notify) -> None:
    """Wait until every front has found all these service hosts healthy, so that they get requests.

    Raises:
        Failed: a front still finds one unhealthy after 15 s, or cannot be asked.
    """
    with workspace.fleet(workspace.mesh.edges) as fleet:
        for edge in workspace.mesh.edges:
            notify(Event(edge.name, f"waits until {_named(hosts)} healthy"))
            deadline = time.monotonic() + HEALTHY_WITHIN_S
            while ailing := _ailing(hosts, read(fleet, edge.name, (), ASKED).observed):
                if time.monotonic() > deadline:
                    raise Failed(_not_healthy(edge, ailing))
                time.sleep(0.1)


def _named(hosts: Sequence[Host]) -> str:
    names = [h.name for h in hosts]
    return f"{listed(names)} {'is' if len(names) == 1 else 'are'}" if len(names) < 4 else f"{len(names)} members are"


def _ailing(hosts: Sequence[Host], observed: Observed) -> list[str]:
    """Return, for each service host that a front sends nothing to, why."""
    health = envoy.health(observed)
    reasons = {h.name: health.get((h.service or "", str(h.address)), "it is no member") for h in hosts}
    return [f"{name}: {reason}" for name, reason in reasons.items() if reason]


def _not_healthy(edge: Host, ailing: Sequence[str]) -> Problem:
    return Problem(
        code="members/not-healthy",
        what=f"`{edge.name}` does not find all members healthy within {HEALTHY_WITHIN_S} s",
        at=f"{edge.name}  its clusters",
        saw=tuple(ailing),
        now="all hosts were provisioned; a front sends nothing to a member until it finds it healthy",
        hint="./mesh check",
    )


SERVER = (ADMIN_PORT, envoy.SERVER_INFO)


def another_serves(fleet: Fleet, edges: Sequence[Host], edge: HostName) -> bool:
    """Return whether the front of another of these edges says that it serves."""
    asked = fleet.each([e.name for e in edges if e.name != edge], lambda other: read(fleet, other, (), [SERVER]))
    return any(isinstance(r, Reading) and envoy.server(r.observed).state == "LIVE" for r in asked.values())


Ailments = Mapping[HostName, str]
"""For each host that a front has as a member, why it gets no requests; an empty string: it does."""


def ailments(fleet: Fleet, edges: Sequence[Host], hosts: Sequence[Host]) -> tuple[Ailments, list[Host]]:
    """Return what the fronts say of their members among `hosts`, and which of the edges have answered."""
    asked = fleet.each([e.name for e in edges], lambda edge: read(fleet, edge, (), ASKED))
    said = {h: envoy.health(a.observed) for h, a in asked.items() if isinstance(a, Reading)}
    answers = {h: health for h, health in said.items() if health}
    found: dict[HostName, str] = {}
    for health in answers.values():
        for host in hosts:
            reason = health.get((host.service or "", str(host.address)))
            if reason is not None:
                found[host.name] = found.get(host.name) or reason
    return found, [e for e in edges if e.name in answers]


def stay_healthy(fleet: Fleet, edges: Sequence[Host], hosts: Sequence[Host]) -> Ailments:
    """Wait until these fronts have found `hosts`, members of theirs, healthy for 7 s on end, 20 s at most.

    Returns:
        Those that they have not, with why; a front that does not answer any more finds nobody healthy.
    """

    def ask() -> Ailments:
        found, answered = ailments(fleet, edges, hosts)
        silent = [e.name for e in edges if e not in answered]
        no_answer = f"{listed(silent)} did not answer" if silent else ""
        return {h.name: no_answer or found.get(h.name, "it is no member any more") for h in hosts}

    return settled(ask, time.monotonic, time.sleep)


def settled(ask: Callable[[], Ailments], clock: Callable[[], float], sleep: Callable[[float], None]) -> Ailments:
    """Ask until nobody ails for `HEALTHY_FOR_S` on end, or somebody does at the end of `SETTLED_WITHIN_S`."""
    deadline = clock() + SETTLED_WITHIN_S
    since: float | None = None
    while True:
        began = clock()  # an answer is as old as its question: the slowest front must not make it count for longer
        ailing = {host: reason for host, reason in ask().items() if reason}
        if ailing and began > deadline:
            return ailing
        since = None if ailing else began if since is None else since
        if since is not None and began - since >= HEALTHY_FOR_S:
            return {}
        sleep(0.5)
