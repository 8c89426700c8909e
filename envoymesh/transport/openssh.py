"""What OpenSSH would do: `~/.ssh/config` resolved by `ssh -G`, and the command line that logs in the same way."""

import getpass
import os
import pwd
import re
import shlex
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from envoymesh.problems import ExitCode, Failed, Problem
from envoymesh.transport.login import Login

DEFAULT_IDENTITIES = ("id_ed25519", "id_ecdsa", "id_rsa")

CONFIG_WITHIN_S = 10
"""How long OpenSSH may take to resolve its configuration, in which `Match exec` runs commands."""

TIMEOUT_S = 10.0
"""How long a login may take where nothing says so: OpenSSH would wait for TCP to give up, some two minutes."""


@dataclass(frozen=True)
class Target:
    """A login with every setting known.

    Attributes:
        login: what it was made from.
        address: name or IP address to connect to.
        port: its port.
        user: who logs in.
        identities: private key files, the first to be tried first; those that do not exist are passed over.
        only_identities: whether the agent's other keys are not to be tried.
        jump: the jump hosts as for `ssh -J`, or None.
        known_as: the name that known_hosts files have for it.
        known_hosts: the files whose host keys are trusted, the mesh's own first.
        strict: whether a key that is not known is refused.
        timeout_s: how long the login may take, jump hosts and questions apart.
        proxy_command: the shell command to talk to instead of a TCP port, or None.
    """

    login: Login
    address: str
    port: int
    user: str
    identities: tuple[Path, ...]
    only_identities: bool
    jump: str | None
    known_as: str
    known_hosts: tuple[Path, ...]
    strict: bool
    timeout_s: float
    proxy_command: str | None = None

    @property
    def at(self) -> str:
        """Where problems say they are."""
        return f"{self.login.host} {self.user}@{self.address}:{self.port}"

    @property
    def reproduce(self) -> str:
        """A hint: the OpenSSH command that does the same and says more."""
        return f"see what OpenSSH says: {shlex.join([*ssh_command(self.login), '-v', 'true'])}"

    def unreachable(self, what: str, *saw: str, code: str = "ssh/unreachable", now: str = "") -> Failed:
        """Return the failure of a host that cannot be worked with now."""
        return Failed(Problem(code, what, self.at, saw, now, self.reproduce, ExitCode.UNREACHABLE))


def resolve(login: Login) -> Target:
    """Fill in what `login` leaves open, from `~/.ssh/config` and OpenSSH's defaults.

    Raises:
        Failed: OpenSSH does not accept the configuration, or does not end.
    """
    said = _configured(login)
    port = login.port or int(said["port"][0] if "port" in said else 22)
    address = said["hostname"][0] if "hostname" in said else login.address
    target = Target(
        login=login,
        address=address,
        port=port,
        user=login.user or (said["user"][0] if "user" in said else getpass.getuser()),
        identities=(login.key,) if login.key else _identities(said),
        only_identities=login.key is not None or said.get("identitiesonly") == ["yes"],
        jump=_jump(login, said, port),
        known_as=said["hostkeyalias"][0] if "hostkeyalias" in said else _place(address, port),
        known_hosts=tuple(_known_hosts(login, said)),
        strict=_is_strict(login, said),
        timeout_s=login.timeout_s or _timeout_s(said),
    )
    command = None if login.jump else next(iter(said.get("proxycommand", [])), None)
    return replace(target, proxy_command=_expanded(command, target)) if command else target


def jump_target(target: Target) -> Target:
    """Return the last jump host of `target`; it is reached through those before it, as `ssh -J a,b` does.

    It logs in as OpenSSH would, but the host's own key is tried first.
    """
    login = _jump_login(target.login, target.jump or "")
    jump = resolve(replace(login, key=None))
    own = (login.key,) if login.key else ()
    return replace(jump, login=login, identities=(*own, *jump.identities))


def ssh_command(login: Login) -> list[str]:
    """Return the OpenSSH command that logs in as `login` says; append options or a remote command to it.

    Raises:
        Failed: as `resolve`.
    """
    enter = ["nsenter", f"--net={login.namespace}"] if login.namespace else []
    only_key = ["-o", "IdentitiesOnly=yes"] if login.key else []
    return [*enter, "ssh", *only_key, *_options(login), _destination(login)]


def _known_hosts(login: Login, said: Mapping[str, list[str]]) -> list[Path]:
    """Return the files whose host keys are trusted, the mesh's own first, then those that OpenSSH would read.

    In a namespace an address may be someone else's than on this box: only the mesh's file speaks of it.
    """
    theirs = [Path.home() / ".ssh/known_hosts", Path("/etc/ssh/ssh_known_hosts")]
    if "userknownhostsfile" in said:
        theirs = [*_files(said["userknownhostsfile"][0]), *_files(said["globalknownhostsfile"][0])]
    return [login.known_hosts.absolute(), *([] if login.namespace else theirs)]


def _files(said: str) -> list[Path]:
    """Return the files of a list that OpenSSH prints without quotes, with the home that the user database has."""
    home = pwd.getpwuid(os.getuid()).pw_dir
    names = [] if said == "none" else re.split(" (?=[/~])", said)
    return [Path(re.sub(f"^{re.escape(home)}(?=/)", "~", name)).expanduser() for name in names]


def _is_strict(login: Login, said: Mapping[str, list[str]]) -> bool:
    return login.host_keys == "strict" or said.get("stricthostkeychecking") in (["yes"], ["true"])


