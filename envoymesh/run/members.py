"""Service hosts that come and go: ready before the front learns of them, forgotten by it before they stop."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from ipaddress import IPv4Address

from envoymesh.events import Event, Notify, Outcome, OutcomeKind, failed_outcome
from envoymesh.model.edit import new_addresses, new_names, with_host, without_host
from envoymesh.model.inventory import NAME_RULE, is_name
from envoymesh.model.mesh import Host, HostName, Mesh, ServiceName
from envoymesh.model.ports import ADMIN_PORT
from envoymesh.problems import Failed, Problem, did_you_mean, listed
from envoymesh.run.converge import Reading, apply_all
from envoymesh.run.health import await_healthy
from envoymesh.run.interrupt import INTERRUPTED
from envoymesh.run.lock import read_to_change
from envoymesh.run.provision import provision
from envoymesh.run.workspace import Workspace, host_named
from envoymesh.wire.leave import IDLE_WITHIN_S, idle_script


@dataclass(frozen=True)
class NewHost:
    """A host to enter into the inventory."""

    name: HostName
    address: IPv4Address


def service_named(mesh: Mesh, name: str) -> ServiceName:
    """Return the service `name`.

    Raises:
        Failed: there is none; the problem suggests the nearest.
    """
    service = ServiceName(name)
    if service not in mesh.services:
        what, saw = f"there is no service `{name}`", (f"services: {', '.join(mesh.services)}",)
        at, hint = "inventory.yaml  services", did_you_mean(name, mesh.services)
        raise Failed(Problem("inventory/unknown-service", what, at, saw, hint=hint))
    return service


def scale_target(mesh: Mesh, target: str) -> tuple[ServiceName, int]:
    """Return the service and the number in `SERVICE=NUMBER`.

    Raises:
        Failed: it is not of that form, the service is unknown, or the number is below one.
    """
    name, _, number = target.partition("=")
    if not number.isdecimal() or int(number) < 1:
        what = f"`{target}` is not SERVICE=NUMBER with a number of at least 1"
        hint = f"./mesh scale {next(iter(mesh.services))}=3"
        raise Failed(Problem("task/bad-argument", what, "scale", now="nothing was changed", hint=hint))
    return service_named(mesh, name), int(number)


def named_host(workspace: Workspace, name: str, address: str) -> NewHost:
    """Return the host to add that exists already, as the operator names it.

    Raises:
        Failed: one of the two is missing or cannot be; hosts are made here, so that none is just there.
    """
    at, now = "add-service-host --host --address", "nothing was changed"
    if workspace.maker() is not None:
        what = f"hosts of this mesh are made by {workspace.provider.name}: they get their names and addresses from it"
        raise Failed(Problem("task/bad-argument", what, at, now=now, hint="leave --host and --address out"))
    try:
        new = NewHost(HostName(name), IPv4Address(address))
    except ValueError:
        what = f"`{address}` is not an IPv4 address"
        raise Failed(Problem("task/bad-argument", what, at, now=now, hint="--host NAME --address 10.0.3.17")) from None
    if not is_name(name):
        raise Failed(Problem("inventory/bad-name", f"`{name}` cannot be a name", at, now=now, hint=NAME_RULE))
    for other in workspace.mesh.hosts.values():
        if name == other.name or new.address == other.address:
            what = f"the inventory has a host `{other.name}` at {other.address} already"
            raise Failed(Problem("inventory/host-taken", what, at, now=now, hint="see it: ./mesh status"))
    return new


def next_hosts(workspace: Workspace, service: ServiceName, count: int) -> list[NewHost]:
    """Return `count` hosts to make for `service`, with unused names and addresses.

    Raises:
        Failed: `count` is below one, hosts are not made here, or the network is full.
    """
    at, now, mesh = "add-service-host", "nothing was changed", workspace.mesh
    if count < 1:
        raise Failed(Problem("task/bad-argument", f"`{count}` hosts cannot be added", at, now=now, hint="--count 1"))
    if workspace.maker() is None:
        what = "this mesh uses machines that exist: say which one to add"
        raise Failed(Problem("task/bad-argument", what, at, now=now, hint="--host NAME --address 10.0.3.17"))
    pairs = zip(new_names(mesh, service, count), new_addresses(mesh, service, count), strict=True)
    return [NewHost(name, address) for name, address in pairs]


def add(workspace: Workspace, service: ServiceName, new: Sequence[NewHost], notify: Notify) -> list[Outcome]:
    """Make and provision new hosts of a service, then enter them into the inventory and into every front.

    The inventory is written between the two. What is cut off before, also by Ctrl-C, is completed by the same command,
    or taken away by `down`; what is cut off after, by `provision`: the same command would add further hosts.

    Raises:
        Failed: a new host could not be made or did not become ready; it was taken away again. Or the fronts could not
            be told of the hosts, which the inventory has then.
    """

    def entered(text: str) -> str:
        return reduce(lambda text, host: with_host(text, host.name, service, host.address), new, text)

    larger = workspace.edited(entered)
    hosts = [larger.mesh.hosts[host.name] for host in new]
    outcomes = _made_ready(larger, hosts, notify)
    if not all(o.ok for o in outcomes):
        return outcomes
    workspace.save(entered)
    try:
        notify(Event("", f"{workspace.inventory.name}: entered {', '.join(h.name for h in hosts)}"))
        outcomes += _fronts_told(larger, notify)
        if all(o.ok for o in outcomes):
            await_healthy(larger, hosts, notify)
    except KeyboardInterrupt:
        raise Failed(replace(INTERRUPTED, hint="complete it: ./mesh provision")) from None
    return outcomes


def _fronts_told(larger: Workspace, notify: Notify) -> list[Outcome]:
    try:
        return provision(larger, larger.mesh.edges, notify)
    except Failed as failed:
        now = f"the new hosts are ready and in {larger.inventory.name}; no front knows them"
        raise Failed(*(replace(p, now=now, hint=_then_provision(p)) for p in failed.problems)) from None


def _then_provision(problem: Problem) -> str:
    """Return the way out where the command's own one, once more, would add further hosts."""
    if problem.code != "lock/held":
        return f"{problem.hint}\nthen: ./mesh provision"
    return (
        "wait for it: ./mesh provision --lock-wait 300\n"
        "if nobody is at work any more: ./mesh lock-release, then: ./mesh provision"
    )


