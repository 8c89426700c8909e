"""The nspawn provider: full systemd hosts in about two seconds, in network namespaces of their own.

Per mesh there is a hub, a namespace with a bridge, and per host a namespace with one link to it; nothing is
added to the box's own network. Per host there is also a control group, in which all of it runs, and a
directory that remembers it. Its root is an overlay, mounted in a mount namespace that ends with the machine.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from envoymesh.machines import cgroup, image, netns, publish
from envoymesh.machines.base import Progress
from envoymesh.model.mesh import Host, HostName, Mesh
from envoymesh.problems import Failed, Problem
from envoymesh.transport.dial import dial
from envoymesh.transport.login import Login

RECIPE = image.Recipe(
    name="nspawn",
    packages=(
        *("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "bash", "procps"),
        *("iproute2", "curl", "ca-certificates", "python3"),
    ),
    customise=(
        # Keys and identity are made per machine; there is no name server to wait for.
        'rm -f "$1"/etc/ssh/ssh_host_*; : > "$1"/etc/machine-id; : > "$1"/etc/resolv.conf; : > "$1"/etc/default/locale',
        # VERBOSE logs the start of each command, so that executions can be counted.
        "printf '%s\\n' 'HostKey /etc/ssh/ssh_host_ed25519_key' 'UseDNS no' 'LogLevel VERBOSE'"
        ' > "$1"/etc/ssh/sshd_config.d/envoymesh.conf',
        'mkdir -p "$1"/etc/systemd/journald.conf.d;'
        " printf '[Journal]\\nStorage=volatile\\n' > \"$1\"/etc/systemd/journald.conf.d/envoymesh.conf",
        # sshd that listens itself answers sooner than one started by a socket; timers are for longer lives.
        'chroot "$1" systemctl --quiet disable ssh.socket || true; chroot "$1" systemctl --quiet enable ssh.service;'
        ' chroot "$1" systemctl --quiet mask console-getty.service apt-daily.timer apt-daily-upgrade.timer'
        " dpkg-db-backup.timer e2scrub_all.timer fstrim.timer",
    ),
)

READY_WITHIN_S = 60

WATCHES_HINT = "let this box have more machines: sysctl fs.inotify.max_user_instances=1024    then: ./mesh up"
"""systemd needs some eight inotify instances; Linux gives all of root's machines 128 together."""

TOOLS = ("ip", "mmdebstrap", "nsenter", "setpriv", "setsid", "systemd-nspawn", "systemd-socket-activate", "unshare")

_OVERLAY = "mount -t overlay overlay -o lowerdir=base,upperdir=upper,workdir=work merged"
"""Run in the machine's directory: paths without commas and colons, which mount options cannot hold."""

_BOOT = f"""
group="$1"; shift
mkdir "$group/keeper" && echo 0 > "$group/keeper/cgroup.procs" || exit
exec < /dev/null > console.log 2>&1
root=root
[ -d root ] || {{ {_OVERLAY} && root=merged; }} || exit
status=133
while [ "$status" = 133 ]; do
  find "$group/machine" -depth -type d -exec rmdir {{}} + 2> /dev/null
  mkdir "$group/machine"
  (echo 0 > "$group/machine/cgroup.procs" && exec systemd-nspawn --directory="$root" "$@")
  status=$?
done
"""
"""Runs a machine until it is switched off. 133 is nspawn's way to say that the guest wants to be rebooted.

Standard input is the lock, given up once the control group tells that the machine runs. nspawn gets a group
of its own each time: it makes more below it, and then no process may live in it.
"""

_JOIN = 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"'

_OPTIONS = (
    *("--boot", "--quiet", "--register=no", "--keep-unit"),
    *("--resolv-conf=off", "--timezone=off", "--link-journal=no"),
)


