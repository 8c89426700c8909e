"""Which keys are offered to a host, in which order, and what is said when none is accepted."""

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from paramiko.agent import AgentSSH
from paramiko.ssh_exception import AuthenticationException, BadAuthenticationType

from envoymesh.problems import ExitCode, Failed, Problem
from envoymesh.transport.openssh import Target
from envoymesh.transport.passphrases import Locked, Passphrases


@dataclass
class KeyLogin:
    """Logs in with the keys of a target; given to Paramiko as its strategy. To be closed.

    Order: the identity files (one that is encrypted by way of the agent, or once it was opened), then the agent's other
    keys. When none of them is accepted, an encrypted one that is left is to be opened for another login.

    Attributes:
        target: where to.
        passphrases: the encrypted keys that were opened before.
        deadline: when the login is given up, on the monotonic clock.
        tried: a line for each key that was passed over or refused.
        encrypted: identity files that need a passphrase and that the agent does not hold.
    """

    target: Target
    passphrases: Passphrases
    deadline: float
    tried: list[str] = field(default_factory=list)
    encrypted: list[Path] = field(default_factory=list)
    _keys: dict[Path, paramiko.PKey | None] = field(default_factory=dict)
    _agent: "_Agent | None" = None

    def check_own_key(self) -> None:
        """Find out before the host is bothered whether the key that the login names can be used.

        Raises:
            Locked: it is to be opened.
            Failed: it cannot be read.
        """
        if self.target.login.key and self._key(self.target.login.key) is None:
            raise Locked(self.target.login.key, self._refused())

    def authenticate(self, transport: paramiko.Transport) -> None:
        """Log in.

        Raises:
            Locked: no key was accepted, and one is to be opened.
            Failed: no key was accepted.
        """
        if not any(self._accepted(transport, name, key) for name, key in self._offers()):
            raise Locked(self.encrypted[0], self._refused()) if self.encrypted else self._refused()

    def close(self) -> None:
        """End the connection to the agent, if there is one."""
        if self._agent:
            self._agent.close()

    def _held(self) -> Sequence[paramiko.AgentKey]:
        """Return the agent's keys; it is asked when first needed, and no agent is an agent without keys."""
        if self._agent is None:
            self._agent = _Agent()
            # What is left is shared out: a silent agent must not keep other keys from their turn.
            within_s = max((self.deadline - time.monotonic()) / 2, 0.1)
            try:
                self._agent.ask(within_s)
            except TimeoutError:
                self.tried.append(f"agent: no answer within {within_s:.1f} s")
            except (OSError, paramiko.SSHException) as error:
                self.tried.append(f"agent: {error}")
        return self._agent.get_keys()

    def _accepted(self, transport: paramiko.Transport, name: str, key: paramiko.PKey) -> bool:
        began = time.monotonic()
        try:
            more = transport.auth_publickey(self.target.user, key)
        except BadAuthenticationType as error:
            more = error.allowed_types
            self.tried.append("the host takes no keys for this user")
        except AuthenticationException:
            if time.monotonic() - began >= transport.auth_timeout:
                raise  # no answer is no refusal
            if not transport.is_active():
                self.tried.append(f"{name}: the host ended the connection")
                raise self._refused() from None
            self.tried.append(f"{name}: refused")
            return False
        if more:
            self.tried.append(f"the host asks for {' or '.join(more)}, which cannot be given unattended")
            raise self._refused() from None
        return True

    def _offers(self) -> Iterator[tuple[str, paramiko.PKey]]:
        used = set()
        for file in self.target.identities:
            key = self._key(file)
            if key is not None:
                used.add(key.asbytes())
                yield str(file), key
        if not self.target.only_identities:
            for other in self._held():
                if other.asbytes() not in used:
                    yield f"agent {other.comment or other.get_name()}", other

    def _key(self, file: Path) -> paramiko.PKey | None:
        """Return the key of an identity file, read once; None where it cannot be used now."""
        if file not in self._keys:
            self._keys[file] = self._load(file)
        return self._keys[file]

    def _load(self, file: Path) -> paramiko.PKey | None:
        try:
            return self.passphrases.key(file) or paramiko.PKey.from_path(file)
        except FileNotFoundError as error:
            if file == self.target.login.key:
                raise self._unreadable(file, error) from error
        except TypeError:  # what `cryptography` raises for a key without its passphrase
            return self._from_agent(file)
        except (OSError, ValueError, paramiko.SSHException) as error:
            if file == self.target.login.key:
                raise self._unreadable(file, error) from error
            self.tried.append(f"{file}: {error}")
        return None

    def _from_agent(self, file: Path) -> paramiko.PKey | None:
        with suppress(OSError, IndexError):
            public = file.with_name(f"{file.name}.pub").read_text().split()[1]
            for key in self._held():
                if key.get_base64() == public:
                    return key
        self.encrypted.append(file)
        self.tried.append(f"{file}: encrypted, and not in the agent")
        return None

    def _unreadable(self, file: Path, error: Exception) -> Failed:
        what = f"the key `{file}` cannot be read"
        return Failed(Problem("ssh/key-unreadable", what, self.target.at, (str(error),), hint=f"ls -l {file}"))

    def _refused(self) -> Failed:
        if self.encrypted and len(self.encrypted) == len(self.tried):
            what = f"the key `{self.encrypted[0]}` is encrypted, and no agent holds it"
            hint = f"ssh-add {self.encrypted[0]}"
            return Failed(Problem("ssh/key-encrypted", what, self.target.at, tuple(self.tried), hint=hint))
        saw = tuple(self.tried) or ("no key to offer: no identity file exists, and no agent has one",)
        what = f"`{self.target.login.host}` does not let `{self.target.user}` in"
        hint = self.target.reproduce
        return Failed(Problem("ssh/auth", what, self.target.at, saw, "", hint, ExitCode.UNREACHABLE))


class _Agent(paramiko.Agent):
    """The user's agent. Paramiko's own would wait for ever for one that takes the connection and says nothing."""

    def __init__(self) -> None:
        AgentSSH.__init__(self)

    def ask(self, within_s: float) -> None:
        """Learn which keys the agent holds; none where there is no agent.

        Raises:
            OSError: it does not answer, or not in time.
            SSHException: its answer makes no sense.
        """
        if "SSH_AUTH_SOCK" not in os.environ:
            return
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(within_s)
        try:
            connection.connect(os.environ["SSH_AUTH_SOCK"])
            self._connect(connection)  # type: ignore[attr-defined]
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
        except BaseException:
            connection.close()
            raise
        else:
            connection.settimeout(None)  # a signature may wait for somebody to agree