def _made_ready(workspace: Workspace, hosts: Sequence[Host], notify: Notify) -> list[Outcome]:
    maker = workspace.maker()
    try:
        if maker is not None:
            maker.create(list(hosts), lambda host, text: notify(Event(host, text)))
        outcomes = provision(workspace, hosts, notify)
        problems = [o.problem for o in outcomes if o.problem is not None]
        if problems:
            raise Failed(*problems)
    except Failed:
        if maker is not None:
            notify(Event("", "taking the new machines away again"))
            maker.destroy([h.name for h in hosts], lambda host, text: notify(Event(host, text)))
        raise
    return outcomes


def remove(workspace: Workspace, names: Sequence[str], notify: Notify) -> list[Outcome]:
    """Take hosts out of every front, then stop them, then out of the inventory.

    The inventory is written last: whatever cuts this off, the same command completes it. Where a front could not be
    told, nothing is stopped. A host that exists already and is out of reach is removed as it is.

    Raises:
        Failed: a name is not a service host's, or a service would be left without a host.
    """
    hosts = [host_named(workspace.mesh, name) for name in names]
    _removable(workspace.mesh, hosts)

    def removed(text: str) -> str:
        return reduce(without_host, (h.name for h in hosts), text)

    smaller = workspace.edited(removed)
    outcomes = provision(smaller, smaller.mesh.edges, notify)
    if workspace.stop.is_set() or not all(o.ok for o in outcomes):
        notify(Event("", f"nothing was stopped; {workspace.inventory.name} still has {listed(list(names))}"))
        return [*outcomes, *(Outcome(h.name, OutcomeKind.NOT_STARTED) for h in hosts)]
    _await_idle(workspace, hosts, notify)
    outcomes += _stopped(workspace, hosts, notify)
    workspace.save(removed)
    notify(Event("", f"{workspace.inventory.name}: removed {', '.join(h.name for h in hosts)}"))
    return outcomes


