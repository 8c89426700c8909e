"""Every task of the command line tells what it does, by an example and for each parameter."""

import re
import shlex
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any

import pytest
from invoke import Collection, Program
from invoke.parser import Parser

from tests.layers import ROOT


def afresh() -> ModuleType:
    """Load the tasks once more: the Invoke that runs the tests takes the help texts out of those that it has loaded."""
    spec = spec_from_file_location("tasks_afresh", ROOT / "tasks.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULE = afresh()
COLLECTION = Collection.from_module(MODULE)
TASKS: dict[str, Any] = dict(COLLECTION.tasks)
CONTEXTS: dict[str, Any] = {str(context.name): context for context in COLLECTION.to_contexts()}
"""What Invoke's parser knows of each task."""

WIDTH = 100

PRINTS_TEXT_ALONE = {"up", "down", "exec", "shell", "admin", "bench", "test", "vagrant-box"}
"""Tasks that print several things, what a host or a program prints, or nothing that is an answer."""


def examples(name: str) -> list[str]:
    """Return the commands that the task's docstring shows."""
    return re.findall(r"^ *Example: (.*)$", TASKS[name].__doc__ or "", re.MULTILINE)


def test_the_tasks_are_those_of_the_module() -> None:
    bodies = {task.body.__name__ for task in TASKS.values()}
    assert bodies == {name for name, value in vars(MODULE).items() if hasattr(value, "body")}
    assert {"up", "down", "plan", "provision", "check", "status", "scale", "exec"} <= set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_the_first_line_says_what_a_task_does_and_ends_with_a_full_stop(name: str) -> None:
    first = (TASKS[name].__doc__ or "").splitlines()[0]
    assert re.fullmatch(r"[A-Z].*[^.]\.", first), first


@pytest.mark.parametrize("name", TASKS)
def test_each_example_is_a_command_of_the_task_that_is_understood(name: str) -> None:
    assert examples(name)
    for example in examples(name):
        script, *words = shlex.split(example)
        assert (script, words[0]) == ("./mesh", name)
        parsed = Parser(contexts=list(CONTEXTS.values())).parse_argv(words)
        assert [context.name for context in parsed] == [name]


@pytest.mark.parametrize("name", TASKS)
def test_each_parameter_is_a_long_flag_with_help(name: str) -> None:
    assert not TASKS[name].auto_shortflags, "short flags move when a parameter is added"
    for parameter in CONTEXTS[name].args.values():
        assert [flag for flag in parameter.names if len(flag) == 1] == []
        assert parameter.help, f"{parameter.name}: no help"


@pytest.mark.parametrize("name", sorted(set(TASKS) - PRINTS_TEXT_ALONE))
def test_what_it_answers_can_be_had_as_json(name: str) -> None:
    assert "json" in CONTEXTS[name].args


@pytest.mark.parametrize("name", TASKS)
def test_its_help_fits(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("invoke.program.pty_size", lambda: (WIDTH, 24))
    Program(binary="inv[oke]").run(["invoke", "--search-root", str(ROOT), "--help", name], exit=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Usage: inv[oke] [--core-opts] {name} ")
    assert [line for line in lines if len(line) > WIDTH] == []
