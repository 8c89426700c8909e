"""What hosts keep of earlier runs, read from them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from envoymesh.model.mesh import HostName
from envoymesh.plan.generation import Generation, Run
from envoymesh.problems import Failed, Problem
from envoymesh.resources import Resource
from envoymesh.run.converge import GATHER_TIMEOUT_S
from envoymesh.run.fleet import Fleet
from envoymesh.wire.generation import HISTORY_SCRIPT, content_from, content_script, generations_from
from envoymesh.wire.lock import locking, refuse_held

History = Mapping[HostName, tuple[Generation, ...] | Problem]
"""What each host keeps, oldest first, or why that is not known."""


def kept_by(fleet: Fleet, host: HostName, run: Run | None = None) -> tuple[Generation, ...]:
    """Return the generations that a host keeps, oldest first; take its lock first for a `run` that will change it.

    Raises:
        Failed: the host is out of reach, its answer makes no sense, or another has its lock.
    """
    lines = _lines(fleet, host, locking(run, HISTORY_SCRIPT) if run else HISTORY_SCRIPT)
    refuse_held(host, lines)
    return generations_from(host, lines)


def had(fleet: Fleet, host: HostName, number: int) -> tuple[Resource, ...]:
    """Return what a host had as its generation `number`.

    Raises:
        Failed: the host is out of reach, or what it keeps is damaged.
    """
    return content_from(host, number, _lines(fleet, host, content_script(number)))


def history_of(fleet: Fleet, hosts: Sequence[HostName]) -> History:
    """Return what `hosts` keep, all read at once."""
    return fleet.each(hosts, lambda host: kept_by(fleet, host))


def _lines(fleet: Fleet, host: HostName, script: str) -> list[str]:
    try:
        executed = fleet.session(host).exec(script, timeout_s=GATHER_TIMEOUT_S)
    except Failed as failed:  # what was read until then may hold a private key
        raise Failed(*(replace(p, saw=()) for p in failed.problems)) from None
    return executed.stdout.decode(errors="replace").split("\n")
