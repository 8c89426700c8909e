"""Effects: what each change of a plan does to the processes of its host, by what runs there. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from envoymesh.plan.change import Action, Change
from envoymesh.plan.observed import Observed
from envoymesh.resources import Effect, File, Resource, Unit

MEANS = {
    Effect.NONE: "no process that runs is touched",
    Effect.HOT: "Envoy takes it while it serves; no client's connection is closed for it",
    Effect.DRAIN: "Envoy replaces a listener: its connections are told to end, closed after 30 s",
    Effect.HOT_RESTART: "a new Envoy takes over; the old one's connections end, the last ones after 45 s",
    Effect.RESTART: "a process ends and starts anew; requests that it has then can fail",
    Effect.STOP: "a process ends for good",
}
"""Each effect in words; the seconds are Envoy's drain times (templates/units/envoy.service.j2)."""


def worst(effects: list[Effect]) -> Effect:
    """Return the worst of these effects, NONE if there are none."""
    return max(effects, key=lambda e: e.severity, default=Effect.NONE)


def with_effects(changes: Sequence[Change], desired: Sequence[Resource], observed: Observed) -> list[Change]:
    """Return these changes, all of one host's plan, with their effects."""
    units = {r.name: r for r in desired if isinstance(r, Unit)}
    actions = {c.address: c.action for c in changes}
    files = [r for r in desired if isinstance(r, File)]
    effects = (_effect(c, units, actions, files, observed) for c in changes)
    return [c if e is Effect.NONE else replace(c, effect=e) for c, e in zip(changes, effects, strict=True)]


def _effect(
    change: Change,
    units: Mapping[str, Unit],
    actions: Mapping[str, Action],
    files: Sequence[File],
    observed: Observed,
) -> Effect:
    match change.resource:
        case Unit() as unit if change.action is Action.UPDATE:  # an Envoy reads its files once more
            return worst([_loading(f, unit, observed) for f in files if f.reader and f.reader.unit == unit.name])
        case Unit():
            return _of_process(change.action)
        case File(reader=reader) as file if reader is not None and reader.unit in units:
            unit = units[reader.unit]
            action = actions.get(unit.address, Action.UPDATE)
            return _loading(file, unit, observed) if action is Action.UPDATE else _of_process(action)
    stops = change.action is Action.DELETE and change.address.startswith("unit:")
    return Effect.STOP if stops else Effect.NONE


def _of_process(action: Action) -> Effect:
    """Return what starting a process costs: nothing where none ran."""
    return {Action.RELOAD: Effect.HOT_RESTART, Action.RESTART: Effect.RESTART}.get(action, Effect.NONE)


def _loading(file: File, unit: Unit, observed: Observed) -> Effect:
    """Return what it does to the process of a unit, which goes on running, that `file` is replaced.

    An Envoy may have taken an edit by hand, which keeps the version that the file tells: then it counts as taken.
    """
    if file.reader is None or file.reader.stat not in unit.probe.stats:
        return Effect.NONE  # it is read at the start, and what runs was started from what is desired
    there = observed.paths.get(file.path)
    loaded = observed.stats(unit.probe.port).get(file.reader.stat)
    same = there is not None and there.sha256 == file.sha256 and loaded == unit.probe.stats[file.reader.stat]
    return Effect.NONE if same else Effect(file.reader.effect)


__all__ = ["MEANS", "Effect", "with_effects", "worst"]
