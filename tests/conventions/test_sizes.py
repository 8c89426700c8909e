"""Small functions: long ones hide a second job, and a long pure one is likely doing I/O."""

import ast
from pathlib import Path

import pytest

from tests.conventions.test_imports import PURE, modules, uncovered
from tests.layers import ROOT

MAX_PARAMETERS = 6
LINES = [(place, 40) for place in PURE] + [
    (place, 60)
    for place in (
        "benchmarks",
        "envoymesh/transport",
        "envoymesh/machines",
        "envoymesh/run",
        "envoymesh/report",
        "envoymesh/certificates.py",
        "envoymesh/files.py",
        "envoymesh/cli.py",
        "envoymesh/later.py",
        "envoymesh/suggest.py",
        "service",
        "tasks.py",
    )
]

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(file: Path) -> list[Function]:
    """Return all functions and methods of a file."""
    return [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, Function)]


def length(function: Function) -> int:
    """Return the lines of a function without those of its docstring."""
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def parameters(function: Function) -> int:
    """Return how many parameters a caller may give."""
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs) if a.arg not in {"self", "cls"}]
    return len(names)


@pytest.mark.parametrize(("place", "most"), LINES)
def test_functions_are_short(place: str, most: int) -> None:
    long = [
        f"{file.relative_to(ROOT)}:{function.lineno} {function.name}: {length(function)} lines"
        for file in modules(place)
        for function in functions(file)
        if length(function) > most
    ]
    assert not long, f"more than {most} lines without the docstring:\n" + "\n".join(long)


def test_every_module_has_a_limit() -> None:
    assert not uncovered(place for place, _ in LINES)


@pytest.mark.parametrize("place", ["benchmarks", "envoymesh", "roles", "service"])
def test_functions_take_few_parameters(place: str) -> None:
    many = [
        f"{file.relative_to(ROOT)}:{function.lineno} {function.name}: {parameters(function)} parameters"
        for file in modules(place)
        for function in functions(file)
        if parameters(function) > MAX_PARAMETERS
    ]
    assert not many, f"more than {MAX_PARAMETERS} parameters (a request object?):\n" + "\n".join(many)


def test_length_and_parameters_are_counted() -> None:
    source = 'def f(self, a, *, b):\n    """Doc.\n\n    More.\n    """\n    x = 1\n    return x\n'
    (function,) = (node for node in ast.parse(source).body if isinstance(node, Function))
    assert (length(function), parameters(function)) == (3, 2)
