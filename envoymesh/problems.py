"""Problems: what a user must know or fix, as data.

A `Problem` is what is printed; `Failed` carries problems from where they are found to the task that
prints them. Everything else that is raised is a bug.
"""

import difflib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """What a task's exit status means, the same in every output format."""

    DONE = 0
    PROBLEM = 1
    DRIFT = 2
    UNREACHABLE = 4


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, in what state that leaves things, and the way out.

    Attributes:
        code: stable name, `area/what`, such as `inventory/unknown-key`.
        what: one sentence without a full stop; offending values in backticks.
        at: `file:line:column`, or a host and a resource address.
        saw: evidence, at most ten lines are shown.
        now: what changed, what did not, and what still serves. Required once anything was written.
        hint: the next command or edit, ready to paste.
        exit_code: what the task that fails with it exits with.
    """

    code: str
    what: str
    at: str = ""
    saw: tuple[str, ...] = ()
    now: str = ""
    hint: str = ""
    exit_code: ExitCode = ExitCode.PROBLEM

    def __str__(self) -> str:
        lines = [f"problem {self.code}: {self.what}"]
        for label, text in (
            ("at", self.at),
            ("saw", "\n".join(self.saw[:10])),
            ("now", self.now),
            ("hint", self.hint),
        ):
            lines += [f"  {label if i == 0 else '':<5}{line}" for i, line in enumerate(text.splitlines())]
        return "\n".join(lines)


class Failed(Exception):  # noqa: N818 - reads as "the work failed, with these problems"
    """Carries problems to the task that prints them; nothing between may swallow it."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(", ".join(p.code for p in problems))
        self.problems = problems

    @property
    def exit_code(self) -> ExitCode:
        """The code to exit with: that of the gravest problem (a problem before a host out of reach)."""
        return min((p.exit_code for p in self.problems), default=ExitCode.PROBLEM)


def refused_file(error: OSError) -> Problem:
    """Return the problem of a file of the operator's box that cannot be used as it must be."""
    path = str(error.filename or "")
    return Problem(
        code="box/file",
        what=f"this box does not let the tool use a file: {error.strerror or error}",
        at=path,
        now="what was done before is kept; no file is half written",
        hint=f"ls -ld {path or '.envoymesh'}; df -h .    what sudo has made belongs to root: then use sudo again",
    )


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return `did you mean `x`?` for the nearest of `known`, or an empty string when none is near."""
    near = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f"did you mean `{near[0]}`?" if near else ""


DEFAULT_INVENTORY = "inventory.yaml"
"""What a command is for that names none."""


def of_inventory(text: str, inventory: str) -> str:
    """Return a text whose commands are all for `inventory`: pasted as they are, they must not change another mesh."""
    if inventory == DEFAULT_INVENTORY:
        return text
    flag = shlex.join(["--inventory", inventory])
    return re.sub(r"\./mesh (?!vagrant-box)[a-z-]+", lambda command: f"{command[0]} {flag}", text)


def listed(names: Sequence[str]) -> str:
    """Return `a, b and c` for the names, in their order."""
    return ", ".join(names) if len(names) < 2 else f"{', '.join(names[:-1])} and {names[-1]}"


def counted(count: int, noun: str) -> str:
    """Return `1 host`, `2 hosts`: the number with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
