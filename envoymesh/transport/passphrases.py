"""Keys that are encrypted: the passphrase is asked for once for each, and the opened key kept while the tool runs."""

import threading
from pathlib import Path

import paramiko

from envoymesh.problems import Failed, Problem
from envoymesh.transport.openssh import Target
from envoymesh.transport.prompt import ask


class Locked(Exception):  # noqa: N818 - an outcome after which somebody is asked
    """A login needs the key in `file`, which is encrypted; `otherwise` is its problem where nobody can be asked."""

    def __init__(self, file: Path, otherwise: Failed) -> None:
        super().__init__(str(file))
        self.file = file
        self.otherwise = otherwise


class Passphrases:
    """The encrypted keys that were opened in this process. Safe to use from many threads; passphrases are not kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: dict[Path, paramiko.PKey] = {}
        self._refused: dict[Path, str] = {}

    def key(self, file: Path) -> paramiko.PKey | None:
        """Return the key of a file that was opened."""
        return self._opened.get(file)

    def open(self, target: Target, locked: Locked) -> None:
        """Have somebody open a key; who comes while that is under way waits for it.

        Raises:
            Failed: there is no terminal to ask on, or the passphrase does not open the key.
        """
        file = locked.file
        with self._lock:
            if file in self._opened:
                return
            if file not in self._refused:
                passphrase = ask(f"passphrase of the key {file}: ")
                if passphrase is None:
                    raise locked.otherwise
                self._try(file, passphrase)
            if file in self._refused:
                what, hint = (
                    f"the passphrase does not open the key `{file}`",
                    f"run the command again, or: ssh-add {file}",
                )
                raise Failed(Problem("ssh/key-encrypted", what, target.at, (self._refused[file],), hint=hint))

    def _try(self, file: Path, passphrase: bytes) -> None:
        try:
            # Paramiko hands it to libraries that take bytes only, whatever it says.
            self._opened[file] = paramiko.PKey.from_path(file, passphrase)  # type: ignore[arg-type]
        except (TypeError, ValueError, paramiko.SSHException) as error:
            self._refused[file] = str(error) if passphrase else "none was given"
