"""Invoke's complaint about an unknown task or flag, with the nearest known one."""

import re
from functools import wraps

from invoke.exceptions import ParseError
from invoke.program import Program

from envoymesh.problems import did_you_mean


def suggest_on_parse_errors() -> None:
    """Make this process's Invoke add `did you mean` to its parse errors; it has no setting for that."""
    original = Program.parse_tasks

    @wraps(original)
    def parse_tasks(program: Program) -> None:
        try:
            original(program)
        except ParseError as error:
            raise ParseError(f"{error}{_suggestion(program, error)}", error.context) from None
        except ValueError as error:  # a number that is none: Invoke lets int() say so
            raise ParseError(f"not a number: {str(error).rpartition(': ')[2]}", None) from None

    setattr(Program, "parse_tasks", parse_tasks)  # noqa: B010 - said so, mypy takes it for what it is


def _suggestion(program: Program, error: ParseError) -> str:
    wrong = re.match(r"No idea what '([^']+)' is!", str(error))
    tasks = [name.replace("_", "-") for name in program.collection.task_names]
    known = list(error.context.flags) if error.context and wrong and wrong[1].startswith("-") else tasks
    hint = did_you_mean(wrong[1], known) if wrong else ""
    return f" {hint[:1].upper()}{hint[1:]}" if hint else ""
