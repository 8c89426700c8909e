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

from envoymesh.machines import kvm, libvirt, publish, vagrant_box
from envoymesh.machines.base import Progress
from envoymesh.model.mesh import Host, HostName, Mesh
from envoymesh.problems import Failed, Problem
from envoymesh.transport.dial import dial
from envoymesh.transport.login import Login

VAGRANTFILE = Path(__file__).parents[2] / "vagrant"

READY_WITHIN_S = 120
"""How long a machine that Vagrant has brought up may take to answer at its mesh address."""

BOX_LOCK = Path("/run/lock")
"""The directory itself is locked: a file in it would belong to whoever came first, and be closed to others."""

LIBVIRT_SOCKETS = (Path("/run/libvirt/libvirt-sock"), Path("/run/libvirt/virtqemud-sock"))

TOOLS = {
    "vagrant": "vagrant vagrant-libvirt",
    "ssh": "openssh-client",
    "ssh-keyscan": "openssh-client",
    "setpriv": "util-linux",
    "systemd-socket-activate": "systemd",
    "virsh": "libvirt-clients",
}
"""What it takes, and the Debian packages with that; `virsh` only where there is libvirt."""


def accelerated() -> tuple[bool, str]:
    """Return whether Vagrant can run machines at full speed on this box, and why or why not, in words."""
    if not shutil.which("vagrant"):
        return False, "Vagrant is not installed"
    found = _hypervisor()
    if found == "virtualbox":
        return True, "Vagrant is installed, with VirtualBox"
    if not found:
        return False, "Vagrant is installed, but neither libvirt nor VirtualBox is there"
    trouble = kvm.trouble() if shutil.which("virsh") else "this box has no virsh"
    return (False, trouble) if trouble else (True, "Vagrant is installed, with libvirt and KVM")


def _hypervisor() -> str:
    """Return what Vagrant calls the hypervisor of this box, or an empty string when there is none."""
    if any(_listens(path) for path in LIBVIRT_SOCKETS):
        return "libvirt"
    return "virtualbox" if shutil.which("VBoxManage") and Path("/dev/vboxdrv").exists() else ""


