"""Rollout: in which order hosts change, so that a bad change meets few of them. Pure."""

from collections.abc import Collection, Iterator, Sequence
from itertools import zip_longest

from envoymesh.model.mesh import Host, HostName, Mesh, Rollout, ServiceName
from envoymesh.plan.change import HostPlan
from envoymesh.resources import Unit, Validation


def batches(mesh: Mesh, changing: Collection[HostName], serving: Collection[HostName]) -> Iterator[list[HostName]]:
    """Yield the hosts of `changing` in batches, each to be well before the next begins.

    Where none of them serves yet, all change at once. Else service hosts come before edges, so that no front learns
    of an endpoint before it serves: first, all at once, those that serve nobody yet, then the canaries, then up to
    `max_parallel` of each service at a time; edges one by one.

    Args:
        mesh: the inventory, whose order it is.
        changing: hosts that have something to change.
        serving: hosts that were provisioned before.
    """
    yield from (batch for batch in _batches(mesh, changing, serving) if batch)


def _batches(mesh: Mesh, changing: Collection[HostName], serving: Collection[HostName]) -> Iterator[list[HostName]]:
    if not any(name in serving for name in changing):
        yield [name for name in mesh.hosts if name in changing]
        return
    fresh = [h for h in mesh.hosts.values() if h.name in changing and h.name not in serving]
    others = [h for h in mesh.hosts.values() if h.name in changing and h.name in serving and not h.is_edge]
    yield [h.name for h in fresh if not h.is_edge]
    canaries, rest = others[: mesh.rollout.canary], others[mesh.rollout.canary :]
    yield [h.name for h in canaries]
    slices = [_slices(of, size_of(mesh.rollout, len(mesh.hosts_of(service)))) for service, of in _by_service(rest)]
    for together in zip_longest(*slices, fillvalue=()):
        yield [h.name for part in together for h in part]
    yield [h.name for h in fresh if h.is_edge]
    yield from ([edge.name] for edge in mesh.edges if edge.name in changing and edge.name in serving)


def _by_service(hosts: Sequence[Host]) -> list[tuple[ServiceName, list[Host]]]:
    found: dict[ServiceName, list[Host]] = {}
    for host in hosts:
        if host.service is not None:
            found.setdefault(host.service, []).append(host)
    return list(found.items())


def _slices(hosts: Sequence[Host], size: int) -> list[Sequence[Host]]:
    return [hosts[start : start + size] for start in range(0, len(hosts), size)]


def size_of(rollout: Rollout, total: int) -> int:
    """Return how many hosts of a service with `total` may change at a time: at least one."""
    number = int(rollout.max_parallel.removesuffix("%"))
    return max(1, total * number // 100) if rollout.max_parallel.endswith("%") else number


def concerns_clients(plan: HostPlan) -> bool:
    """Return whether a plan touches what serves: a process, or a file that one reads."""
    guarded = {address for r in plan.desired if isinstance(r, Validation) for address in r.guards}
    return any(isinstance(c.resource, Unit) or c.address in guarded for c in plan.changes)


__all__ = ["batches", "concerns_clients", "size_of"]