def _await_idle(workspace: Workspace, hosts: Sequence[Host], notify: Notify) -> None:
    """Wait until the sidecars of hosts that get no new requests have answered those that they have."""

    def wait(host: HostName) -> None:
        notify(Event(host, "finishes the requests that it has"))
        fleet.session(host).exec(idle_script(ADMIN_PORT), timeout_s=IDLE_WITHIN_S + 60)

    with workspace.fleet(hosts) as fleet:
        fleet.each([h.name for h in hosts], wait)  # one that is out of reach answers nothing anyway


def _removable(mesh: Mesh, hosts: Sequence[Host]) -> None:
    for host in hosts:
        if host.service is None:
            what = f"`{host.name}` is an edge, not a service host"
            at, hint = f"inventory.yaml  hosts.{host.name}", "name a service host; see them: ./mesh status"
            raise Failed(Problem("inventory/not-a-service-host", what, at, now="nothing was changed", hint=hint))
        if not set(mesh.hosts_of(host.service)) - set(hosts):
            raise Failed(
                Problem(
                    code="inventory/last-host",
                    what=f"`{host.service}` would be left without a host",
                    at=f"inventory.yaml  hosts.{host.name}",
                    now="nothing was changed; it still serves",
                    hint="to end the service, remove it and its hosts from inventory.yaml, then: ./mesh provision",
                )
            )


def _stopped(workspace: Workspace, hosts: Sequence[Host], notify: Notify) -> list[Outcome]:
    """Destroy machines that we made; take everything that we put on hosts that were there before us."""
    maker = workspace.maker()
    if maker is not None:
        maker.destroy([h.name for h in hosts], lambda host, text: notify(Event(host, text)))
        return [Outcome(h.name, OutcomeKind.CHANGED) for h in hosts]
    with workspace.fleet(hosts, notify) as fleet:
        readings = read_to_change(workspace, fleet, {h.name: () for h in hosts}, notify)
        outcomes = [failed_outcome(h, r) for h, r in readings.items() if isinstance(r, Problem)]
        outcomes += apply_all(fleet, (r for r in readings.values() if isinstance(r, Reading)), workspace, notify)
    return [_left_over(o, workspace.mesh.hosts[o.host]) for o in outcomes]


def _left_over(outcome: Outcome, host: Host) -> Outcome:
    """Return the outcome of a host that is removed, and may not have lost what was put on it."""
    if outcome.problem is None:
        return outcome
    again = f"--host {host.name} --address {host.address}"
    gone = "no front sends it anything, and the inventory has it no more"
    problem = replace(
        outcome.problem,
        now=f"{host.name}: {gone}; what was put on it is still there",
        hint=f"once it can be reached: ./mesh add-service-host {host.service} {again}\n"
        f"then: ./mesh remove-service-host {host.name}",
    )
    return replace(outcome, problem=problem)


def scale(workspace: Workspace, service: ServiceName, count: int, notify: Notify) -> list[Outcome]:
    """Bring a service to `count` hosts; the last ones of the inventory go first.

    Where it has so many already, what a command that was cut off did not do for them is done.

    Raises:
        Failed: `count` is below one, or as `add` and `remove`.
    """
    hosts = workspace.mesh.hosts_of(service)
    if count > len(hosts):
        return add(workspace, service, next_hosts(workspace, service, count - len(hosts)), notify)
    if count < len(hosts):
        return remove(workspace, [h.name for h in hosts[count:]], notify)
    outcomes = provision(workspace, [*hosts, *workspace.mesh.edges], notify)
    if all(o.ok for o in outcomes):
        await_healthy(workspace, hosts, notify)
    return outcomes
