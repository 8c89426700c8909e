"""Who may import whom, and why: imports go downward only."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.layers import ROOT


@dataclass(frozen=True)
class Rule:
    """Modules below `places` import nothing below `forbidden`, because of `why`."""

    places: tuple[str, ...]
    forbidden: tuple[str, ...]
    why: str


OUTSIDE = {"benchmarks", "roles", "tasks", "tests", "service"}
AMBIENT = ("os", "time", "random", "secrets", "subprocess", "socket", "threading")
SSH = ("fabric", "paramiko")
PURE = (
    *("envoymesh/model", "envoymesh/resources", "envoymesh/plan", "envoymesh/wire", "roles"),
    *("envoymesh/problems.py", "envoymesh/events.py", "envoymesh/findings.py"),
    *("envoymesh/run/envoy.py", "envoymesh/run/proofs.py"),
    *("benchmarks/cases.py", "benchmarks/reliability.py", "benchmarks/report.py", "benchmarks/samples.py"),
)


def ours_but(*allowed: str) -> tuple[str, ...]:
    """Return the parts of the project that are not in `allowed`."""
    parts = {path.stem for path in (ROOT / "envoymesh").iterdir()} - {"__init__", "__pycache__", "problems"}
    return (*(f"envoymesh.{part}" for part in sorted(parts - set(allowed))), *sorted(OUTSIDE - set(allowed)))


RULES = [
    Rule(
        PURE,
        (*AMBIENT, *SSH, "invoke", "rich"),
        "what is planned or found must follow from its arguments alone, so that a test needs no host, clock or luck",
    ),
    Rule(("envoymesh/problems.py",), ours_but(), "every layer has problems, so problems know no layer"),
    Rule(
        ("envoymesh/events.py",),
        ours_but("model", "plan"),
        "an event is data: whoever acts sends it, whoever draws takes it, and neither knows the other",
    ),
    Rule(
        ("envoymesh/findings.py",), ours_but("model"), "a finding is data: who looks and who shows it agree on it alone"
    ),
    Rule(
        ("envoymesh/certificates.py",),
        (*SSH, "subprocess", "socket", "time", *ours_but("model", "files")),
        "a certificate is for names of the inventory, wherever its host is and however it gets there",
    ),
    Rule(("envoymesh/files.py",), (*SSH, *ours_but()), "a file is replaced in one way, whatever is in it"),
    Rule(
        ("envoymesh/suggest.py",),
        ours_but(),
        "it knows the tasks from Invoke alone, and loads nothing: a typing error is told at once",
    ),
    Rule(("envoymesh/later.py",), ours_but(), "it names modules, and loads none"),
    Rule(
        ("envoymesh/cli.py",),
        (*AMBIENT, *SSH, "rich", *ours_but("model", "events", "run", "report", "machines")),
        "a task asks `run` and shows what `report` makes of the answer; nothing is done or drawn in between",
    ),
    Rule(("envoymesh/model",), ours_but("model"), "the inventory means the same whatever is done with it"),
    Rule(
        ("envoymesh/resources",), ours_but("resources"), "a resource is data; who wants it and how it gets there varies"
    ),
    Rule(
        ("roles",),
        ours_but("roles", "model", "resources"),
        "a role says what a host must have, never how it gets there",
    ),
    Rule(("envoymesh/plan",), ours_but("plan", "model", "resources"), "a plan stands alone: printed, saved, compared"),
    Rule(
        ("envoymesh/wire",), ours_but("wire", "plan", "resources"), "scripts and frames are the same over any transport"
    ),
    Rule(("envoymesh/transport",), ours_but("transport", "model"), "reaching a host must not know what is done to it"),
    Rule(
        ("envoymesh/machines",),
        ours_but("machines", "model", "transport"),
        "a machine comes to exist without knowing what it is for",
    ),
    Rule(
        ("envoymesh/run",),
        ("rich", "envoymesh.report", "envoymesh.cli", "tasks", "tests"),
        "progress is an event; report draws it",
    ),
    Rule(
        ("envoymesh/report",),
        ("subprocess", "socket", *SSH, *ours_but("report", "model", "plan", "events", "findings")),
        "what is shown acts on nothing",
    ),
    Rule(
        ("envoymesh", "roles", "tasks.py"),
        SSH,
        "transport is the only place that knows Fabric and Paramiko, and their traps",
    ),
    Rule(("envoymesh", "roles"), ("invoke", "tasks", "tests"), "the engine can be used without a command line"),
    Rule(
        ("tasks.py",),
        ("rich", "subprocess", *ours_but("cli", "suggest", "tests")),
        "the command line is a translation into requests",
    ),
    Rule(
        ("service",),
        ("envoymesh", "roles", "tasks", "tests"),
        "the application runs on hosts, which do not have the tool",
    ),
    Rule(
        ("benchmarks",),
        ("tasks", "tests", "envoymesh.cli"),
        "a benchmark runs the tool as a process, as a person does: what it measures is no part of it",
    ),
]

EXCEPT = {"envoymesh/transport": (*SSH, "invoke"), "envoymesh/suggest.py": ("invoke",)}
"""What a place may import in spite of a rule for the folder above it."""


def imports_of(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of everything that `source` imports, inside functions too.

    `from a import b` yields `a.b`, as `b` may be a module; `module` is the dotted package that dots start from.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: len(module.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{name.name}") for name in node.names)


def violations(rule: Rule, path: str, source: str) -> list[str]:
    """Return `path:line imports name` for each import of `source` that breaks `rule`."""
    excused = [name for place, names in EXCEPT.items() if below(path, place, "/") for name in names]
    forbidden = [name for name in rule.forbidden if name not in excused]
    package = path.rpartition("/")[0].replace("/", ".")
    return [
        f"{path}:{line} imports {name}"
        for line, name in imports_of(source, package)
        if any(below(name, other, ".") for other in forbidden)
    ]


def below(name: str, parent: str, separator: str) -> bool:
    """Tell whether `name` is `parent` or inside it."""
    return name == parent or name.startswith(parent + separator)


def modules(place: str) -> list[Path]:
    """Return the Python files of a folder or the file itself; there must be one."""
    path = ROOT / place
    found = [path] if path.is_file() else sorted(path.rglob("*.py"))
    assert found, f"no Python at {place}: is what names it out of date?"
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.places[0]}-{rule.why}")
def test_imports_go_downward(rule: Rule) -> None:
    files = [file for place in rule.places for file in modules(place)]
    broken = [
        line for file in files for line in violations(rule, file.relative_to(ROOT).as_posix(), file.read_text("utf-8"))
    ]
    assert not broken, f"{rule.why}:\n" + "\n".join(broken)


def uncovered(places: Iterable[str]) -> list[str]:
    """Return the modules of the project that are below none of `places`; `envoymesh` itself has only a docstring."""
    known = {"envoymesh/__init__.py", *places}
    files = [file for whole in ("benchmarks", "envoymesh", "roles", "service", "tasks.py") for file in modules(whole)]
    names = [file.relative_to(ROOT).as_posix() for file in files]
    return [name for name in names if not any(below(name, place, "/") for place in known)]


def test_every_module_has_a_rule_of_its_layer() -> None:
    assert not uncovered(place for rule in RULES for place in rule.places if place != "envoymesh")


@pytest.mark.parametrize("place", sorted({*PURE, *EXCEPT, *(place for rule in RULES for place in rule.places)}))
def test_every_place_that_a_rule_names_is_there(place: str) -> None:
    assert modules(place)


@pytest.mark.parametrize(
    "source",
    [
        "import socket",
        "import socket as s",
        "def f():\n    from socket import socket",
        "from envoymesh.transport.ssh import connect",
        "from envoymesh import transport",
        "from .. import transport",
        "from ..transport import ssh",
    ],
)
def test_each_way_to_import_is_seen(source: str) -> None:
    rule = Rule(("envoymesh/model",), ("socket", "envoymesh.transport"), "a test")
    assert violations(rule, "envoymesh/model/mesh.py", source)


def test_what_is_not_forbidden_passes() -> None:
    rule = Rule(("envoymesh",), ("os", "paramiko"), "a test")
    assert not violations(rule, "envoymesh/model/mesh.py", "import ossaudit\nfrom .names import os_name")
    assert not violations(rule, "envoymesh/transport/ssh.py", "import paramiko")
