"""Validations: a program that must accept new content before any of it goes live."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Validation:
    """`command`, run on the host as `user`, must accept `content` before the files in `guards` are replaced.

    It runs only when one of the guarded files changes: the configuration, and the unit that names the program.
    So `content` is called only when something changes: it costs more to make than all else of a plan.
    In `command`, the word `{staged}` stands for the path of a temporary file with the content (0600, owned by
    `user`). Exit 0 accepts; anything else stops the apply with nothing replaced.
    """

    name: str
    command: tuple[str, ...]
    content: Callable[[], bytes] = field(repr=False, compare=False)
    user: str
    guards: frozenset[str]

    @property
    def address(self) -> str:
        """`validation:NAME`."""
        return f"validation:{self.name}"