class Nspawn:
    """Makes the machines of one mesh; `state_dir` is the checkout's own and remembers them."""

    name = "nspawn"

    def __init__(self, mesh: Mesh, state_dir: Path) -> None:
        self._mesh = mesh
        self._state = state_dir.absolute()
        self._hub = mesh.identifier
        self._machines = self._state / "machines"
        self._publish = self._state / "publish"
        self._known_hosts = self._state / "known_hosts"
        self._key = self._state / "ssh" / "id_ed25519"

    def missing(self) -> str:
        """Return why this provider cannot work on this box, as a short phrase, or an empty string."""
        if os.geteuid() != 0:
            return "it needs root"
        absent = [tool for tool in TOOLS if not shutil.which(tool)]
        if absent:
            return f"this box has no {', '.join(absent)}"
        return "" if cgroup.hierarchy() else "this box has no cgroup2 hierarchy that may be written to"

    def machines(self) -> Sequence[HostName]:
        """Return the names of the machines of this mesh that exist, wholly or in part, running or not."""
        remembered = {entry.name for entry in self._machines.glob("[!.]*/")}
        living = {entry.name for entry in self._mesh_group.glob("[!@]*/")} if self._is_ours() else set()
        return [HostName(name) for name in sorted(remembered | living)]

    def logins(self, hosts: Sequence[Host]) -> Mapping[HostName, Login]:
        """Return the login of each of `hosts` that exists: root, with the key of this checkout."""
        return {h.name: self._login(h) for h in hosts if self._record(h.name).exists()}

    def create(self, hosts: Sequence[Host], progress: Progress) -> None:
        """Make and start those of `hosts` that do not run yet, in parallel; return when all answer SSH.

        Raises:
            Failed: no root, a tool is missing, a name is taken, or a machine did not start.
        """
        self._require()
        base = image.root_directory(RECIPE, progress)
        with self._lock() as network:
            self._make_network(hosts, network)
            key = _own_key(self._key)
            for host in hosts:
                self._prepare(host, base, key, network.lock)
            self._know({str(h.address): self._record(h.name).read_text() for h in hosts})
            for host in hosts:
                self._start(host, network, progress)
        self._await_ssh(hosts, progress)

    def destroy(self, names: Sequence[HostName], progress: Progress) -> None:
        """Remove these machines and all that belongs to them; with the last one the mesh's network too.

        Raises:
            Failed: no root, or a machine's processes did not end.
        """
        if not self._state.exists() and not self._is_ours():
            return
        self._require()
        with self._lock() as network:
            gone = set(names) & set(self.machines())
            if gone & {edge.name for edge in self._mesh.edges[:1]}:
                publish.unpublish(self._publish)
            for name in gone:
                self._forget(name)
                cgroup.kill(self._payload(name))
            for name in sorted(gone):
                self._destroy(name, network, progress)
            if not self.machines():
                self._remove_mesh(network)

    def publish(self, edge: Host, ports: Mapping[int, int], admin_port: int) -> None:
        """Let 127.0.0.1 of this box reach the edge, until it is destroyed; survives the edge's reboots.

        The machine may come later: a taken port is better known before.

        Raises:
            Failed: no root, a tool is missing, a name or a port is taken.
        """
        self._require()
        group = self._mesh_group / "@publish"  # A session or a service that ends must not take them with it.
        enter = ["sh", "-c", _JOIN, "sh", str(group), "nsenter"]
        hub, host = (f"--net={netns.path(name)}" for name in (self._hub, self._namespace(edge.name)))
        with self._lock() as network:
            publish.require_free(self._publish, (*ports, admin_port))
            self._make_network([edge], network)
            publish.unpublish(self._publish, keep=(*ports, admin_port))
            group.mkdir(exist_ok=True)
            for port, target in ports.items():
                proxy = publish.socket_proxy(f"{edge.address}:{target}")
                publish.publish(self._publish, port, [*enter, hub, *proxy])
            admin = publish.socket_proxy("127.0.0.1:8001")
            publish.publish(self._publish, admin_port, [*enter, host, *admin])

    # Where things are.

    @property
    def _mesh_group(self) -> Path:
        return (cgroup.hierarchy() or Path("/sys/fs/cgroup")) / f"envoymesh-{self._mesh.identifier}"

    def _group(self, name: HostName) -> Path:
        return self._mesh_group / name

    def _payload(self, name: HostName) -> Path:
        """Return the group of the guest alone: when that is killed, nspawn ends and cleans up after itself."""
        return self._group(name) / "machine" / "payload"

    def _namespace(self, name: HostName) -> str:
        return f"{self._mesh.identifier}-{name}"

    def _record(self, name: HostName) -> Path:
        """Return the file that tells that a machine's disk is whole: its line in known_hosts."""
        return self._machines / name / "known_host"

    def _login(self, host: Host) -> Login:
        return Login(
            host=host.name,
            address=str(host.address),
            known_hosts=self._known_hosts,
            port=22,
            user="root",
            key=self._key,
            jump="none",
            host_keys="strict",
            namespace=netns.path(self._hub),
        )

    # Whose things are.

    def _require(self) -> None:
        if os.geteuid() != 0:
            raise Failed(
                Problem(
                    code="machines/not-root",
                    what="the nspawn provider makes network namespaces and mounts, which takes root",
                    saw=(f"effective user id: {os.geteuid()}",),
                    now="nothing was changed",
                    hint="run the same command with sudo, or choose another `provider:` in inventory.yaml",
                )
            )
        absent = [tool for tool in TOOLS if not shutil.which(tool)]
        if absent:
            raise Failed(image.tool_missing(absent))
        if not cgroup.hierarchy():
            raise Failed(
                Problem(
                    code="machines/no-cgroup2",
                    what="the nspawn provider needs a cgroup2 hierarchy that it may write to",
                    saw=tuple(x for x in Path("/proc/self/mounts").read_text().splitlines() if "cgroup" in x),
                    now="nothing was changed",
                    hint="mount -t cgroup2 cgroup2 /sys/fs/cgroup, or run on the box itself instead of in a container",
                )
            )

    def _is_ours(self) -> bool:
        """Whether the mesh's group is this checkout's; one that nobody owns yet was left by a killed claim."""
        return self._mesh_group.exists() and cgroup.owner_of(self._mesh_group) in {"", str(self._state)}

    def _claim(self, hosts: Sequence[Host]) -> None:
        """Take the mesh's and the hosts' names, or tell whose they are."""
        if not self._mesh_group.exists() and netns.exists(self._hub):
            raise Failed(_name_taken(self._hub, "a network namespace that this mesh did not make"))
        owner = cgroup.claim(self._mesh_group, str(self._state))
        if owner != str(self._state):
            raise Failed(_name_taken(self._hub, f"the mesh whose state is in {owner}"))
        known = set(self.machines())
        taken = [n for h in hosts if h.name not in known and netns.exists(n := self._namespace(h.name))]
        if taken:
            raise Failed(*(_name_taken(name, "a network namespace that this mesh did not make") for name in taken))

    def _make_network(self, hosts: Sequence[Host], network: netns.Network) -> None:
        """Make the hub and the hosts' namespaces, and what tells that they are ours."""
        self._claim(hosts)
        published = (self._hub, *(self._namespace(edge.name) for edge in self._mesh.edges[:1]))
        if not all(netns.exists(name) for name in published):
            publish.unpublish(self._publish)  # What still listens leads into namespaces that are gone.
        network.make_hub()
        for host in hosts:
            namespace = self._namespace(host.name)
            self._group(host.name).mkdir(exist_ok=True)
            if not netns.exists(namespace):
                self._end(host.name)  # What still runs is in a namespace that nobody can name any more.
            network.make(namespace)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[netns.Network]:
        """Keep other processes from making and destroying machines of this mesh; yield its network, to work on."""
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._state / "machines.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield netns.Network(self._hub, self._mesh.machines.network, lock)
        finally:
            os.close(lock)

    # One machine.

    def _prepare(self, host: Host, base: Path, key: str, lock: int) -> None:
        """Make the machine's disk, unless it is whole."""
        record, home = self._record(host.name), self._machines / host.name
        if record.exists():
            _replace(record, f"{host.address} {record.read_text().partition(' ')[2]}", 0o644)
            return
        self._end(host.name)
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        (home / "base").symlink_to(base)
        private, public = _key_pair()
        disk = _empty_disk(home, lock)
        _put(disk / "etc/hostname", f"{host.name}\n")
        _put(disk / "etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {host.name}\n::1 localhost ip6-localhost\n")
        _put(disk / "etc/ssh/ssh_host_ed25519_key", private, mode=0o600)
        _put(disk / "etc/ssh/ssh_host_ed25519_key.pub", f"{public}\n")
        _put(disk / "root/.ssh/authorized_keys", f"{key}\n", mode=0o600, directories=0o700)
        _replace(record, f"{host.address} {public}\n", 0o644)

    def _start(self, host: Host, network: netns.Network, progress: Progress) -> None:
        """Connect the machine to the hub, and boot it unless it runs."""
        namespace, group = self._namespace(host.name), self._group(host.name)
        runs = cgroup.populated(group)
        if not runs:
            self._end(host.name)
        network.plug(namespace, host.address)
        if runs:
            return
        home = self._machines / host.name
        if not (home / "base").exists():
            raise Failed(_image_gone(host, home))
        progress(host.name, "booting")
        subprocess.run(
            [
                *("setsid", "--fork", "unshare", "--mount", "--propagation", "slave", "sh", "-c", _BOOT, "sh"),
                *(str(group), *_OPTIONS, f"--network-namespace-path={netns.path(namespace)}"),
                *(f"--machine={_machine_name(namespace)}", f"--hostname={host.name}"),
            ],
            cwd=home,
            stdin=network.lock,
            stdout=subprocess.PIPE,
            check=True,
        )

    def _end(self, name: HostName) -> None:
        """End the processes of a machine; its empty group still tells that it exists."""
        group, payload = self._group(name), self._payload(name)
        if payload.exists():
            cgroup.kill(payload)
            cgroup.emptied(group, within_s=2)
        cgroup.kill(group)
        if not cgroup.emptied(group, within_s=20):
            raise Failed(_did_not_end(name, group))
        for below in group.glob("*/"):
            cgroup.remove(below)
        for path in Path("/run/systemd/nspawn").glob(f"*/{_machine_name(self._namespace(name))}"):
            path.rmdir()  # An nspawn that was killed so early that it had no guest leaves it.

    def _await_ssh(self, hosts: Sequence[Host], progress: Progress) -> None:
        """Wait until every machine's sshd says hello; all are tried before any is given up."""
        waiting, end, problems = list(hosts), time.monotonic() + READY_WITHIN_S, []
        while waiting:
            for host in tuple(waiting):
                alive = cgroup.populated(self._group(host.name))
                if _ssh_answers(netns.path(self._hub), str(host.address)):
                    progress(host.name, "answers SSH")
                elif alive and time.monotonic() < end:
                    continue
                else:
                    problems.append(_did_not_start(host, alive, self._machines / host.name / "console.log"))
                waiting.remove(host)
            time.sleep(0.02 if waiting else 0)
        if problems:
            raise Failed(*problems)

    def _forget(self, name: HostName) -> None:
        """Make half a machine of a whole one: if nothing else comes, `create` makes it anew."""
        record = self._record(name)
        if record.exists():
            self._know({record.read_text().split()[0]: ""})
            record.unlink()

    def _destroy(self, name: HostName, network: netns.Network, progress: Progress) -> None:
        """Remove one machine; what tells that it exists goes last."""
        progress(name, "destroying")
        self._end(name)
        network.remove(self._namespace(name))
        shutil.rmtree(self._machines / name, ignore_errors=True)
        cgroup.remove(self._group(name))

    def _remove_mesh(self, network: netns.Network) -> None:
        """Remove what the machines shared, but for the key and what others wrote to known_hosts."""
        publish.unpublish(self._publish)
        if self._is_ours():
            network.remove(self._hub)
            cgroup.remove(self._mesh_group)
        with contextlib.suppress(OSError):
            self._machines.rmdir()

    def _know(self, keys: Mapping[str, str]) -> None:
        """Replace the known_hosts lines of these addresses, atomically; an empty line removes."""
        before = self._known_hosts.read_text().splitlines() if self._known_hosts.exists() else []
        others = [line for line in before if line.partition(" ")[0] not in keys]
        after = [*others, *(line.strip() for line in keys.values() if line)]
        if after != before:
            _replace(self._known_hosts, "".join(f"{line}\n" for line in after), 0o600)


