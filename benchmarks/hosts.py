"""The hosts that all contestants work on: systemd-nspawn machines of the benchmark's own, gone in the end."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

from benchmarks import relay
from benchmarks.measure import NOTHING_WRITTEN, Command, run
from envoymesh.events import Event, Notify
from envoymesh.machines import netns
from envoymesh.machines.nspawn import Nspawn
from envoymesh.model.inventory import parse
from envoymesh.problems import Failed, Problem, counted

T = TypeVar("T")

ROOT = Path(__file__).parent.parent
NETWORK = "10.98.0.0/24"
FIRST = IPv4Address("10.98.0.10")
FAR = "10.98.1.2"
"""Where the tool is when it is far from the hosts: outside their network, behind the relay."""

SETTLED = "systemctl is-system-running --wait > /dev/null || :"


def inventory(count: int, ssh: str = "") -> str:
    """Return an inventory of one edge and service hosts, `count` in all; machines, unless `ssh` says how to log in."""
    services = (f"service{i % 2 + 1}" for i in range(count - 1))
    lines = [
        "name: bench",
        f"provider: {'existing' if ssh else 'nspawn'}",
        *([f"ssh: {ssh}"] if ssh else []),
        f"machines: {{network: {NETWORK}}}",
        "services: {service1: {path: /service/1}, service2: {path: /service/2}}",
        "hosts:",
        f"  front-envoy: {{role: edge, address: {FIRST}}}",
        *(f"  {s}-{i}: {{service: {s}, address: {FIRST + i}}}" for i, s in enumerate(services, 1)),
    ]
    return "\n".join(lines) + "\n"


class Hosts:
    """The hosts of one case, in a folder of their own.

    Attributes:
        folder: where their inventory is and what contestants may put files into.
        addresses: by name.
        key: what root logs in with.
        known_hosts: the keys of the hosts.
        sockets: where contestants may keep sockets; a short path, as a socket's must be.
        near: the network namespace in which the hosts can be reached.
    """

    def __init__(self, folder: Path, sockets: Path, count: int, notify: Notify) -> None:
        state = folder / ".envoymesh"
        mesh = parse(inventory(count), "inventory.yaml", seed=str(folder))
        self.folder, self.sockets = folder, sockets
        self.addresses = {str(host.name): str(host.address) for host in mesh.hosts.values()}
        self.key, self.known_hosts = state / "ssh" / "id_ed25519", state / "known_hosts"
        self.near = mesh.identifier
        self._hosts = list(mesh.hosts.values())
        self._maker = Nspawn(mesh, state)
        self._notify = notify

    @property
    def inventory(self) -> Path:
        """The inventory with which envoymesh reaches them."""
        return self.folder / "inventory.yaml"

    @property
    def logins(self) -> Path:
        """How to log in to them, as the floor's program reads it."""
        return self.folder / "logins.json"

    def floor(self, command: str, *words: str) -> Command:
        """Return the floor's program with a command for every host, in the hosts' network."""
        argv = [sys.executable, "-m", "benchmarks.floor", str(self.logins), command, *words]
        return Command("floor", entering(self.near, argv), ROOT)

    def make(self) -> None:
        """Make the hosts anew, as they come from their image; return when they have come to rest."""
        self.destroy()
        self._notify(Event("", f"making {counted(len(self._hosts), 'host')}"))
        for some in in_tens(self._hosts):
            self._maker.create(some, _quiet)
        self._write()
        run(self.floor(SETTLED))

    def destroy(self) -> None:
        """Remove the hosts and all that belongs to them."""
        self._maker.destroy(self._maker.machines(), _quiet)

    def _write(self) -> None:
        ssh = f"{{user: root, port: 22, key: {json.dumps(str(self.key))}, jump: none, host_keys: strict}}"
        self.inventory.write_text(inventory(len(self._hosts), ssh))
        login = {"key": str(self.key), "known_hosts": str(self.known_hosts)}
        self.logins.write_text(json.dumps([{"address": a, **login} for a in self.addresses.values()]))


def in_tens(things: Sequence[T]) -> list[Sequence[T]]:
    """Return parts of at most ten: what all do at once takes each too long on a few processors."""
    return [things[i : i + 10] for i in range(0, len(things), 10)]


def missing() -> str:
    """Return why hosts cannot be made on this box, as a short phrase, or an empty string."""
    nothing = parse(inventory(2), "inventory.yaml", seed="")
    return Nspawn(nothing, ROOT / ".envoymesh" / "bench").missing()


@contextmanager
def hosts(folder: Path, count: int, notify: Notify) -> Iterator[Hosts]:
    """Give hosts, which are gone afterwards with their folder; what a killed run left of them goes before."""
    folder.mkdir(parents=True, exist_ok=True)
    with _room_for(count), tempfile.TemporaryDirectory(prefix="bench-") as sockets:
        made = Hosts(folder, Path(sockets), count, notify)
        try:
            made.make()
            yield made
        finally:
            notify(Event("", "removing the hosts"))
            made.destroy()
            shutil.rmtree(folder, ignore_errors=True)


WATCHES = Path("/proc/sys/fs/inotify/max_user_instances")
WATCHES_OF_A_HOST = 16
"""How many inotify instances a host's root, and its Envoy's user, may have: systemd and Envoy have several each."""


@contextmanager
def _room_for(count: int) -> Iterator[None]:
    """Let the hosts have what the kernel gives to one user of the box: theirs have the same numbers on all of them."""
    before = WATCHES.read_text()
    WATCHES.write_text(str(max(int(before), 128 + WATCHES_OF_A_HOST * count)))
    try:
        yield
    finally:
        WATCHES.write_text(before)


@contextmanager
def far_from(made: Hosts, delay_s: float) -> Iterator[str]:
    """Give a network namespace from which every packet to the hosts takes `delay_s`, and as long back."""
    name = f"{made.near}-far"
    _forget(name)
    _ip("netns", "add", name)
    try:
        with _relay(name, made.near, delay_s):
            link = relay.INTERFACE
            for place in (name, made.near):
                _ip("-n", place, "link", "set", link, "up")
            _ip("-n", name, "address", "add", f"{FAR}/32", "dev", link)
            _ip("-n", name, "route", "add", "default", "dev", link)
            _ip("-n", made.near, "route", "add", FAR, "dev", link)
            yield name
    finally:
        _forget(name)


@contextmanager
def _relay(one: str, other: str, delay_s: float) -> Iterator[None]:
    """Run the relay between two namespaces; both ends are opened in theirs before it starts."""
    program = [sys.executable, "-m", "benchmarks.relay", "3", "4", str(delay_s)]
    open_other = ["sh", "-c", 'exec 4<> /dev/net/tun && exec "$@"', "sh", *program]
    open_one = ["sh", "-c", 'exec 3<> /dev/net/tun && exec "$@"', "sh", *entering(other, open_other)]
    argv = ["setpriv", "--pdeathsig", "KILL", *entering(one, open_one)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise Failed(Problem("bench/relay", "the relay did not start", now=NOTHING_WRITTEN))
            yield
        finally:
            process.kill()


def entering(namespace: str, argv: Sequence[str]) -> list[str]:
    """Return a command line that runs another in a network namespace."""
    return ["nsenter", f"--net={netns.path(namespace)}", *argv]


def _forget(namespace: str) -> None:
    """Remove a network namespace if it is there."""
    if netns.path(namespace).exists():
        _ip("netns", "delete", namespace)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _quiet(host: str, text: str) -> None:
    """Take progress and show nothing."""
