"""Deploy: another release of an application reaches its hosts; where one is not well with it, none keeps it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from envoymesh.events import Event, Notify, Outcome, OutcomeKind, failed_outcome
from envoymesh.model.edit import with_release
from envoymesh.model.mesh import HostName, ServiceName
from envoymesh.problems import Failed, Problem
from envoymesh.run import releases
from envoymesh.run.provision import provision
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
    back, and the hosts that have the release already get back the one that they had.

    Raises:
        Failed: nothing was changed, and the inventory is as it was.
    """
    before = workspace.mesh.services[service].release
    services = {**workspace.mesh.services, service: replace(workspace.mesh.services[service], release=release)}
    entered = replace(workspace, mesh=replace(workspace.mesh, services=services))
    if release == before:
        return provision(entered, entered.mesh.hosts_of(service), notify)
    workspace.save(partial(with_release, service=service, release=release))
    notify(Event("", f"{workspace.inventory.name}: entered release {release} of {service}"))
    try:
        outcomes = provision(entered, entered.mesh.hosts_of(service), notify)
    except Failed:
        _entered_again(workspace, service, before, notify)
        raise
    if any(o.kind is OutcomeKind.FAILED for o in outcomes):
        _entered_again(workspace, service, before, notify)
        return _taken_back(workspace, service, release, outcomes, notify)
    return outcomes


def _entered_again(workspace: Workspace, service: ServiceName, release: str | None, notify: Notify) -> None:
    workspace.save(partial(with_release, service=service, release=release))
    notify(Event("", f"{workspace.inventory.name}: {_named(release)} of {service} again"))


def _named(release: str | None) -> str:
    return f"release {release}" if release else "no release"


def _taken_back(
    workspace: Workspace, service: ServiceName, release: str, outcomes: Sequence[Outcome], notify: Notify
) -> list[Outcome]:
    """Give the hosts what the inventory says again, and clear away what failed; return what became of all."""
    begun = [workspace.mesh.hosts[o.host] for o in outcomes if o.kind in (OutcomeKind.CHANGED, OutcomeKind.FAILED)]
    again = {o.host: o for o in provision(workspace, begun, notify)}
    inventory = f"{workspace.inventory.name} has {_named(workspace.mesh.services[service].release)} of {service} again"
    told = []
    for outcome in (_one_of(o, again, release) for o in outcomes):
        problem = outcome.problem
        told.append(
            replace(outcome, problem=replace(problem, now=f"{problem.now}; {inventory}")) if problem else outcome
        )
    return told


def _one_of(outcome: Outcome, again: dict[HostName, Outcome], release: str) -> Outcome:
    """Return what became of a host in the end; what failed first says most."""
    if outcome.kind is not OutcomeKind.CHANGED:
        return outcome
    if again[outcome.host].problem:
        return again[outcome.host]
    problem = Problem(
        code="deploy/taken-back",
        what=f"`{outcome.host}` was well with release {release}, another host was not",
        at=outcome.host,
        now=f"{outcome.host}: it was given back what it had before",
        hint="./mesh status",
    )
    return failed_outcome(outcome.host, problem)
