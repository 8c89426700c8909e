"""Changes: the steps of a plan, each with its reason in words."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from envoymesh.model.mesh import HostName
from envoymesh.resources import Effect, Resource, Unit


class Action(StrEnum):
    """What happens to a resource."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    START = "start"
    RESTART = "restart"
    RELOAD = "reload"


@dataclass(frozen=True)
class Change:
    """One step. `because` and `diff` are for people: nothing may be decided by them.

    `resource` is None for what no role asks for any more: there, the address says it all. `effect` is what the step
    does to processes that run; whether their clients are to leave before is all that may be decided by it.
    """

    address: str
    action: Action
    because: str
    diff: str = ""
    resource: Resource | None = field(default=None, repr=False)
    effect: Effect = Effect.NONE


@dataclass(frozen=True)
class HostPlan:
    """What must happen on one host, in this order.

    No changes: the host is as desired. `manifest` lists the addresses that are managed afterwards, `generation`
    tells the apply after which the host was read: the plan is of no use on a host that has seen another since. Where
    it is `alone`, nobody could serve its clients meanwhile, so they are not told to leave.
    """

    host: HostName
    generation: str
    changes: tuple[Change, ...]
    manifest: tuple[str, ...]
    desired: tuple[Resource, ...] = field(repr=False)
    digests: dict[str, str] = field(repr=False)
    alone: bool = False


def successor(address: str, desired: Iterable[Resource]) -> Unit | None:
    """Return the unit that takes the place of the one at `address`, if there is one."""
    return next((r for r in desired if isinstance(r, Unit) and r.takes_the_place_of(address)), None)
