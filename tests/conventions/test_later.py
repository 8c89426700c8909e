"""Modules that are loaded later are there, and nothing loads them sooner."""

from importlib.util import find_spec

from envoymesh.later import LATER
from tests.conventions.test_imports import imports_of
from tests.layers import ROOT

SOURCES = [path for place in ("envoymesh", "roles") for path in (ROOT / place).rglob("*.py")]


def dotted(path: str) -> str:
    """Return the name of the module in a file."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def is_later(module: str) -> bool:
    """Tell whether a module is loaded later, by itself or with the package that it is in."""
    return any(module == name or module.startswith(f"{name}.") for name in LATER)


def test_each_is_there() -> None:
    assert [name for name in sorted(LATER) if find_spec(name) is None] == []


def test_what_is_loaded_at_once_takes_no_name_from_them() -> None:
    found = []
    for path in SOURCES:
        file = path.relative_to(ROOT).as_posix()
        if is_later(dotted(file)):
            continue
        package = file.rpartition("/")[0].replace("/", ".")
        names = [name for _, name in imports_of(path.read_text("utf-8"), package)]
        found += [f"{file} imports {name}" for name in names if is_later(name) and name not in LATER]
    assert found == []
