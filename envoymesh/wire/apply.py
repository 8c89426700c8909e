"""Apply: from a host's plan to the script and the stream that carry it out, and what came of it."""

import hashlib
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from envoymesh.plan.change import Action, Change, HostPlan, successor
from envoymesh.plan.effects import Effect
from envoymesh.plan.generation import Run
from envoymesh.plan.leave import leaving
from envoymesh.resources import Artifact, Directory, File, Unit, User, Validation
from envoymesh.wire.audit import entry
from envoymesh.wire.generation import KEPT, about, encoded
from envoymesh.wire.leave import IDLE_WITHIN_S, LEAVE
from envoymesh.wire.lock import WRITER

APPLY_SCRIPT = WRITER + LEAVE + (files("envoymesh.wire") / "apply.sh").read_text(encoding="utf-8")
"""The bash text of every apply; what it shall do comes on its standard input."""

UNIT_FOLDER = "/etc/systemd/system/"


@dataclass(frozen=True)
class Parcel:
    """Bulky content that travels: its size in bytes, its SHA-256, and how to read it in slices."""

    size: int
    sha256: str
    read: Callable[[], Iterable[bytes]]


def parcel_of(content: bytes, sha256: str) -> Parcel:
    """Return a parcel of content that is at hand."""
    return Parcel(len(content), sha256, lambda: (content,))


@dataclass(frozen=True)
class Call:
    """One step of an apply: a function of apply.sh with its words, and what it reads from the stream.

    `problem` is the code of the problem when it fails.
    """

    words: tuple[str, ...]
    address: str
    problem: str
    parcel: Parcel | None = None

    @property
    def verb(self) -> str:
        """The function's name."""
        return self.words[0]


@dataclass(frozen=True)
class Payload:
    """A host's plan as steps for `APPLY_SCRIPT`; the script names them by their index."""

    host: str
    calls: tuple[Call, ...]

    @property
    def size_bytes(self) -> int:
        """How much content travels."""
        return sum(call.parcel.size for call in self.calls if call.parcel is not None)

    def stream(self) -> Iterator[bytes]:
        """Yield what goes to the standard input of `APPLY_SCRIPT`: the steps, then their content."""
        lines = [f"at {i}; {shlex.join(call.words)} || abort {call.problem}" for i, call in enumerate(self.calls)]
        text = "\n".join([*lines, "finish done"]).encode()
        yield f"{len(text)}\n".encode() + text
        for call in self.calls:
            if call.parcel is not None:
                yield from call.parcel.read()


def payload_for(
    plan: HostPlan, run: Run, parcels: Mapping[str, Parcel], *, lock: str = "", takes_back: int | None = None
) -> Payload:
    """Return the steps of a plan that has changes.

    Args:
        plan: a host's plan.
        run: what the host keeps with what it is made to have, and tells in its audit log.
        parcels: the content of each artifact that the plan creates or updates, by address.
        lock: the name of the run that must have the host's lock; empty if none was taken.
        takes_back: the number of the generation that is taken back and forgotten, 0 where there is none to forget; None
            where what is applied is a generation of its own.
    """
    first = (
        Call(("begin", plan.generation, lock), "host:lock", "apply/not-begun"),
        Call(("audited", entry(run, plan.changes, takes_back)), "host:audit", "apply/failed"),
    )
    return Payload(plan.host, (*first, *_calls(plan, run if takes_back is None else takes_back, parcels)))


def _calls(plan: HostPlan, run: Run | int, parcels: Mapping[str, Parcel]) -> Iterator[Call]:
    """Yield the steps: what harms nobody, validation, what goes live, what is waited for, what goes.

    Where a unit takes the place of another, it serves before anything refers to it, and the other one ends last.
    """
    changed = [c for c in plan.changes if c.resource is not None]
    deleted = [c for c in plan.changes if c.action is Action.DELETE]
    first = [c for c in deleted if c.address.startswith("unit:") and not successor(c.address, plan.desired)]
    union = ("remember", *sorted({*plan.manifest, *(c.address for c in deleted)}))
    yield Call(union, "host:manifest", "apply/failed")
    for change in changed:
        yield from _preparation(change, plan, parcels)
    yield from _validations(plan)
    if plan.manifest and isinstance(run, Run):
        content = encoded(plan.desired)
        parcel = parcel_of(content, hashlib.sha256(content).hexdigest())
        words = ("generation", str(parcel.size), parcel.sha256, about(run, plan.changes))
        yield Call(words, "host:generation", "apply/not-stored", parcel)
    for unit, effect in leaving(plan):
        within_s = IDLE_WITHIN_S if effect is Effect.RESTART else 0  # what drains finishes what it has
        words = ("leave", str(unit.probe.port), str(unit.leave_s), str(within_s))
        yield Call(words, unit.address, "apply/failed")
    yield from _started_beside(plan)
    yield Call(("commit",), "host:files", "apply/failed")
    yield from (_deletion(c) for c in first)
    yield from _unit_calls(plan, [r for r in plan.desired if isinstance(r, Unit) and not r.replaces])
    yield Call(("settle",), "host:units", "apply/failed")
    if plan.manifest and run:
        kept = ("keep", str(KEPT)) if isinstance(run, Run) else ("drop", str(run))
        yield Call(kept, "host:generation", "apply/failed")
    for change in (c for c in deleted if c not in first):
        if change.address.startswith("unit:"):
            name = change.address.removeprefix("unit:")
            yield Call(("await_idle", name, str(IDLE_WITHIN_S)), change.address, "apply/failed")
        yield _deletion(change)
    if any(c.address.startswith(f"file:{UNIT_FOLDER}") for c in deleted):
        yield Call(("reload",), "host:systemd", "apply/failed")
    last = ("remember", *plan.manifest) if plan.manifest else ("forget",)
    yield Call(last, "host:manifest", "apply/failed")


