"""Leaving: which processes tell their clients to go before a change reaches them. Pure."""

from collections.abc import Iterator

from envoymesh.plan.change import HostPlan
from envoymesh.plan.effects import Effect, worst
from envoymesh.resources import File, Resource, Unit

COSTS = (Effect.DRAIN, Effect.HOT_RESTART, Effect.RESTART)
"""What ends connections that are there."""


def leaving(plan: HostPlan) -> Iterator[tuple[Unit, Effect]]:
    """Yield each unit that its clients shall leave before the plan is made true, and what that does to it."""
    for unit in plan.desired:
        if isinstance(unit, Unit) and unit.leave_s and not plan.alone:
            effect = worst([c.effect for c in plan.changes if _concerns(c.resource, unit)])
            if effect in COSTS:
                yield unit, effect


def _concerns(resource: Resource | None, unit: Unit) -> bool:
    if isinstance(resource, File):
        return resource.reader is not None and resource.reader.unit == unit.name
    return resource == unit
