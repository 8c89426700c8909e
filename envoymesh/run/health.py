"""Health: whom the fronts send requests to, as they say it themselves."""

import time
from collections.abc import Iterator, Sequence

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

HEALTHY_FOR_S = 4
"""Longer than two health checks of a front take (templates/front/cds.yaml.j2): so it finds out who is not any more."""

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


def stay_healthy(fleet: Fleet, edges: Sequence[Host], hosts: Sequence[Host], notify: Notify) -> dict[HostName, str]:
    """Wait until the fronts have found their members among `hosts` healthy for 4 s on end, 15 s at most.

    Returns:
        Why a front sends nothing to one of them, by host; nothing for hosts that are no members, or where no front
        can be asked.
    """
    deadline = time.monotonic() + HEALTHY_WITHIN_S
    since = time.monotonic()
    told = False
    while members := dict(_members(fleet, edges, hosts)):
        if not told:
            found = _named([h for h in hosts if h.name in members])
            notify(Event("", f"waits until {found} found healthy for {HEALTHY_FOR_S} s"))
            told = True
        ailing = {host: reason for host, reason in members.items() if reason}
        now = time.monotonic()
        if ailing and now > deadline:
            return ailing
        if ailing:
            since = now
        elif now - since >= HEALTHY_FOR_S:
            break
        time.sleep(0.5)
    return {}


def _members(fleet: Fleet, edges: Sequence[Host], hosts: Sequence[Host]) -> Iterator[tuple[HostName, str]]:
    """Yield each of `hosts` that a front has as a member, with why it sends nothing to it; an ailing one last."""
    answers = fleet.each([e.name for e in edges], lambda edge: read(fleet, edge, (), ASKED))
    known = [envoy.health(a.observed) for a in answers.values() if isinstance(a, Reading)]
    for host in hosts:
        found = [health[key] for health in known if (key := (host.service or "", str(host.address))) in health]
        yield from ((host.name, reason) for reason in sorted(found, key=bool))
