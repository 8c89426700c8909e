"""Deploy: another release of an application reaches its hosts; where one is not well with it, none keeps it."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from envoymesh.events import Event, Notify, Outcome, OutcomeKind, failed_outcome
from envoymesh.model.edit import with_release
from envoymesh.model.mesh import HostName, ServiceName
from envoymesh.problems import Failed, Problem, counted
from envoymesh.run import releases
from envoymesh.run.fleet import Fleet
from envoymesh.run.provision import made_so, provision_over
from envoymesh.run.rollout import read_as_before
from envoymesh.run.workspace import Workspace


def release_from(workspace: Workspace, service: ServiceName, folder: str, name: str) -> str:
    """Return the release to deploy: the one called `name`, or what is in `folder`, which is kept as such.

    Raises:
        Failed: there is no such release, the folder has no code, or another release is called so.
    """
    if name and not folder:
        releases.kept_code(workspace.state_dir, service, name)
        return name
    files = releases.package_in(Path(folder) if folder else releases.PROJECT)
    return releases.keep(workspace.state_dir, service, files, name)


def deploy(workspace: Workspace, service: ServiceName, release: str, notify: Notify) -> list[Outcome]:
    """Enter a release into the inventory, and make the hosts of its service so, in batches.

    The inventory is written first, so that `provision` completes what is cut off. When a host fails, it is written
    back, and the hosts that have the release already get back what they had, while this run has their locks still.

    Raises:
        Failed: nothing was changed, and the inventory is as it was.
    """
    before = workspace.mesh.services[service].release
    services = {**workspace.mesh.services, service: replace(workspace.mesh.services[service], release=release)}
    entered = replace(workspace, mesh=replace(workspace.mesh, services=services))
    hosts = entered.mesh.hosts_of(service)
    with entered.fleet([*hosts, *entered.mesh.edges], notify) as fleet:
        if release == before:
            return provision_over(entered, fleet, hosts, notify)
        workspace.save(partial(with_release, service=service, release=release))
        notify(Event("", f"{workspace.inventory.name}: entered release {release} of {service}"))
        try:
            outcomes = provision_over(entered, fleet, hosts, notify)
        except Failed:
            _entered_again(workspace, service, before, notify)
            raise
        if all(o.kind is not OutcomeKind.FAILED for o in outcomes):
            return outcomes
        inventory = _entered_again(workspace, service, before, notify)
        again = _taken_back(workspace, fleet, release, outcomes, notify)
    told = (_one_of(o, again, release) for o in outcomes)
    return [replace(o, problem=replace(p, now=f"{p.now}; {inventory}")) if (p := o.problem) else o for o in told]


def _entered_again(workspace: Workspace, service: ServiceName, release: str | None, notify: Notify) -> str:
    """Write the inventory back; return what it says then."""
    workspace.save(partial(with_release, service=service, release=release))
    named = f"release {release}" if release else "no release"
    notify(Event("", f"{workspace.inventory.name}: {named} of {service} again"))
    said = f"{workspace.inventory.name} has {named} of {service} again"
    return said if release else f"{said}: `provision` gives it what is in {releases.PROJECT.name}/ by then"


def _taken_back(
    workspace: Workspace, fleet: Fleet, release: str, outcomes: Sequence[Outcome], notify: Notify
) -> dict[HostName, Outcome]:
    """Give hosts back what they had, then clear away what failed; return what became of each of them.

    A Ctrl-C of before wanted no further host to be begun, and these are; another one stops this as any rollout.
    """
    going_on = replace(workspace, stop=threading.Event())
    again: dict[HostName, Outcome] = {}
    for kind in (OutcomeKind.CHANGED, OutcomeKind.FAILED):
        hosts = [o.host for o in outcomes if o.kind is kind]
        if kind is OutcomeKind.CHANGED and hosts:
            notify(Event("", f"takes release {release} back from {counted(len(hosts), 'host')}"))
        read = fleet.each(hosts, lambda host: read_as_before(going_on, fleet, host))
        readings = {h: replace(r, now=_still(h, release)) if isinstance(r, Problem) else r for h, r in read.items()}
        again |= made_so(going_on, fleet, readings, notify)
    return again


def _still(host: HostName, release: str) -> str:
    return f"{host}: it serves with release {release} still"


def _one_of(outcome: Outcome, again: dict[HostName, Outcome], release: str) -> Outcome:
    """Return what became of a host in the end; what failed first says most."""
    if outcome.kind is not OutcomeKind.CHANGED:
        return outcome
    host, became = outcome.host, again[outcome.host]
    if became.ok:
        problem = Problem(
            code="deploy/taken-back",
            what=f"`{host}` was well with release {release}, another host was not",
            at=host,
            now=f"{host}: it was given back what it had before",
            hint="./mesh status",
        )
        return failed_outcome(host, problem)
    why = became.problem
    problem = Problem(
        code="deploy/not-taken-back",
        what=f"release {release}, which another host was not well with, was not taken back from `{host}`",
        at=host,
        saw=(f"{why.code}: {why.what}", *why.saw) if why else (str(became.kind),),
        now=why.now if why else _still(host, release),
        hint=f"see what it had: ./mesh history --limit {host}    back to it: ./mesh rollback --limit {host} --to RUN",
    )
    return failed_outcome(host, problem)