def _configured(login: Login) -> Mapping[str, list[str]]:
    """Ask `ssh -G`, which knows Include and Match; an empty answer when nothing is open or there is no ssh."""
    if _is_whole(login):
        return {}
    command = ["ssh", *_config_file(login), "-G", *_given(login), "--", login.address]
    try:
        ran = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CONFIG_WITHIN_S, check=False
        )
    except FileNotFoundError:
        return {}
    except subprocess.TimeoutExpired:
        what = f"OpenSSH does not come to the end of its configuration for `{login.address}` in {CONFIG_WITHIN_S} s"
        raise Failed(Problem("ssh/config", what, login.host, hint=shlex.join(command))) from None
    if ran.returncode != 0:
        saw = tuple(ran.stderr.splitlines())
        what = f"OpenSSH does not accept its configuration for `{login.address}`"
        raise Failed(Problem("ssh/config", what, login.host, saw, hint=shlex.join(command)))
    said = defaultdict(list)
    for line in ran.stdout.splitlines():
        word, _, value = line.partition(" ")
        said[word].append(value)
    return said


def _given(login: Login) -> list[str]:
    """Return user and port as options, so that Match blocks see them."""
    user = ["-l", login.user] if login.user else []
    return [*user, *(["-p", str(login.port)] if login.port else [])]


def _is_whole(login: Login) -> bool:
    """Return whether a login leaves nothing to `~/.ssh/config`."""
    return bool(login.namespace) or None not in (login.user, login.port, login.key, login.jump)


def _config_file(login: Login) -> list[str]:
    """Return `-F` for none, or where $HOME is not the home that OpenSSH takes from the user database."""
    if _is_whole(login):
        return ["-F", "none"]
    config = Path.home() / ".ssh/config"
    elsewhere = Path.home() != Path(pwd.getpwuid(os.getuid()).pw_dir)
    return ["-F", str(config)] if elsewhere and config.exists() else []


def _identities(said: Mapping[str, list[str]]) -> tuple[Path, ...]:
    files = said.get("identityfile") or [f"~/.ssh/{name}" for name in DEFAULT_IDENTITIES]
    return tuple(Path(file.replace("%d", "~")).expanduser() for file in files)


def _timeout_s(said: Mapping[str, list[str]]) -> float:
    """Return `ConnectTimeout`, which `ssh -G` prints in seconds."""
    configured = next(iter(said.get("connecttimeout", [])), "none")
    return float(configured) if configured.isdecimal() and int(configured) else TIMEOUT_S


def _jump(login: Login, said: Mapping[str, list[str]], port: int) -> str | None:
    if login.jump:
        return None if login.jump == "none" else login.jump
    jump: str | None = next(iter(said.get("proxyjump", [])), None)
    if jump is None:
        return None
    # `Host *` with a ProxyJump sends the jump host through itself; OpenSSH takes no notice of that either.
    _, address, its_port = _hop(jump.rpartition(",")[2])
    return None if address == login.address and its_port in (None, port) else jump


def _expanded(text: str, target: Target) -> str:
    """Replace the tokens of a ProxyCommand."""
    tokens = {"%%": "%", "%h": target.address, "%n": target.login.address, "%p": str(target.port), "%r": target.user}
    return re.sub("%.", lambda token: tokens.get(token[0], token[0]), text)


def _place(address: str, port: int) -> str:
    """Return how known_hosts files name an address and a port."""
    return address if port == 22 else f"[{address}]:{port}"


def _hop(text: str) -> tuple[str | None, str, int | None]:
    """Split `user@host:port` or `ssh://user@host:port` into user, host and port; an IPv6 address is in brackets."""
    user, _, place = text.removeprefix("ssh://").rstrip("/").rpartition("@")
    has_port = place.count(":") == 1 or "]:" in place
    host, _, port = place.rpartition(":") if has_port else (place, "", "")
    return user or None, host.strip("[]"), int(port) if port else None


def _jump_login(login: Login, jump: str) -> Login:
    before, _, last = jump.rpartition(",")
    user, address, port = _hop(last)
    return Login(
        host=f"jump host {address}",
        address=address,
        known_hosts=login.known_hosts,
        port=port,
        user=user,
        key=login.key,
        jump=before or None,
        host_keys=login.host_keys,
        namespace=login.namespace,
    )


def _destination(login: Login) -> str:
    return f"{login.user}@{login.address}" if login.user else login.address


def _options(login: Login) -> list[str]:
    said = _configured(login)
    known = " ".join(f'"{file}"' for file in _known_hosts(login, said)).replace("%", "%%")
    checking = "yes" if _is_strict(login, said) else "accept-new"
    options = [
        *_config_file(login),
        *(["-i", str(login.key)] if login.key else []),
        *(["-p", str(login.port)] if login.port else []),
        *("-o", f"UserKnownHostsFile={known}"),
        *("-o", f"StrictHostKeyChecking={checking}"),
    ]
    return [*options, *_through(login)]


def _through(login: Login) -> Sequence[str]:
    """Return the options for an explicit jump host.

    `-J` would not hand on the key and the known hosts file, so the jump is a ProxyCommand of our own.
    """
    if login.jump in (None, "none"):
        return ["-J", "none"] if login.jump else []
    jump = _jump_login(login, login.jump or "")
    command = ["ssh", *_options(jump), _destination(jump)]
    escaped = [argument.replace("%", "%%") for argument in command]
    return ["-o", f"ProxyCommand={shlex.join([*escaped[:-1], '-W', '[%h]:%p', escaped[-1]])}"]
