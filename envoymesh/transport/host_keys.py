"""Host keys: known_hosts files read as OpenSSH reads them, and the decision about the key that a host shows."""

import base64
import binascii
import fcntl
import functools
import hashlib
import hmac
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import paramiko

from envoymesh.problems import Failed, Problem
from envoymesh.transport.host_certificates import SUFFIX, authority_of, refusal
from envoymesh.transport.openssh import Target


@dataclass(frozen=True)
class KnownKey:
    """One line of a known_hosts file.

    `names` is its first field as written, `blob` the public key. Where that is an `authority`, certificates
    that it signed are trusted.
    """

    file: Path
    line: int
    names: str
    kind: str
    blob: bytes
    revoked: bool = False
    authority: bool = False

    def is_for(self, name: str) -> bool:
        """Return whether the line speaks of `name`, `host` or `[host]:port`."""
        patterns = self.names.split(",")
        if any(p.startswith("!") and _matches(p[1:], name) for p in patterns):
            return False
        return any(_matches(p, name) for p in patterns)

    def __str__(self) -> str:
        what = "authority" if self.authority else "known"
        return f"{what} {fingerprint(self.blob)} {self.kind} ({self.file}:{self.line})"


class HostKeys:
    """Decides about the key that one host shows; given to Paramiko as its policy for unknown keys.

    Paramiko itself is given no known keys: it knows no patterns and no `@revoked`, and would ask the server
    for the first known type only.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._files = target.known_hosts
        self.verified = False

    def order(self, types: Sequence[str]) -> tuple[str, ...]:
        """Return the host key algorithms with those first whose keys are known.

        Certificates come before them where an authority is known, and are not asked for where none is.
        """
        kinds = {key.kind for key in self._known() if not key.authority}
        certificates = [f"{algorithm}{SUFFIX}" for algorithm in types] if self._authorities() else []
        return (*certificates, *sorted(types, key=lambda algorithm: _kind(algorithm) not in kinds))

    def missing_host_key(self, _client: object, _name: str, key: paramiko.PKey) -> None:
        """Accept `key`, or raise.

        Raises:
            Failed: the key is not the known one, is revoked, or is unknown and the login is strict, or an
                authority is known for the host that does not vouch for it.
        """
        authorities = self._authorities()
        why = self._unproven(key, authorities) if authorities else "the login is strict"
        if why and not self._is_known(key):
            if authorities or self._target.strict:
                raise self._unknown(key, authorities, why)
            try:
                self._remember(key)
            except OSError as error:
                raise self._not_kept(error) from error
        self.verified = True

    def _known(self) -> list[KnownKey]:
        return known_keys(self._files, self._target.known_as)

    def _authorities(self) -> list[KnownKey]:
        """Return the authorities for the host; as with OpenSSH, a line may leave out its port."""
        names = dict.fromkeys([self._target.known_as, self._bare_name()])
        return [key for name in names for key in known_keys(self._files, name) if key.authority]

    def _bare_name(self) -> str:
        return self._target.known_as.removeprefix("[").partition("]:")[0]

    def _unproven(self, key: paramiko.PKey, authorities: Sequence[KnownKey]) -> str:
        """Return why none of the authorities vouches for the key; empty when one does.

        Raises:
            Failed: the key, or that of the authority, is revoked.
        """
        shown = key.public_blob
        if shown is None:
            return "it shows no certificate of its known authority"
        trusted = {entry.blob for entry in authorities}
        why = refusal(shown.key_type, shown.key_blob, self._bare_name(), trusted, time.time())
        if why:
            return f"its certificate is not accepted: {why}"
        blobs = (key.asbytes(), authority_of(shown.key_type, shown.key_blob))
        revoked = [entry for entry in self._known() if entry.revoked and entry.blob in blobs]
        if revoked:
            raise self._revoked(revoked)
        return ""

    def _remember(self, key: paramiko.PKey) -> None:
        with _appending(self._files[0]) as file:
            # Another process may have met the same host since.
            if not self._is_known(key):
                _append(file, self._line(key))

    def _line(self, key: paramiko.PKey) -> str:
        return f"{self._target.known_as} {key.get_name()} {key.get_base64()}"

    def _is_known(self, key: paramiko.PKey) -> bool:
        known = [k for k in self._known() if not k.authority]
        same = [entry for entry in known if entry.blob == key.asbytes()]
        if any(entry.revoked for entry in same):
            raise self._revoked(same)
        valid = [entry for entry in known if not entry.revoked]
        if valid and not same:
            raise self._changed(valid, key)
        return bool(same)

    def _changed(self, known: Sequence[KnownKey], key: paramiko.PKey) -> Failed:
        entry = next((e for e in known if e.kind == key.get_name()), known[0])
        return Failed(
            Problem(
                "ssh/host-key-changed",
                f"`{self._target.known_as}` shows another host key than the known one",
                self._target.at,
                (str(entry), _shown(key)),
                "nothing was sent: the connection was ended before the login",
                f"{_compare(key)}\n"
                "another key there, or no way to look: somebody may be between you and the host; do not log in\n"
                f"the same key there, and you know why it changed: remove line {entry.line} of {entry.file}",
            )
        )

    def _revoked(self, same: Sequence[KnownKey]) -> Failed:
        return Failed(
            Problem(
                "ssh/host-key-revoked",
                f"`{self._target.known_as}` shows a host key that is marked as revoked",
                self._target.at,
                tuple(map(str, same)),
                "nothing was sent: the connection was ended before the login",
                "give the host a new key (ssh-keygen -A) from its console; a revoked key may be in wrong hands",
            )
        )

    def _unknown(self, key: paramiko.PKey, authorities: Sequence[KnownKey], why: str) -> Failed:
        return Failed(
            Problem(
                "ssh/host-key-unknown",
                f"the host key of `{self._target.known_as}` is not known, and {why}",
                self._target.at,
                (_shown(key), *map(str, authorities), f"not in {', '.join(map(str, self._files))}"),
                "nothing was sent: the connection was ended before the login",
                f"{_compare(key)}\nthe same key there: echo '{self._line(key)}' >> {self._files[0]}",
            )
        )

    def _not_kept(self, error: OSError) -> Failed:
        what = f"the new host key of `{self._target.known_as}` cannot be kept in `{self._files[0]}`"
        now = "nothing was sent: the connection was ended before the login"
        hint = f"ls -ld {self._files[0].parent} {self._files[0]}"
        return Failed(Problem("ssh/known-hosts", what, self._target.at, (str(error),), now, hint))


def known_keys(files: Sequence[Path], name: str) -> list[KnownKey]:
    """Return what the files that exist say about `name`."""
    return [key for file in files for key in _read(file) if key.is_for(name)]


def fingerprint(blob: bytes) -> str:
    """Return the fingerprint of a public key as OpenSSH prints it."""
    return f"SHA256:{base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip('=')}"


def _read(file: Path) -> Sequence[KnownKey]:
    try:
        status = file.stat()
        return _parsed(file, status.st_mtime_ns, status.st_size)
    except OSError:
        return ()


@functools.lru_cache(maxsize=16)
def _parsed(file: Path, _changed: int, _size: int) -> Sequence[KnownKey]:
    """Read a file once per version of it: with hundreds of hosts a long file would be read as often."""
    lines = file.read_text(errors="replace").splitlines()
    return tuple(key for number, line in enumerate(lines, 1) if (key := _parse(file, number, line)))


def _parse(file: Path, number: int, line: str) -> KnownKey | None:
    """Return the key of a line; None for comments, damaged lines and markers that are not known."""
    fields = line.split()
    marker = fields.pop(0) if line.startswith("@") else ""
    if len(fields) < 3 or line.startswith("#") or marker not in ("", "@revoked", "@cert-authority"):
        return None
    try:
        blob = base64.b64decode(fields[2], validate=True)
    except binascii.Error:
        return None
    return KnownKey(file, number, fields[0], fields[1], blob, marker == "@revoked", marker == "@cert-authority")


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith("|1|"):
        return _hashed(pattern, name)
    return fnmatchcase(name.lower(), pattern.lower().replace("[", "[[]"))


def _hashed(pattern: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in pattern[3:].split("|"))
    except ValueError:
        return False
    return hmac.compare_digest(digest, hmac.digest(salt, name.lower().encode(), "sha1"))


def _kind(algorithm: str) -> str:
    """Return the type of key that a host key algorithm uses."""
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def _shown(key: paramiko.PKey) -> str:
    return f"shown {fingerprint(key.asbytes())} {key.get_name()}"


def _compare(key: paramiko.PKey) -> str:
    kind = key.get_name().removeprefix("ssh-").partition("-")[0]
    return f"compare on the host's console: ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub"


@contextmanager
def _appending(file: Path) -> Iterator[int]:
    """Open the file to append to while no other process does; made, with its directory, where missing."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    opened = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield opened
    finally:
        os.close(opened)


def _append(file: int, line: str) -> None:
    """Append a line in one write, which a reader sees wholly or not at all."""
    size = os.fstat(file).st_size
    unfinished = size > 0 and os.pread(file, 1, size - 1) != b"\n"
    os.write(file, f"{chr(10) if unfinished else ''}{line}\n".encode())
