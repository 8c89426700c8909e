"""Releases: the code of services, kept on this box by their names so that hosts can have each of them again."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from envoymesh.model.mesh import Host, Service, ServiceName
from envoymesh.model.names import RELEASE, RELEASE_RULE
from envoymesh.problems import Failed, Problem, did_you_mean
from envoymesh.resources.artifact import tree_digest

Files = Mapping[str, bytes]
"""A package: the files by their path in it."""

PROJECT = Path(__file__).parents[2] / "service"
"""The code of a service that names no release."""

NEEDED = ("__main__.py", "requirements.txt")


def code_of(
    state_dir: Path, services: Mapping[ServiceName, Service], hosts: Sequence[Host]
) -> dict[ServiceName, Files]:
    """Return the code of each service that one of `hosts` runs.

    Raises:
        Failed: a release that the inventory names is not kept on this box.
    """
    names = dict.fromkeys(h.service for h in hosts if h.service is not None)
    project = package_in(PROJECT) if any(services[name].release is None for name in names) else {}
    found = ((name, services[name].release) for name in names)
    return {name: project if release is None else kept_code(state_dir, name, release) for name, release in found}


def package_in(folder: Path) -> dict[str, bytes]:
    """Return the files of the package in `folder`, but for hidden ones and what Python has compiled.

    Raises:
        Failed: it is no package that can be started, or names no packages that it needs.
    """
    if not folder.is_dir():
        hint = "name the folder of a package: --from DIR"
        raise Failed(_no_code(folder, "there is no such folder", hint))
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        hint = "docs/deploy.md says what it must have; `service/` of this project is an example"
        raise Failed(_no_code(folder, f"it has no {' and no '.join(missing)}", hint))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        paths = (Path(where, name) for name in sorted(files) if not name.startswith("."))
        yield from (path for path in paths if path.is_file())


def _no_code(folder: Path, saw: str, hint: str) -> Problem:
    what = "this is not the code of a service"
    return Problem("release/no-code", what, str(folder), (saw,), "nothing was changed", hint)


def keep(state_dir: Path, service: ServiceName, files: Files, name: str = "") -> str:
    """Keep code as a release of a service; return its name, a digest of the code if it has no other.

    Raises:
        Failed: it cannot be called so, or another one is.
    """
    name = name or tree_digest(files)[:12]
    if not re.fullmatch(RELEASE, name):
        what = f"`{name}` cannot be the name of a release"
        raise Failed(Problem("release/bad-name", what, "--release", now="nothing was changed", hint=RELEASE_RULE))
    folder = _folder(state_dir, service) / name
    if folder.exists():
        if package_in(folder) != files:
            raise Failed(_taken(service, name, folder))
        return name
    new = folder.with_name(f".{name}.new")
    shutil.rmtree(new, ignore_errors=True)
    for path, content in files.items():
        (new / path).parent.mkdir(parents=True, exist_ok=True)
        (new / path).write_bytes(content)
    new.rename(folder)
    return name


def _taken(service: ServiceName, name: str, folder: Path) -> Problem:
    return Problem(
        code="release/taken",
        what=f"`{service}` has another release `{name}`",
        at=str(folder),
        now="nothing was changed; a release never changes",
        hint="give it another name, or leave --release out: then it gets one from its content",
    )


def kept_code(state_dir: Path, service: ServiceName, name: str) -> dict[str, bytes]:
    """Return the code of a release that is kept.

    Raises:
        Failed: it is not kept on this box.
    """
    folder = _folder(state_dir, service) / name
    if re.fullmatch(RELEASE, name) and folder.is_dir():
        return package_in(folder)
    kept = kept_names(state_dir, service)
    again = f"./mesh deploy {service} --from DIR --release {name}"
    near = did_you_mean(name, kept)
    raise Failed(
        Problem(
            code="release/not-here",
            what=f"this box keeps no release `{name}` of `{service}`",
            at=str(folder.parent),
            saw=(f"kept: {', '.join(kept) or 'none'}",),
            now="nothing was changed",
            hint=f"{near}\nor, with its code: {again}" if near else f"with its code: {again}",
        )
    )


def kept_names(state_dir: Path, service: ServiceName) -> list[str]:
    """Return the names of the releases of a service that are kept, the oldest first."""
    folders = [f for f in _folder(state_dir, service).glob("[!.]*") if f.is_dir()]
    return [f.name for f in sorted(folders, key=lambda f: f.stat().st_mtime)]


def _folder(state_dir: Path, service: ServiceName) -> Path:
    return state_dir / "releases" / service