def _machine_name(namespace: str) -> str:
    """Return a name for nspawn's own bookkeeping: unique on the box, and short whatever the host is called."""
    return f"envoymesh-{hashlib.sha256(namespace.encode()).hexdigest()[:12]}"


def _ssh_answers(namespace: Path, address: str) -> bool:
    """Whether an SSH server says hello at port 22."""
    try:
        with dial(address, 22, deadline=time.monotonic() + 1, namespace=namespace) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _empty_disk(home: Path, lock: int) -> Path:
    """Return the directory that holds what the machine writes.

    That is an overlay's upper, or, where the file system below `home` cannot be one (another overlay, a
    network file system), a copy of the whole root. Who works on it keeps the lock, even when orphaned.
    """
    for name in ("upper", "work", "merged"):
        (home / name).mkdir()
    (home / "upper").chmod(0o755)  # The upper's mode is the mode of the guest's `/`.
    trial = ["unshare", "--mount", "sh", "-c", _OVERLAY]
    if subprocess.run(trial, cwd=home, capture_output=True, check=False, pass_fds=(lock,)).returncode == 0:
        return home / "upper"
    subprocess.run(["cp", "-a", "--reflink=auto", "base/.", "root"], cwd=home, check=True, pass_fds=(lock,))
    return home / "root"


