"""Workspace: one inventory, the provider of its hosts, and the folders that belong to it."""

import fcntl
import getpass
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Event
from typing import IO

from envoymesh.events import Notify
from envoymesh.machines import nspawn, vagrant
from envoymesh.machines.base import MachineMaker, Provider
from envoymesh.machines.existing import Existing
from envoymesh.machines.image import cache_dir
from envoymesh.model.inventory import PROVIDERS, parse
from envoymesh.model.mesh import Host, HostName, Mesh
from envoymesh.plan.generation import Run
from envoymesh.problems import Failed, Problem, did_you_mean
from envoymesh.run.fleet import Fleet
from envoymesh.run.inventories import mesh_of

Edit = Callable[[str], str]
"""From the inventory's text to another."""


@dataclass(frozen=True)
class Workspace:
    """One inventory and all that belongs to it.

    `why` tells in words how the provider was chosen, `run` by whom and for what the tool was started. Once `stop` is
    set, no further host is begun. `lock_wait_s` is how long it waits for another writer, `timeout_s` how long a login
    may take, where it is not as the inventory says.
    """

    inventory: Path
    mesh: Mesh
    provider: Provider
    why: str
    run: Run
    stop: Event = field(default_factory=Event, compare=False)
    lock_wait_s: float = 0
    timeout_s: float | None = None

    @property
    def state_dir(self) -> Path:
        """What the tool keeps for this inventory: certificates, keys, machines. Ignored by git."""
        return _state_dir(self.inventory)

    @property
    def cache(self) -> Path:
        """What is shared between inventories and can be made again: images, binaries, packages."""
        return cache_dir()

    def maker(self) -> MachineMaker | None:
        """Return the provider when it makes machines, None when the hosts are just there."""
        return None if isinstance(self.provider, Existing) else self.provider  # type: ignore[return-value]

    def edited(self, edit: Edit) -> "Workspace":
        """Return this workspace with the mesh that the inventory would have after an edit, which is not saved.

        Raises:
            Failed: the edit would make an inventory with problems, or the file could not be replaced by it.
        """
        path, text = self._file(), edit(_read(self._file()))
        mesh = parse(text, path.name, seed=str(path))
        try:
            _written_beside(path, text).unlink()
        except OSError as error:
            raise Failed(_not_saved(path, error, now="nothing was changed")) from error
        return replace(self, mesh=mesh, provider=_provider(self.provider.name, mesh, self.inventory))

    def save(self, edit: Edit) -> None:
        """Replace the inventory file by what an edit makes of it as it is now, in one step.

        Raises:
            Failed: it cannot be written, or has become another since that the edit does not fit.
        """
        path = self._file()
        text = edit(_read(path))
        parse(text, path.name, seed=str(path))
        try:
            _written_beside(path, text).replace(path)
        except OSError as error:
            raise Failed(_not_saved(path, error, now="the hosts were changed, the inventory was not")) from error

    def _file(self) -> Path:
        """Return where the inventory really is: what is replaced must not be a link to it."""
        return self.inventory.resolve()

    def fleet(self, hosts: Sequence[Host], notify: Notify = lambda event: None) -> Fleet:
        """Return the connections to `hosts`, none of them opened yet."""
        logins = self.provider.logins(hosts)
        if self.timeout_s is not None:
            logins = {host: replace(login, timeout_s=self.timeout_s) for host, login in logins.items()}
        return Fleet(logins, notify)


def _read(path: Path) -> str:
    """Return the inventory's text with its own line ends."""
    return path.read_bytes().decode()


def _written_beside(path: Path, text: str) -> Path:
    """Write what is to replace a file, with the mode and the owner of that; return where it is."""
    new, old = path.with_name(f".{path.name}.new"), path.stat()
    try:
        new.write_bytes(text.encode())
        new.chmod(old.st_mode & 0o777)
        if os.geteuid() == 0:
            os.chown(new, old.st_uid, old.st_gid)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    return new


def _not_saved(path: Path, error: OSError, now: str) -> Problem:
    return Problem(
        code="inventory/not-saved",
        what=f"the inventory cannot be written: {error.strerror}",
        at=str(path),
        now=now,
        hint=f"ls -ld {path.parent} {path}; df -h {path.parent}    then run the same command again",
    )


@contextmanager
def only_writer(inventory: Path, wait_s: float = 0) -> Iterator[None]:
    """Hold off every other command that changes the mesh of this inventory; ends with this process.

    Raises:
        Failed: another one is at work, and is still after `wait_s` seconds.
    """
    if not inventory.exists():
        yield  # whoever reads it says so
        return
    state_dir = _state_dir(inventory)
    state_dir.mkdir(mode=0o700, exist_ok=True)
    with (state_dir / "lock").open("a+") as lock:
        deadline = time.monotonic() + wait_s
        while not _locked(lock):
            if time.monotonic() >= deadline:
                lock.seek(0)
                raise Failed(_held(lock.read().strip()))
            time.sleep(0.2)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _state_dir(inventory: Path) -> Path:
    return inventory.resolve().parent / ".envoymesh"


def _held(pid: str) -> Problem:
    return Problem(
        code="lock/held",
        what="another command is changing this mesh",
        at=f"process {pid or 'unknown'} on this box",
        now="nothing was read or changed",
        hint="wait for it: the same command with --lock-wait 300",
    )