def _absent() -> list[str]:
    """Return the tools that this box lacks."""
    without = () if _hypervisor() == "libvirt" else ("virsh",)
    return [tool for tool in TOOLS if tool not in without and not shutil.which(tool)]


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
        absent = _absent()
        if absent:
            return f"this box has no {', '.join(absent)}"
        return "" if _hypervisor() else "neither libvirt nor VirtualBox can be reached on this box"

    def machines(self) -> Sequence[HostName]:
        """Return the names of the machines of this mesh that exist, wholly or in part, running or not."""
        remembered = {path.parent.name for path in self._home.glob("dot/machines/*/*")}
        return sorted({HostName(name) for name in remembered} | self._whole())

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
            self._refuse(hosts)
            new = [h for h in hosts if not self._record(h.name).exists()]
            absent = [h for h in hosts if h in new or not _answers_ssh(h, within_s=0)]
            if absent:
                with _alone(progress) as box:
                    self._refuse_network()
                    self._log.unlink(missing_ok=True)
                    self._remove([h.name for h in new if h.name in self.machines()], (lock, box), progress)
                    words = ("up", "--parallel", "--provider", _hypervisor())
                    self._vagrant([*words, *(h.name for h in absent)], (lock, box), progress)
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
            if self._home.exists():
                with _alone(progress) as box:
                    self._remove(gone, (lock, box), progress)
                    if not self.machines():
                        self._remove_network()
            if not self.machines():
                publish.unpublish(self._publish)
                shutil.rmtree(self._home, ignore_errors=True)

    def publish(self, edge: Host, ports: Mapping[int, int], admin_port: int) -> None:
        """Let 127.0.0.1 of this box reach the edge, until it is destroyed; survives the edge's reboots.

        The machine may come later: a taken port is better known before.

        Raises:
            Failed: a tool is missing, a port is taken, or a machine of this mesh could not be made.
        """
        self._require()
        hosts = list(self._mesh.hosts.values())
        with self._lock():
            self._refuse(hosts)
            if not all(self._record(h.name).exists() for h in hosts):
                self._refuse_network()
            publish.require_free(self._publish, (*ports, admin_port))
            publish.unpublish(self._publish, keep=(*ports, admin_port))
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

    def _addresses(self) -> dict[HostName, str]:
        """Return the addresses of the machines that are whole, whatever the inventory has now."""
        return {name: self._login(name).address for name in self._whole()}

    def _whole(self) -> set[HostName]:
        return {HostName(path.name) for path in self._home.glob("logins/[!.]*")}

    def _login(self, name: HostName) -> Login:
        settings = _ssh_settings(self._record(name).read_text())[name]
        return Login(
            host=name,
            address=settings["HostName"],
            known_hosts=self._known_hosts,
            port=22,
            user=settings["User"],
            key=Path(settings["IdentityFile"].replace("%%", "%")),
            jump="none",
            host_keys="strict",
        )

    def _remember(self, hosts: Sequence[Host], lock: int) -> None:
        """Keep how to log in to machines that were just made, and trust the host keys that they show now."""
        asked = _ssh_settings("\n".join(self._vagrant(["ssh-config", *(h.name for h in hosts)], (lock,))))
        keys = {str(h.address): _shown_key(h) for h in hosts}
        if not all(keys.values()):
            raise Failed(*(self._no_key(h) for h in hosts if not keys[str(h.address)]))
        self._know(keys)
        (self._home / "logins").mkdir(exist_ok=True)
        for host in hosts:
            settings = {
                "HostName": str(host.address),
                "User": asked[host.name]["User"],
                "IdentityFile": _file_name(asked[host.name]["IdentityFile"]),
                "IdentitiesOnly": "yes",
                "UserKnownHostsFile": _file_name(self._known_hosts),
                "StrictHostKeyChecking": "yes",
                "BatchMode": "yes",
            }
            lines = [f"Host {host.name}", *(f"  {key} {value}" for key, value in settings.items())]
            _replace(self._record(host.name), "".join(f"{line}\n" for line in lines))

    def _refuse(self, hosts: Sequence[Host]) -> None:
        """Refuse hosts that cannot be made, or not with the names and addresses that machines have."""
        had, problems = self._addresses(), []
        for host in hosts:
            others = [name for name, address in had.items() if address == str(host.address) and name != host.name]
            if re.fullmatch("[0-9a-f]+", host.name):
                problems.append(_like_an_id(host))
            elif had.get(host.name, str(host.address)) != str(host.address):
                problems.append(_moved(host, had[host.name]))
            elif others:
                problems.append(_renamed(host, others[0]))
        if problems:
            raise Failed(*problems)

    def _refuse_network(self) -> None:
        """Refuse addresses that a network of somebody else has in libvirt.

        vagrant-libvirt 0.11 would note that network as this mesh's own, and remove it with the machines.
        """
        if _hypervisor() != "libvirt":
            return
        network = self._mesh.machines.network
        for name, others in libvirt.networks().items():
            if name != self._mesh.identifier and any(other.overlaps(network) for other in others):
                code, what, hint = NETWORK_TAKEN
                raise Failed(
                    Problem(
                        code=code,
                        what=what.format(network=network),
                        at=str(self._inventory),
                        saw=(f"libvirt's network {name} has {', '.join(map(str, others))}",),
                        now=UNTOUCHED,
                        hint=hint.format(),
                    )
                )

    def _know(self, keys: Mapping[str, str]) -> None:
        """Replace the known_hosts lines of these addresses, atomically; an empty line removes."""
        before = self._known_hosts.read_text().splitlines() if self._known_hosts.exists() else []
        others = [line for line in before if line.partition(" ")[0] not in keys]
        after = [*others, *(line for line in keys.values() if line)]
        if after != before:
            _replace(self._known_hosts, "".join(f"{line}\n" for line in after))

    # What is done.

    def _require(self) -> None:
        absent = _absent()
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

    def _remove(self, names: Sequence[HostName], locks: Sequence[int], progress: Progress) -> None:
        """Destroy machines, whole or not, each in its turn; what tells that one exists goes last."""
        addresses = [self._login(name).address for name in names if self._record(name).exists()]
        for name in names:
            self._record(name).unlink(missing_ok=True)
        self._know(dict.fromkeys(addresses, ""))
        problems: list[Problem] = []
        for name in names:
            # Vagrant ends with the first that it cannot destroy. In parallel, each machine would find the network
            # unused, and fail when another was faster to remove it.
            try:
                self._vagrant(["destroy", "--force", name], locks, progress)
            except Failed as failed:
                # What bears the name of a machine that was never made is somebody else's.
                others = [p for p in failed.problems if p.code != "machines/name-taken"]
                problems += others
                if others:
                    continue
            shutil.rmtree(self._home / "dot" / "machines" / name, ignore_errors=True)
        if problems:
            raise Failed(*problems)

    def _remove_network(self) -> None:
        """Remove the mesh's network where it is left: Vagrant removes it with a machine that it finds, not without."""
        if _hypervisor() != "libvirt" or not shutil.which("virsh"):
            return
        if not any(name.startswith(self._domain("")) for name in libvirt.machines()):
            libvirt.remove_network(self._mesh.identifier)

    def _await_ssh(self, hosts: Sequence[Host]) -> None:
        end = time.monotonic() + READY_WITHIN_S
        silent = [h for h in hosts if not _answers_ssh(h, within_s=max(1, end - time.monotonic()))]
        if silent:
            raise Failed(*(self._no_answer(host) for host in silent))

    def _vagrant(self, words: Sequence[str], locks: Sequence[int], progress: Progress | None = None) -> list[str]:
        """Run Vagrant; return what it printed.

        It is told to stop when this process ends, then undoes what it has begun, and holds the locks until that
        is done: the next command waits for it. A session and a log of its own let it: a terminal would tell it
        to stop a second time, which it takes for "at once", and it could not write to a pipe without a reader.
        """
        self._write_inventory(words)
        with self._log.open("ab") as log, self._log.open(errors="replace") as shown:
            shown.seek(0, os.SEEK_END)
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "INT", "vagrant", *words, "--no-color"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=locks,
                env=self._environment(boots=words[0] == "up"),
            )
            lines = []
            for line in _followed(shown, process):
                lines.append(line)
                _tell(line, progress)
        if process.returncode != 0:
            raise Failed(*self._failed(words, lines))
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

    def _failed(self, words: Sequence[str], lines: Sequence[str]) -> list[Problem]:
        """Return the problems in what Vagrant printed; of one machine alone it does not say the name."""
        named = [word for word in words if word in {*self.machines(), *self._mesh.hosts}]
        only = named[0] if len(named) == 1 else ""
        return [self._problem(words[0], name or only, text) for name, text in errors_in(lines).items()]

    def _problem(self, action: str, name: str, text: Sequence[str]) -> Problem:
        said = " ".join(text)
        code, what, hint = next(
            ((code, what, hint) for sign, code, what, hint in KNOWN if re.search(sign, said)),
            ("machines/vagrant", f"`vagrant {action}` failed", f"less {self._log}"),
        )
        there = "machines that were whole before are as they were"
        return Problem(
            code=code,
            what=what.format(box=self._mesh.machines.box, network=self._mesh.machines.network, name=self._domain(name)),
            at=name or str(self._inventory),
            saw=tuple(text[-10:]),
            now="it is there, wholly or in part, until the same command succeeds" if action == "destroy" else there,
            hint=hint.format(log=self._log, local=vagrant_box.name(), network=self._mesh.machines.network),
        )

    def _domain(self, name: str) -> str:
        return f"{self._mesh.identifier}_{name}"

    def _no_key(self, host: Host) -> Problem:
        return Problem(
            code="machines/no-key",
            what=f"the machine did not show an Ed25519 host key within {READY_WITHIN_S} s",
            at=f"{host.name} ({host.address})",
            now="it runs, but is not logged in to; the next ./mesh up makes it anew",
            hint=f"does its sshd have one? ssh-keyscan -t ed25519 {host.address}",
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


UNTOUCHED = "no machine was made, changed or removed"


def _like_an_id(host: Host) -> Problem:
    return Problem(
        code="machines/bad-name",
        what=f"Vagrant takes `{host.name}` for the beginning of an id, so for any machine on this box",
        at=host.name,
        now=UNTOUCHED,
        hint=f"give it a name with another character than a to f and digits, such as `{host.name}-1`",
    )


def _moved(host: Host, address: str) -> Problem:
    return Problem(
        code="machines/address-changed",
        what=f"the machine has the address {address}, which only a new machine can change",
        at=f"{host.name} ({host.address})",
        now=UNTOUCHED,
        hint="put the address in inventory.yaml back, or make all machines anew: ./mesh down && ./mesh up",
    )


def _renamed(host: Host, other: HostName) -> Problem:
    return Problem(
        code="machines/address-taken",
        what=f"the machine `{other}` has this address, and only a new machine can have another name",
        at=f"{host.name} ({host.address})",
        now=UNTOUCHED,
        hint=f"name it `{other}` in inventory.yaml again, or make all machines anew: ./mesh down && ./mesh up",
    )


NETWORK_TAKEN = (
    "machines/network-taken",
    "the network {network} on this box belongs to something else",
    "change `machines: {{network: …}}` and the addresses of the hosts in inventory.yaml",
)
KNOWN = (
    (
        r"about to create is already taken|VM name .* already exists|Domain volume .* exists",
        "machines/name-taken",
        "the name `{name}` on this box belongs to a machine that this mesh did not make",
        "remove it (virsh -c qemu:///system undefine --remove-all-storage NAME), or change `name:` in inventory.yaml",
    ),
    (r"already in use by interface|address already in use", *NETWORK_TAKEN),
    (
        r"not within the allowed ranges",
        "machines/network-not-allowed",
        "VirtualBox does not allow the network {network}",
        "echo '* {network}' | sudo tee -a /etc/vbox/networks.conf    (or change the network and all addresses)",
    ),
    (
        r"[Bb]ox .* could not be found|could not be accessed in the remote catalog",
        "machines/no-box",
        "Vagrant has no box `{box}`, and could not download it",
        "./mesh vagrant-box    then, in inventory.yaml: machines: {{box: {local}}}",
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


def _file_name(path: str | Path) -> str:
    """Return a path as a value of ssh_config."""
    return '"' + str(path).replace("%", "%%") + '"'


def _shown_key(host: Host) -> str:
    """Return the line for known_hosts with the key that the machine shows now; empty when none came in time."""
    asked = ["ssh-keyscan", "-T", "5", "-t", "ed25519", str(host.address)]
    end = time.monotonic() + READY_WITHIN_S
    while True:
        shown = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
        line = next((line for line in shown if not line.startswith("#")), "")
        if line or time.monotonic() > end:
            return line
        time.sleep(0.5)


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


@contextlib.contextmanager
def _alone(progress: Progress) -> Iterator[int]:
    """Keep the Vagrants of other meshes on this box from starting; yield the lock's descriptor.

    They share a network of vagrant-libvirt's, which goes with the last machine while another one may begin to use it.
    """
    lock = os.open(BOX_LOCK, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("", "waiting for the Vagrant of another mesh on this box")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


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
