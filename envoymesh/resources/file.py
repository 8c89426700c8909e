"""Files and directories."""

import hashlib
from dataclasses import dataclass, field

from envoymesh.resources.effect import Effect


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
class Reader:
    """The unit whose process reads a file, and what it costs when that process takes another content.

    RESTART stands for a file that is read when the process starts, and only then; `stat` names, for any other, the text
    stat of Envoy that tells which version of it is loaded.
    """

    unit: str
    effect: Effect
    stat: str = ""


@dataclass(frozen=True)
class File:
    """A regular file whose bytes, owner, group and mode are managed as one, replaced by rename.

    A `secret` file's content is never shown, not in a plan, not in a diff; `about` is shown instead. `reader` is None
    where no process that we manage reads it.
    """

    path: str
    content: bytes = field(repr=False)
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644
    secret: bool = False
    about: str = ""
    reader: Reader | None = None

    @property
    def address(self) -> str:
        """`file:PATH`."""
        return f"file:{self.path}"

    @property
    def sha256(self) -> str:
        """Lower-case hexadecimal SHA-256 of the content."""
        return hashlib.sha256(self.content).hexdigest()
