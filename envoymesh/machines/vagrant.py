"""The Vagrant provider: real virtual machines, by libvirt or VirtualBox.

Vagrant reads the machines from an inventory (`vagrant/Vagrantfile`): from one that is written here for each
run, as a host is made before it is entered into inventory.yaml, and destroyed before it is taken out.
How to log in is asked once, when a machine is made, and kept as a file for `ssh -F`.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from envoymesh.machines import kvm, publish
from envoymesh.machines.base import Progress
from envoymesh.model.mesh import Host, HostName, Mesh
from envoymesh.problems import Failed, Problem
from envoymesh.transport.dial import dial
from envoymesh.transport.login import Login

VAGRANTFILE = Path(__file__).parents[2] / "vagrant"

READY_WITHIN_S = 120
"""How long a machine that Vagrant has brought up may take to answer at its mesh address."""

LIBVIRT_SOCKETS = (Path("/run/libvirt/libvirt-sock"), Path("/run/libvirt/virtqemud-sock"))

TOOLS = {
    "vagrant": "vagrant vagrant-libvirt",
    "ssh": "openssh-client",
    "ssh-keyscan": "openssh-client",
    "setpriv": "util-linux",
    "systemd-socket-activate": "systemd",
}
"""What it takes, and the Debian packages with that."""


def accelerated() -> tuple[bool, str]:
    """Return whether Vagrant can run machines at full speed on this box, and why or why not, in words."""
    if not shutil.which("vagrant"):
        return False, "Vagrant is not installed"
    found = _hypervisor()
    if found == "virtualbox":
        return True, "Vagrant is installed, with VirtualBox"
    if not found:
        return False, "Vagrant is installed, but neither libvirt nor VirtualBox is there"
    trouble = kvm.trouble()
    return (False, trouble) if trouble else (True, "Vagrant is installed, with libvirt and KVM")


def _hypervisor() -> str:
    """Return what Vagrant calls the hypervisor of this box, or an empty string when there is none."""
    if any(_listens(path) for path in LIBVIRT_SOCKETS):
        return "libvirt"
    return "virtualbox" if shutil.which("VBoxManage") and Path("/dev/vboxdrv").exists() else ""


def _listens(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        return True
    return False


class Vagrant:
    """Makes the machines of one mesh; `state_dir` is the checkout's own and remembers them."""

    name = "vagrant"

    def __init__(self, mesh: Mesh, state_dir: Path, inventory: Path) -> None:
        self._mesh = mesh
        self._inventory = inventory
        self._state = state_dir.absolute()
        self._home = self._state / "vagrant"
        self._publish = self._state / "publish"
        self._known_hosts = self._state / "known_hosts"

    def missing(self) -> str:
        """Return why this provider cannot work on this box, as a short phrase, or an empty string."""
        absent = [tool for tool in TOOLS if not shutil.which(tool)]
        if absent:
            return f"this box has no {', '.join(absent)}"
        return "" if _hypervisor() else "neither libvirt nor VirtualBox can be reached on this box"

    def machines(self) -> Sequence[HostName]:
        """Return the names of the machines of this mesh that exist, wholly or in part, running or not."""
        remembered = {path.parent.name for path in self._home.glob("dot/machines/*/*")}
        return [HostName(name) for name in sorted(remembered | {path.name for path in self._home.glob("logins/*")})]

    def logins(self, hosts: Sequence[Host]) -> Mapping[HostName, Login]:
        """Return the login of each of `hosts` that exists: Vagrant's user and key, at the mesh address."""
        return {h.name: self._login(h.name) for h in hosts if self._record(h.name).exists()}

    def create(self, hosts: Sequence[Host], progress: Progress) -> None:
        """Make and start those of `hosts` that do not run yet, in parallel; return when all answer SSH.

        Raises:
            Failed: a tool is missing, a name or the network is taken, or a machine did not start.
        """
        self._require()
        with self._lock() as lock:
            self._refuse_moved(hosts)
            new = [h for h in hosts if not self._record(h.name).exists()]
            self._remove([h.name for h in new if h.name in self.machines()], lock, progress)
            absent = [h for h in hosts if h in new or not _answers_ssh(h, within_s=0)]
            if absent:
                words = ("up", "--parallel", "--provider", _hypervisor())
                self._vagrant([*words, *(h.name for h in absent)], lock, progress)
                self._await_ssh(absent)
            if new:
                self._remember(new, lock)

    def destroy(self, names: Sequence[HostName], progress: Progress) -> None:
        """Remove these machines and all that belongs to them; with the last one the mesh's network too.

        Raises:
            Failed: a tool is missing, or Vagrant could not.
        """
        if not self._state.exists():
            return
        gone = sorted(set(names) & set(self.machines()))
        if gone:
            self._require()
        with self._lock() as lock:
            if set(gone) & {edge.name for edge in self._mesh.edges[:1]}:
                publish.unpublish(self._publish)
            self._remove(gone, lock, progress)
            if not self.machines():
                publish.unpublish(self._publish)
                shutil.rmtree(self._home, ignore_errors=True)

    def publish(self, edge: Host, ports: Mapping[int, int], admin_port: int) -> None:
        """Let 127.0.0.1 of this box reach the edge, until it is destroyed; survives the edge's reboots.

        The machine may come later: a taken port is better known before.

        Raises:
            Failed: a tool is missing, or a port is taken.
        """
        self._require()
        with self._lock():
            publish.require_free(self._publish, (*ports, admin_port))
            for port, target in ports.items():
                publish.publish(self._publish, port, publish.socket_proxy(f"{edge.address}:{target}"))
            tunnel = ("ssh", "-F", str(self._record(edge.name)), "-W", "127.0.0.1:8001", edge.name)
            per_connection = ("systemd-socket-activate", "--accept", "--inetd")
            publish.publish(self._publish, admin_port, [*per_connection, *tunnel])

    # What is remembered.

    @property
    def _log(self) -> Path:
        return self._home / "vagrant.log"

    def _record(self, name: HostName) -> Path:
        """Return the file that tells that a machine is whole: how to log in to it, as `ssh -F` takes it."""
        return self._home / "logins" / name

    def _login(self, name: HostName) -> Login:
        settings = _ssh_settings(self._record(name).read_text())[name]
        return Login(
            host=name,
            address=settings["HostName"],
            known_hosts=self._known_hosts,
            port=22,
            user=settings["User"],
            key=Path(settings["IdentityFile"]),
            host_keys="strict",
        )

    def _remember(self, hosts: Sequence[Host], lock: int) -> None:
        """Keep how to log in to machines that were just made, and trust the host keys that they show now."""
        asked = _ssh_settings("\n".join(self._vagrant(["ssh-config", *(h.name for h in hosts)], lock)))
        self._know({str(h.address): _shown_key(h) for h in hosts})
        (self._home / "logins").mkdir(exist_ok=True)
        for host in hosts:
            settings = {
                "HostName": str(host.address),
                "User": asked[host.name]["User"],
                "IdentityFile": f'"{asked[host.name]["IdentityFile"]}"',
                "IdentitiesOnly": "yes",
                "UserKnownHostsFile": f'"{self._known_hosts}"',
                "StrictHostKeyChecking": "yes",
                "BatchMode": "yes",
            }
            lines = [f"Host {host.name}", *(f"  {key} {value}" for key, value in settings.items())]
            _replace(self._record(host.name), "".join(f"{line}\n" for line in lines))

    def _refuse_moved(self, hosts: Sequence[Host]) -> None:
        """Refuse hosts whose machines have another address: only a new machine gets the new one."""
        logins = self.logins(hosts)
        moved = [h for h in hosts if h.name in logins and logins[h.name].address != str(h.address)]
        if moved:
            raise Failed(*(self._moved(host, logins[host.name].address) for host in moved))

    def _know(self, keys: Mapping[str, str]) -> None:
        """Replace the known_hosts lines of these addresses, atomically; an empty line removes."""
        before = self._known_hosts.read_text().splitlines() if self._known_hosts.exists() else []
        others = [line for line in before if line.partition(" ")[0] not in keys]
        after = [*others, *(line for line in keys.values() if line)]
        if after != before:
            _replace(self._known_hosts, "".join(f"{line}\n" for line in after))

    # What is done.

    def _require(self) -> None:
        absent = [tool for tool in TOOLS if not shutil.which(tool)]
        if absent:
            packages = " ".join(dict.fromkeys(TOOLS[tool] for tool in absent))
            raise Failed(_tool_missing(f"this box has no {', '.join(f'`{t}`' for t in absent)}", packages))
        if not _hypervisor():
            what = "Vagrant has no hypervisor: neither libvirt nor VirtualBox can be reached on this box"
            raise Failed(_tool_missing(what, "vagrant-libvirt libvirt-daemon-system qemu-system-x86 dnsmasq-base"))

    @contextlib.contextmanager
    def _lock(self) -> Iterator[int]:
        """Keep other processes from making and destroying machines of this mesh; yield the lock's descriptor."""
        self._state.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._state / "machines.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock
        finally:
            os.close(lock)

    def _remove(self, names: Sequence[HostName], lock: int, progress: Progress) -> None:
        """Destroy machines, whole or not; what tells that they exist goes last."""
        if not names:
            return
        addresses = [self._login(name).address for name in names if self._record(name).exists()]
        for name in names:
            self._record(name).unlink(missing_ok=True)
        self._know(dict.fromkeys(addresses, ""))
        try:
            self._vagrant(["destroy", "--force", "--parallel", *names], lock, progress)
        except Failed as failed:
            # What bears the name of a machine that was never made is somebody else's.
            others = [p for p in failed.problems if p.code != "machines/name-taken"]
            if others:
                raise Failed(*others) from failed
        for name in names:
            shutil.rmtree(self._home / "dot" / "machines" / name, ignore_errors=True)

    def _await_ssh(self, hosts: Sequence[Host]) -> None:
        end = time.monotonic() + READY_WITHIN_S
        silent = [h for h in hosts if not _answers_ssh(h, within_s=max(1, end - time.monotonic()))]
        if silent:
            raise Failed(*(self._no_answer(host) for host in silent))

    def _vagrant(self, words: Sequence[str], lock: int, progress: Progress | None = None) -> list[str]:
        """Run Vagrant; return what it printed.

        It is told to stop when this process ends, then undoes what it has begun, and holds the lock until that
        is done: the next command waits for it. A session and a log of its own let it: a terminal would tell it
        to stop a second time, which it takes for "at once", and it could not write to a pipe without a reader.
        """
        self._write_inventory(words)
        with self._log.open("wb") as log, self._log.open(errors="replace") as shown:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "INT", "vagrant", *words, "--no-color"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
                env=self._environment(boots=words[0] == "up"),
            )
            lines = []
            for line in _followed(shown, process):
                lines.append(line)
                _tell(line, progress)
        if process.returncode != 0:
            raise Failed(*self._failed(words[0], lines))
        return lines

    def _write_inventory(self, words: Sequence[str]) -> None:
        """Write the inventory for Vagrant: what the mesh has, and what `words` name although it is in it no more."""
        hosts = {h.name: {"address": str(h.address)} for h in self._mesh.hosts.values()}
        gone: dict[HostName, dict[str, str]] = {name: {} for name in self.machines() if name in words}
        machines = self._mesh.machines
        settings = {"network": str(machines.network), "box": machines.box}
        sizes = {"memory_mib": machines.memory_mib, "cpus": machines.cpus}
        inventory = {"name": self._mesh.name, "machines": {**settings, **sizes}, "hosts": {**gone, **hosts}}
        self._home.mkdir(exist_ok=True)
        _replace(self._home / "inventory.json", json.dumps(inventory, indent=1))

    def _environment(self, *, boots: bool) -> dict[str, str]:
        return {
            **os.environ,
            "VAGRANT_CWD": str(VAGRANTFILE),
            "VAGRANT_DOTFILE_PATH": str(self._home / "dot"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "ENVOYMESH_INVENTORY": str(self._home / "inventory.json"),
            "ENVOYMESH_IDENTIFIER": self._mesh.identifier,
            "ENVOYMESH_DRIVER": "qemu" if boots and kvm.trouble() else "kvm",
        }

    # What can go wrong.

    def _failed(self, action: str, lines: Sequence[str]) -> list[Problem]:
        """Return the problems in what Vagrant printed."""
        return [self._problem(action, name, text) for name, text in errors_in(lines).items()]

    def _problem(self, action: str, name: str, text: Sequence[str]) -> Problem:
        said = " ".join(text)
        code, what, hint = next(
            ((code, what, hint) for sign, code, what, hint in KNOWN if re.search(sign, said)),
            ("machines/vagrant", f"`vagrant {action}` failed", f"less {self._log}"),
        )
        return Problem(
            code=code,
            what=what.format(box=self._mesh.machines.box, network=self._mesh.machines.network, name=self._domain(name)),
            at=name or str(self._inventory),
            saw=tuple(text[-10:]),
            now="machines that were there before are as they were",
            hint=hint.format(log=self._log),
        )

    def _domain(self, name: str) -> str:
        return f"{self._mesh.identifier}_{name}"

    def _moved(self, host: Host, address: str) -> Problem:
        return Problem(
            code="machines/address-changed",
            what=f"the machine has the address {address}, which only a new machine can change",
            at=f"{host.name} ({host.address})",
            now="nothing was changed",
            hint="put the address in inventory.yaml back, or make all machines anew: ./mesh down && ./mesh up",
        )

    def _no_answer(self, host: Host) -> Problem:
        return Problem(
            code="machines/no-answer",
            what=f"the machine did not answer SSH within {READY_WITHIN_S} s",
            at=f"{host.name} ({host.address})",
            saw=tuple(self._log.read_text(errors="replace").splitlines()[-5:]),
            now="it was left as it is; the other machines were not touched",
            hint=f"look at its console: virsh -c qemu:///system console {self._domain(host.name)}",
        )


KNOWN = (
    (
        r"about to create is already taken|VM name .* already exists|Domain volume .* exists",
        "machines/name-taken",
        "the name `{name}` on this box belongs to a machine that this mesh did not make",
        "remove it (virsh -c qemu:///system undefine --remove-all-storage NAME), or change `name:` in inventory.yaml",
    ),
    (
        r"does not match with network name|already in use by interface|address already in use",
        "machines/network-taken",
        "the network {network} on this box belongs to something else",
        "change `machines: {{network: …}}` and the addresses of the hosts in inventory.yaml",
    ),
    (
        r"[Bb]ox .* could not be found|could not be accessed in the remote catalog",
        "machines/no-box",
        "Vagrant has no box `{box}`, and could not download it",
        "./mesh vagrant-box    then, in inventory.yaml: machines: {{box: envoymesh/bookworm}}",
    ),
    (
        r"[Tt]he provider '?\S+ could not be found",
        "machines/tool-missing",
        "Vagrant lacks the plugin for libvirt",
        "apt-get install vagrant-libvirt",
    ),
)
"""What Vagrant says → code, what is wrong, hint."""


def errors_in(lines: Sequence[str]) -> dict[str, list[str]]:
    """Return what went wrong, per machine (or under an empty string), without progress and Ruby's own traces."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in lines:
        begins = re.match(r"An error occurred while executing the action on the '(.+)'$", line)
        if begins:
            name = begins[1]
        told = _plain(line)
        if told:
            found.setdefault(name, []).append(told)
    return {name: told for name, told in found.items() if told and (name or len(found) == 1)} or {"": list(lines[-10:])}


_CHATTER = re.compile(
    r"==> |    \S+: |Bringing machine|An error occurred|Any errors that occurred|machine\. Please handle this error"
    r"|\s+from |#<Thread:|.*\bautoload\b|.*constant Vagrant\S* not defined"
)
_TRACE = re.compile(r"/\S+\.rb:\d+:in [`'].*?': (?P<what>.*?)(?: \(\S+\))?$")


def _plain(line: str) -> str:
    """Return a line's message, or an empty string when it has none."""
    traced = _TRACE.match(line)
    text = traced["what"] if traced else line
    return "" if _CHATTER.match(text) else text.strip()


def _followed(shown: TextIO, process: "subprocess.Popen[bytes]") -> Iterator[str]:
    """Yield the lines of a file that a process writes, until it has ended."""
    unfinished = ""
    while True:
        ended = process.poll() is not None
        *whole, unfinished = (unfinished + shown.read()).split("\n")
        yield from whole
        if ended:
            break
        time.sleep(0.05)
    yield from filter(None, [unfinished])


def _tell(line: str, progress: Progress | None) -> None:
    """Pass a line of Vagrant's on as progress, unless it is a detail."""
    told = re.match(r"==> (\S+): (\w.*)", line)
    if progress and told:
        progress(told[1], told[2].rstrip("."))


def _ssh_settings(text: str) -> dict[str, dict[str, str]]:
    """Return the settings of each host of an SSH configuration."""
    hosts: dict[str, dict[str, str]] = {}
    settings: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "Host":
            settings = hosts.setdefault(value, {})
        elif key:
            settings[key] = value.strip('"')
    return hosts


def _shown_key(host: Host) -> str:
    """Return the line for known_hosts with the key that the machine shows now."""
    asked = ["ssh-keyscan", "-T", str(READY_WITHIN_S), "-t", "ed25519", str(host.address)]
    shown = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
    return next((line for line in shown if not line.startswith("#")), "")


def _answers_ssh(host: Host, within_s: float) -> bool:
    """Whether an SSH server says hello at port 22 of the mesh address; tried at least once."""
    end = time.monotonic() + within_s
    while True:
        with contextlib.suppress(OSError), dial(str(host.address), 22, deadline=time.monotonic() + 2) as connection:
            if connection.recv(4) == b"SSH-":
                return True
        if time.monotonic() > end:
            return False
        time.sleep(0.1)


def _replace(path: Path, content: str) -> None:
    """Replace a file by rename; nobody sees it half written."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    new.rename(path)


def _tool_missing(what: str, packages: str) -> Problem:
    return Problem(
        code="machines/tool-missing", what=what, now="nothing was changed", hint=f"apt-get install {packages}"
    )