def _preparation(change: Change, plan: HostPlan, parcels: Mapping[str, Parcel]) -> Iterator[Call]:
    words: tuple[str, ...]
    match change.resource:
        case User(name=name):
            yield Call(("user", name), change.address, "apply/failed")
        case Directory(path=path, owner=owner, group=group, mode=mode):
            yield Call(("directory", path, owner, group, f"{mode:04o}"), change.address, "apply/failed")
        case Artifact(path=path, source=source):
            parcel = parcels[change.address]
            words = (
                "artifact",
                path,
                source.kind,
                plan.digests[change.address],
                str(parcel.size),
                parcel.sha256,
            )
            yield Call(words, change.address, "apply/not-stored", parcel)
        case File() as file:
            size = str(len(file.content))
            words = ("stage", file.path, file.owner, file.group, f"{file.mode:04o}", size, file.sha256)
            yield Call(words, change.address, "apply/not-stored", parcel_of(file.content, file.sha256))
        case _:
            return


def _validations(plan: HostPlan) -> Iterator[Call]:
    changed = {c.address for c in plan.changes}
    for validation in plan.desired:
        if isinstance(validation, Validation) and not changed.isdisjoint(validation.guards):
            content = File("", validation.content())
            words = (
                "validate",
                validation.user,
                str(len(content.content)),
                content.sha256,
                *validation.command,
            )
            parcel = parcel_of(content.content, content.sha256)
            yield Call(words, validation.address, "envoy/refused", parcel)


def _started_beside(plan: HostPlan) -> Iterator[Call]:
    """Yield what makes systemd know the units' files, and those units serve that take the place of others."""
    changes = {c.address for c in plan.changes}
    units = [r for r in plan.desired if isinstance(r, Unit)]
    paths = [path for unit in units if f"file:{(path := UNIT_FOLDER + unit.name)}" in changes]
    if paths:
        yield Call(("commit", *paths), "host:files", "apply/failed")
    if paths or any(u.address in changes for u in units):
        yield Call(("reload",), "host:systemd", "apply/failed")
    yield from _unit_calls(plan, [u for u in units if u.replaces])


def _unit_calls(plan: HostPlan, units: Sequence[Unit]) -> Iterator[Call]:
    """Yield starts and restarts, then the wait for each of `units`: any change may concern any of them."""
    changes = {c.address: c for c in plan.changes}
    for unit in units:
        match changes.get(unit.address):
            case Change(action=Action.START | Action.RESTART):
                yield Call(("restart", unit.name), unit.address, "unit/not-started")
            case Change(action=Action.RELOAD):
                at = f"{unit.probe.address}/{unit.probe.port}"
                yield Call(("hot_restart", unit.name, at), unit.address, "unit/not-replaced")
            case Change():
                yield Call(("enable", unit.name), unit.address, "apply/failed")
                if unit.probe.stats:
                    yield Call(("rename_again", *_watched(plan)), unit.address, "apply/failed")
                    yield Call(("come_back", str(unit.probe.port)), unit.address, "apply/failed")
    for unit in (unit for unit, _ in leaving(plan) if unit in units):
        yield Call(("come_back", str(unit.probe.port)), unit.address, "apply/failed")
    for unit in units:
        probe = unit.probe
        texts = (f'{name}: "{value}"' for name, value in probe.stats.items())
        words = ("ready", unit.name, f"{probe.address}/{probe.port}", probe.path, str(probe.timeout_s), *texts)
        yield Call(words, unit.address, "unit/not-ready")


def _watched(plan: HostPlan) -> list[str]:
    """Return the paths of the files that an Envoy of this host reads, in the order of its resources."""
    guarded = {address for r in plan.desired if isinstance(r, Validation) for address in r.guards}
    files_ = (r.path for r in plan.desired if isinstance(r, File) and r.address in guarded)
    return [path for path in files_ if not path.startswith(UNIT_FOLDER)]


def _deletion(change: Change) -> Call:
    kind, name = change.address.split(":", 1)
    return Call((f"remove_{kind}", name), change.address, "apply/failed")
