"""From desired and observed to a plan. Pure and total: the same data give the same plan."""

import difflib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from envoymesh.model.mesh import HostName
from envoymesh.plan.change import Action, Change, HostPlan, successor
from envoymesh.plan.effects import with_effects
from envoymesh.plan.observed import LIVE, Observed, ObservedPath, ObservedUnit
from envoymesh.problems import Failed, listed
from envoymesh.resources import Artifact, Directory, File, Resource, Unit, User, Validation


def plan_for(host: HostName, desired: Sequence[Resource], observed: Observed) -> HostPlan:
    """Return what must change on `host`.

    Raises:
        Failed: the host cannot have what is desired (its architecture, its C library, its Python).
    """
    manifest = tuple(r.address for r in desired if not isinstance(r, Validation))
    changes = [change for r in desired if (change := _change(r, observed, host)) is not None]
    if {c.address for c in changes}.isdisjoint(_guarded(desired)):
        changes += [
            c for r in desired if isinstance(r, Unit) and (c := _loaded_change(r, observed, changes)) is not None
        ]
    changes += _removals(manifest, observed.manifest, desired)
    if not changes and observed.manifest != frozenset(manifest):
        because = "an apply that was cut off did not finish it"
        changes.append(Change("manifest:last-apply", Action.UPDATE, because))
    changes = with_effects(changes, desired, observed)
    digests = {r.address: r.source.digest(observed.platform) for r in desired if isinstance(r, Artifact)}
    return HostPlan(host, observed.generation, tuple(changes), manifest if changes else (), tuple(desired), digests)


def _change(resource: Resource, observed: Observed, host: HostName) -> Change | None:
    match resource:
        case User():
            missing = resource.name not in observed.users
            return _create(resource) if missing else None
        case Directory():
            return _directory_change(resource, observed.paths.get(resource.path))
        case File():
            return _file_change(resource, observed.paths.get(resource.path))
        case Artifact():
            return _artifact_change(resource, observed, host)
        case Unit():
            return _unit_change(resource, observed)
        case Validation():
            return None


def _create(resource: Resource) -> Change:
    return Change(resource.address, Action.CREATE, "it is missing", resource=resource)


def _update(resource: Resource, because: str, diff: str = "") -> Change:
    return Change(resource.address, Action.UPDATE, because, diff, resource)


def _directory_change(desired: Directory, observed: ObservedPath | None) -> Change | None:
    if observed is None:
        return _create(desired)
    if observed.kind != "directory":
        return _update(desired, f"it is a {observed.kind}")
    differs = _differences(desired, observed)
    return _update(desired, "; ".join(differs)) if differs else None


def _file_change(desired: File, observed: ObservedPath | None) -> Change | None:
    if observed is None:
        return replace(_create(desired), diff=_diff(desired, b""))
    if observed.kind != "regular file":
        return _update(desired, f"it is a {observed.kind}")
    differs = _differences(desired, observed)
    if observed.sha256 != desired.sha256:
        differs.insert(0, "its content differs")
    if not differs:
        return None
    return _update(desired, "; ".join(differs), _diff(desired, observed.content))


def _differences(desired: File | Directory, observed: ObservedPath) -> list[str]:
    differs = []
    if (observed.owner, observed.group) != (desired.owner, desired.group):
        differs.append(f"owner is {observed.owner}:{observed.group}, not {desired.owner}:{desired.group}")
    if observed.mode != desired.mode:
        differs.append(f"mode is {observed.mode:04o}, not {desired.mode:04o}")
    return differs


def _diff(desired: File, observed: bytes | None) -> str:
    """Return a unified diff from what is there to what is desired; `observed` is None when it was not read."""
    if desired.secret:
        return f"({desired.about or 'secret content'}, not shown)\n"
    return "" if observed is None else _unified(observed, desired.content)


@lru_cache
def _unified(observed: bytes, desired: bytes) -> str:
    """Return a unified diff; hosts with the same difference share it."""
    try:
        old, new = (text.decode().splitlines(keepends=True) for text in (observed, desired))
    except UnicodeDecodeError:
        return "(not text, not shown)\n"
    ends = (
        line if line.endswith("\n") else f"{line}\n" for line in difflib.unified_diff(old, new, "observed", "desired")
    )
    return "".join(ends)


def _artifact_change(desired: Artifact, observed: Observed, host: HostName) -> Change | None:
    try:
        digest = desired.source.digest(observed.platform)
    except Failed as failed:
        now = f"{host}: nothing was changed"
        raise Failed(*(replace(p, at=f"{host}  {desired.address}", now=now) for p in failed.problems)) from None
    there = observed.artifacts.get(desired.path)
    if there == digest:
        return None
    return _create(desired) if there is None else _update(desired, "its digest differs")


def _unit_change(desired: Unit, host: Observed) -> Change | None:
    """Return whether a unit must be started, reloaded or restarted, from what runs, not from what this run changes."""
    observed = host.units.get(desired.name)
    if observed is None or observed.active not in ("active", "reloading"):
        return Change(desired.address, Action.START, "it does not run", resource=desired)
    if observed.stamp != desired.stamp:
        action = Action.RELOAD if _fits(desired, observed) else Action.RESTART
        return Change(desired.address, action, "what runs was started from something else", resource=desired)
    if _fits(desired, observed) and not host.stats(desired.probe.port):
        return Change(desired.address, Action.RELOAD, "its admin interface does not answer", resource=desired)
    if observed.enabled != "enabled":
        return _update(desired, f"it is {observed.enabled or 'not installed'}, not enabled")
    if observed.needs_reload:
        return _update(desired, "systemd has not read its file")
    return None


def _fits(desired: Unit, observed: ObservedUnit) -> bool:
    """Return whether a process as desired can take over from the one that runs."""
    return bool(desired.takeover) and observed.takeover == desired.takeover


def _guarded(desired: Sequence[Resource]) -> frozenset[str]:
    return frozenset(address for r in desired if isinstance(r, Validation) for address in r.guards)


def _loaded_change(desired: Unit, observed: Observed, changes: Sequence[Change]) -> Change | None:
    """Return that an Envoy must be made to read its files once more; a start or a file's rename does that anyway."""
    if not desired.probe.stats or desired.address in {c.address for c in changes}:
        return None
    stats = observed.stats(desired.probe.port)
    missed = [name for name, version in desired.probe.stats.items() if stats.get(name) != version]
    if missed:
        return _update(desired, f"it runs without the current {listed(missed)}")
    return _update(desired, "it reports that it goes") if stats.get(LIVE) == "0" else None


_REMOVABLE = ("unit", "file", "artifact", "directory", "user")
"""Kinds of addresses in the order in which they go; a manifest may hold no others."""


def _removals(wanted: Sequence[str], managed: frozenset[str], desired: Sequence[Resource]) -> list[Change]:
    """Return a deletion for each managed address that is not wanted, what is inside a directory before it."""
    gone = [(address.split(":", 1)[0], address) for address in managed - set(wanted)]
    known = [(_REMOVABLE.index(kind), -address.count("/"), address) for kind, address in gone if kind in _REMOVABLE]
    return [Change(address, Action.DELETE, _needless(address, desired)) for _, _, address in sorted(known)]


def _needless(address: str, desired: Sequence[Resource]) -> str:
    new = successor(address, desired)
    return f"once its requests are done: {new.name} takes its place" if new else "nothing asks for it any more"