def _key_pair() -> tuple[str, str]:
    """Return a new Ed25519 key pair as OpenSSH writes it: the private key's file, the public key's line."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), public.decode()


def _own_key(path: Path) -> str:
    """Return the public half of the key that this checkout logs in with, made on first use."""
    public = path.with_suffix(".pub")
    if not (path.exists() and public.exists()):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        private, line = _key_pair()
        _replace(public, f"{line}\n", 0o644)
        _replace(path, private, 0o600)
    return public.read_text().strip()


def _put(path: Path, content: str, mode: int = 0o644, directories: int = 0o755) -> None:
    """Write a file of the guest, with the directories above it, whatever this process's umask is."""
    missing = [above for above in path.parents if not above.exists()]
    for directory in reversed(missing):
        directory.mkdir()
        directory.chmod(directories)
    path.write_text(content)
    path.chmod(mode)


def _replace(path: Path, content: str, mode: int) -> None:
    """Replace a file by rename; nobody sees it half written, or with another mode."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    new.chmod(mode)
    new.rename(path)


def _name_taken(name: str, by: str) -> Problem:
    return Problem(
        code="machines/name-taken",
        what=f"the name `{name}` on this box belongs to {by}",
        now="nothing was changed",
        hint=f"remove what has that name (ip netns delete {name}), or change `name:` in inventory.yaml",
    )


def _image_gone(host: Host, home: Path) -> Problem:
    return Problem(
        code="machines/image-gone",
        what="the base image that this machine was made from is no longer in the cache",
        at=host.name,
        saw=(str((home / "base").readlink()),),
        now="the machine is stopped; its own changes are kept, but are worth nothing without the image",
        hint="./mesh down && ./mesh up",
    )


def _did_not_start(host: Host, alive: bool, console: Path) -> Problem:
    text = console.read_text(errors="replace") if console.exists() else ""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return Problem(
        code="machines/no-answer",
        what=f"the machine did not answer SSH within {READY_WITHIN_S} s" if alive else "the machine stopped",
        at=f"{host.name} ({host.address})",
        saw=tuple([line.strip() for line in plain.splitlines() if line.strip()][-10:]),
        now="it was left as it is; the other machines were not touched",
        hint=WATCHES_HINT if "Too many open files" in plain else f"less {console}",
    )


def _did_not_end(name: HostName, group: Path) -> Problem:
    return Problem(
        code="machines/no-end",
        what="the machine's processes did not end although they were killed",
        at=name,
        saw=tuple(str(path) for path in group.rglob("cgroup.procs") if path.read_text()),
        now="the machine's disk and network are still there",
        hint="see which of them hang in the kernel (ps -o pid,stat,wchan,cmd), then run the same command again",
    )
