"""Generations on the wire: what a host was made to have by one apply, kept there so that it can have it again."""

import base64
import dataclasses
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, get_args

from envoymesh.plan.change import Change
from envoymesh.plan.generation import Generation, Run
from envoymesh.problems import Failed, Problem
from envoymesh.resources import EnvoyBinary, Probe, PythonPackages, Reader, Resource, Tree
from envoymesh.wire.frames import Frame, frames_from
from envoymesh.wire.gather import LIBRARY

KEPT = 5
"""How many generations a host keeps; the oldest goes."""

HISTORY_SCRIPT = f"{LIBRARY}generations\n"
"""The bash text that tells of every generation that a host keeps."""


def content_script(number: int) -> str:
    """Return the bash text that reads what a host had as its generation `number`."""
    return f"{LIBRARY}generation {number:d}\n"


def about(run: Run, changes: Iterable[Change]) -> str:
    """Return what is kept of a run with the generation that it made."""
    done = [f"{c.action} {c.address}" for c in changes]
    return json.dumps({**dataclasses.asdict(run), "at": run.at.isoformat(), "changes": done})


def generations_from(host: str, lines: Iterable[str]) -> tuple[Generation, ...]:
    """Return what `HISTORY_SCRIPT` printed, oldest first; a generation that does not tell its run is no way back.

    Raises:
        Failed: it ended too early.
    """
    frames = list(frames_from(lines))
    if not frames or frames[-1].kind != "end":
        raise _damaged(host, "reading its generations ended too early")
    found = (_generation(f) for f in frames if f.kind == "generation")
    return tuple(sorted((g for g in found if g is not None), key=lambda g: g.number))


def _generation(frame: Frame) -> Generation | None:
    try:
        said = json.loads(frame.text(1))
        changes = tuple(map(str, said.pop("changes")))
        run = Run(**{**said, "at": datetime.fromisoformat(said["at"]).astimezone(UTC)})
        return Generation(int(frame.fields[0]), run, changes)
    except (LookupError, ValueError, TypeError, AttributeError):
        return None


def content_from(host: str, number: int, lines: Iterable[str]) -> tuple[Resource, ...]:
    """Return what `content_script(number)` printed.

    Raises:
        Failed: it is damaged, or not of this release of the tool.
    """
    content = next((f.data(0) for f in frames_from(lines) if f.kind == "content"), b"")
    try:
        return decoded(content)
    except ValueError as error:
        raise _damaged(host, f"its generation {number} cannot be understood", str(error)) from error


def _damaged(host: str, what: str, *saw: str) -> Failed:
    hint = f"choose another: ./mesh history --limit {host}\nor go forward: ./mesh provision --limit {host}"
    return Failed(Problem("history/damaged", what, host, saw, f"{host}: nothing was changed", hint))


_KINDS = {kind.__name__: kind for kind in (*get_args(Resource), Reader, Probe, EnvoyBinary, PythonPackages, Tree)}


def encoded(resources: Sequence[Resource]) -> bytes:
    """Return resources as bytes that tell all of them: `decoded(encoded(r)) == r`."""
    return gzip.compress(json.dumps([_plain(r) for r in resources]).encode(), mtime=0)


def decoded(content: bytes) -> tuple[Resource, ...]:
    """Return the resources in what `encoded` returned.

    Raises:
        ValueError: it is damaged, or another release of this tool has written it.
    """
    try:
        resources = tuple(_value(item) for item in json.loads(gzip.decompress(content)))
    except (OSError, EOFError, zlib.error, LookupError, TypeError, AttributeError) as error:
        raise ValueError(repr(error)) from error
    if not all(isinstance(r, get_args(Resource)) for r in resources):
        raise ValueError("not only resources")
    return resources


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; what JSON has not is an object with one key, its type."""
    if value is None or isinstance(value, str | int | float):
        return value
    kind, content = _tagged(value)
    return {kind: content}


def _tagged(value: Any) -> tuple[str, Any]:
    match value:
        case bytes():
            return "bytes", base64.b64encode(value).decode()
        case tuple():
            return "tuple", [_plain(item) for item in value]
        case frozenset():
            return "set", sorted(value)
        case Mapping():
            return "map", {key: _plain(item) for key, item in value.items()}
        case _ if callable(value):  # content that is made when it is needed
            return "made", _plain(value())
    return type(value).__name__, {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}


_TYPES: Mapping[str, Callable[[Any], Any]] = {
    "bytes": partial(base64.b64decode, validate=True),
    "tuple": lambda items: tuple(map(_value, items)),
    "set": frozenset,
    "map": lambda items: {key: _value(item) for key, item in items.items()},
    "made": lambda plain: partial(bytes, _value(plain)),
}


def _value(plain: Any) -> Any:
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    if kind in _TYPES:
        return _TYPES[kind](content)
    return _KINDS[kind](**{name: _value(item) for name, item in content.items()})