def open_workspace(inventory: Path, provider: str = "", message: str = "") -> Workspace:
    """Return the workspace of an inventory file.

    Args:
        inventory: path of inventory.yaml.
        provider: what to use instead of what made the machines that exist, or of the inventory's choice.
        message: what this run is for, kept on the hosts that it changes.

    Raises:
        Failed: the inventory's problems; an unknown provider; machines that another provider made, or that were made
            when the inventory lay elsewhere or had another name.
    """
    mesh = mesh_of(inventory, cache_dir())
    if provider and provider not in PROVIDERS:
        what, saw = f"there is no provider `{provider}`", (f"providers: {', '.join(PROVIDERS)}",)
        raise Failed(
            Problem("machines/unknown-provider", what, "--provider", saw, hint=did_you_mean(provider, PROVIDERS))
        )
    made_by, made_as = made(inventory)
    if made_as not in ("", mesh.identifier):
        raise Failed(_moved(inventory, made_as, mesh.identifier))
    chosen, why = _choice(provider, made_by, mesh)
    if made_by and chosen != made_by:
        raise Failed(
            Problem(
                code="machines/other-provider",
                what=f"the machines of this mesh were made by {made_by}, not by {chosen}",
                at=str(inventory),
                now="nothing was changed",
                hint=f"./mesh down    then: ./mesh up --provider {chosen}",
            )
        )
    return Workspace(inventory, mesh, _provider(chosen, mesh, inventory), why, _new_run(message))


def _new_run(message: str) -> Run:
    """Return a run that begins now; its name sorts by time and is not another's who began in the same second."""
    now = datetime.now(UTC)
    who = f"{os.environ.get('SUDO_USER') or _user()}@{socket.gethostname()}"
    return Run(now, f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}", who, message)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # nobody in the user database
        return str(os.geteuid())


def made(inventory: Path) -> tuple[str, str]:
    """Return the provider that made the machines and the mesh's identifier then; empty when there are none."""
    path = provider_file(inventory)
    provider, _, identifier = path.read_text().strip().partition(" ") if path.exists() else ("", "", "")
    return provider, identifier


def provider_file(inventory: Path) -> Path:
    """Return where what `made` returns is kept while the machines exist."""
    return _state_dir(inventory) / "provider"


def _moved(inventory: Path, made_as: str, now_is: str) -> Problem:
    return Problem(
        code="machines/moved",
        what="the machines were made when this inventory lay elsewhere or had another `name:`",
        at=str(inventory),
        saw=(f"made as {made_as}, now it is {now_is}",),
        now="nothing was changed; the machines run on",
        hint="put it back as it was, and: ./mesh down\n"
        "if this is a copy, and the machines are the original's: rm -r .envoymesh",
    )


def _choice(asked: str, made_by: str, mesh: Mesh) -> tuple[str, str]:
    """Return the provider to use and why, in words."""
    if asked and asked != "auto":
        return asked, "asked for by --provider"
    if made_by:
        return made_by, "it made the machines that exist"
    if mesh.provider != "auto" and not asked:
        return mesh.provider, "the inventory says so"
    usable, why = vagrant.accelerated()
    return ("vagrant", why) if usable else ("nspawn", why)


def _provider(name: str, mesh: Mesh, inventory: Path) -> Provider:
    state_dir = _state_dir(inventory)
    if name == "vagrant":
        return vagrant.Vagrant(mesh, state_dir, inventory)
    if name == "nspawn":
        return nspawn.Nspawn(mesh, state_dir)
    return Existing(state_dir)


def host_named(mesh: Mesh, name: str) -> Host:
    """Return the host `name`.

    Raises:
        Failed: there is none; the problem suggests the nearest.
    """
    if name not in mesh.hosts:
        what, saw = f"there is no host `{name}`", (f"hosts: {', '.join(mesh.hosts)}",)
        raise Failed(
            Problem("inventory/unknown-host", what, "inventory.yaml  hosts", saw, hint=did_you_mean(name, mesh.hosts))
        )
    return mesh.hosts[HostName(name)]


FAILED = "@failed"
"""What names, in a limit, the hosts that the last run has not done."""


def limited(mesh: Mesh, limit: str, failed: Callable[[], Collection[str]] = tuple) -> tuple[Host, ...]:
    """Return the hosts that `limit` names, all if it is empty: hosts, services, `edge`, globs, separated by commas.

    `@failed` names those that `failed` returns, of which some may be gone, or none be left.

    Raises:
        Failed: another part of it names nothing.
    """
    parts = [part.strip() for part in limit.split(",") if part.strip()]
    again = failed() if FAILED in parts else ()
    for part in parts:
        if part != FAILED and not any(_matches(h, part) for h in mesh.hosts.values()):
            known = [*mesh.hosts, *mesh.services, "edge", FAILED]
            what, saw = f"`{part}` is no host, no service and matches none", (f"known: {', '.join(known)}",)
            raise Failed(Problem("inventory/unknown-limit", what, "--limit", saw, hint=did_you_mean(part, known)))
    return tuple(h for h in mesh.hosts.values() if not parts or h.name in again or any(_matches(h, p) for p in parts))


def _matches(host: Host, part: str) -> bool:
    return host.role == part or fnmatchcase(host.name, part)
