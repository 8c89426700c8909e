"""Files and directories."""

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Directory:
    """A directory; `mode` is permission bits. Its content is not managed."""

    path: str
    owner: str = "root"
    group: str = "root"
    mode: int = 0o755

    @property
    def address(self) -> str:
        """`directory:PATH`."""
        return f"directory:{self.path}"


@dataclass(frozen=True)
class File:
    """A regular file whose bytes, owner, group and mode are managed as one, replaced by rename.

    A `secret` file's content is never shown, not in a plan, not in a diff.
    """

    path: str
    content: bytes = field(repr=False)
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644
    secret: bool = False

    @property
    def address(self) -> str:
        """`file:PATH`."""
        return f"file:{self.path}"

    @property
    def sha256(self) -> str:
        """Lower-case hexadecimal SHA-256 of the content."""
        return hashlib.sha256(self.content).hexdigest()
