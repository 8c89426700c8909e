"""Gather: the script that reads a host, and how to read its answer."""

import hashlib
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files

from envoymesh.plan.observed import (
    TEXT_STATS,
    Dialled,
    HttpAnswer,
    Observed,
    ObservedPath,
    ObservedUnit,
)
from envoymesh.problems import Failed, Problem
from envoymesh.resources import Artifact, Directory, File, Platform, Resource, Unit, User
from envoymesh.resources.unit import STAMP_VARIABLE, TAKEOVER_VARIABLE
from envoymesh.wire.frames import Frame, frames_from

Asked = Sequence[tuple[int, str]]
Dial = Sequence[tuple[str, int]]

LIBRARY = (files("envoymesh.wire") / "gather.sh").read_text(encoding="utf-8")
"""The bash functions that read a host; what is to be read comes after them."""


def gather_script(resources: Sequence[Resource], asked: Asked = (), dial: Dial = ()) -> str:
    """Return the bash text that reads a host that shall have `resources`.

    Args:
        resources: what the host shall have.
        asked: further (port, path) of the host's loopback to read over HTTP.
        dial: (address, port) to try to connect to from the host.
    """
    files_ = [r for r in resources if isinstance(r, File)]
    artifacts = [r for r in resources if isinstance(r, Artifact)]
    calls = [
        ["users", *(r.name for r in resources if isinstance(r, User))],
        ["directories", *(r.path for r in resources if isinstance(r, Directory))],
        ["paths", *(f.path for f in files_)],
        ["files", *(word for f in files_ for word in (f.path, "" if f.secret else f.sha256))],
        *(["artifact", str(i), artifact.path, _sha256(artifact.path)] for i, artifact in enumerate(artifacts)),
        ["units", *(r.name for r in resources if isinstance(r, Unit))],
        *(["http", str(i), str(port), path] for i, (port, path) in enumerate(_requests(resources, asked))),
        *(["dial", str(i), address, str(port)] for i, (address, port) in enumerate(dial)),
    ]
    asking = (call for call in calls if len(call) > 1)
    return LIBRARY + "".join(
        f"{shlex.join(call)}\n" for call in (["platform"], ["manifest"], *asking, ["frame", "end"])
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _requests(resources: Sequence[Resource], asked: Asked) -> list[tuple[int, str]]:
    stats = ((unit.probe.port, TEXT_STATS) for unit in resources if isinstance(unit, Unit) and unit.probe.stats)
    return list(dict.fromkeys((*stats, *asked)))


def observed_from(
    host: str, lines: Iterable[str], resources: Sequence[Resource], asked: Asked = (), dial: Dial = ()
) -> Observed:
    """Return what the output of `gather_script(resources, asked, dial)` says.

    Raises:
        Failed: the output ends too early or makes no sense, so that nothing can be concluded from it.
    """
    by_kind = defaultdict[str, list[Frame]](list)
    last = ""
    for frame in frames_from(lines):
        by_kind[frame.kind].append(frame)
        last = frame.kind
    if last != "end":
        raise _unreadable(host, "reading the host ended before everything was read")
    try:
        return _observed(by_kind, resources, _requests(resources, asked), dial)
    except (LookupError, ValueError) as error:
        raise _unreadable(host, "the host's answers cannot be understood", repr(error)) from error


def _unreadable(host: str, what: str, *saw: str) -> Failed:
    hint = f'look at the host: ./mesh exec {host} "systemctl is-system-running; df -h /"'
    return Failed(Problem("host/gather", what, host, saw, f"{host}: nothing was changed", hint))


def _observed(
    frames: Mapping[str, Sequence[Frame]], resources: Sequence[Resource], asked: Asked, dial: Dial
) -> Observed:
    artifacts = [r.path for r in resources if isinstance(r, Artifact)]
    generation, managed = frames["manifest"][0].fields[0], frames["manifest"][0].text(1)
    return Observed(
        platform=_platform(frames["platform"][0]),
        users=frozenset(f.fields[0] for f in frames["user"]),
        paths=_paths(resources, frames),
        artifacts={artifacts[int(f.fields[0])]: f.fields[1] for f in frames["artifact"] if f.fields[1]},
        units=_units(frames["unit"]),
        answers={asked[int(f.fields[0])]: http_answer(f.data(1)) for f in frames["http"]},
        manifest=frozenset(filter(None, managed.split("\0")[:-1])),  # what no NUL ends was cut off: another path
        generation=generation,
        dialled={dial[int(f.fields[0])]: _dialled(f.fields[1]) for f in frames["dial"]},
    )


def _dialled(status: str) -> Dialled:
    """Return what the exit status of `timeout` around an attempt to connect means."""
    return {"0": Dialled.OPEN, "124": Dialled.SILENT}.get(status, Dialled.REFUSED)


def _version(text: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def _platform(frame: Frame) -> Platform:
    machine, glibc, python = (*frame.fields, "", "", "")[:3]
    return Platform(machine, _version(glibc), _version(python))


def _paths(resources: Sequence[Resource], frames: Mapping[str, Sequence[Frame]]) -> dict[str, ObservedPath]:
    directories, files_ = ([r.path for r in resources if isinstance(r, kind)] for kind in (Directory, File))
    digests = {f.fields[0]: f for f in frames["file"]}
    return {
        **{directories[int(f.fields[0])]: _path(f, None) for f in frames["directory"]},
        **{files_[int(f.fields[0])]: _path(f, digests.get(f.fields[0])) for f in frames["path"]},
    }


def _path(listed: Frame, digest: Frame | None) -> ObservedPath:
    mode, owner, group, kind = listed.line(1).split(":")
    return ObservedPath(
        kind="regular file" if kind == "regular empty file" else kind,
        owner=owner,
        group=group,
        mode=int(mode, 8),
        sha256=digest.fields[1] if digest else None,
        content=digest.data(2) if digest and len(digest.fields) > 2 else None,
    )


def _units(frames: Sequence[Frame]) -> dict[str, ObservedUnit]:
    units = {}
    for block in filter(None, "\n".join(f.line(0) for f in frames).strip().split("\n\n")):
        said = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        units[said["Id"]] = ObservedUnit(
            load=said["LoadState"],
            active=said["ActiveState"],
            enabled=said["UnitFileState"],
            needs_reload=said["NeedDaemonReload"] == "yes",
            stamp=said.get(STAMP_VARIABLE, ""),
            takeover=said.get(TAKEOVER_VARIABLE, ""),
        )
    return units


def http_answer(raw: bytes) -> HttpAnswer:
    """Return the status and body of a raw HTTP/1.1 answer; chunked bodies are put together (RFC 9112 §7.1)."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    if status is None:
        return HttpAnswer(None)
    if re.search(rb"(?im)^transfer-encoding:\s*chunked", head):
        body = _dechunked(body)
    return HttpAnswer(int(status[1]), body.decode(errors="replace"))


def _dechunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.split(b";")[0] or b"0", 16)
        if length == 0:
            break
        parts.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(parts)
