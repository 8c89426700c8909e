"""System users."""

from dataclasses import dataclass


@dataclass(frozen=True)
class User:
    """A system user without a login shell and without a home, with a group of the same name."""

    name: str

    @property
    def address(self) -> str:
        """`user:NAME`."""
        return f"user:{self.name}"
