"""Network namespaces: a hub with a bridge, and hosts that are plugged into it.

Everything here may be repeated at any moment and completes what a killed run left. Links are made straight
into their namespaces: nothing appears in the box's own network, not even for a moment.
"""

import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from envoymesh.problems import Failed, Problem

_NAMESPACES = Path("/run/netns")
_ELSEWHERE = "192.0.2.1"
"""An address for documentation: outside every mesh, so the way to it is the default route."""


def path(name: str) -> Path:
    """Return the file by which a namespace is entered."""
    return _NAMESPACES / name


def exists(name: str) -> bool:
    """Whether there is a namespace of this name; a file that a killed `ip` left behind is none."""
    try:
        return path(name).stat().st_dev != _NAMESPACES.stat().st_dev
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class Network:
    """The namespaces of one mesh.

    Attributes:
        hub: name of the hub's namespace.
        subnet: the mesh's network; the hub has its first address.
        lock: the descriptor of a lock, which every `ip` inherits: one whose parent was killed keeps it to its end.
    """

    hub: str
    subnet: IPv4Network
    lock: int

    def make_hub(self) -> None:
        """Make the namespace with the bridge.

        It forwards nothing, and says so at once: a host that looks for the internet must not have to wait.
        """
        self.make(self.hub)
        if not self._ip("-n", self.hub, "link", "show", "hub", check=False):
            self._ip("-n", self.hub, "link", "add", "hub", "type", "bridge", "forward_delay", "0")
        forward = ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]
        subprocess.run(["nsenter", f"--net={path(self.hub)}", *forward], check=True, pass_fds=(self.lock,))
        self._batch(
            self.hub,
            f"link set hub address {_mac(self._gateway.ip)} up",
            f"address replace {self._gateway} dev hub",
            "route replace unreachable default",
        )

    def make(self, name: str) -> None:
        """Make a namespace with a loopback."""
        if not exists(name):
            self.remove(name)
            self._ip("netns", "add", name)
        self._ip("-n", name, "link", "set", "lo", "up")

    def plug(self, name: str, address: IPv4Address) -> None:
        """Connect a namespace to the hub, with `address` and the hub as its default route."""
        port, gateway = f"v{int(address):08x}", self._gateway.ip
        route = self._ip("-n", name, "route", "get", _ELSEWHERE, check=False)
        plugged = self._ip("-n", self.hub, "link", "show", port, check=False)
        if plugged and f"via {gateway} dev eth0 src {address} " in route:
            return
        self._ip("-n", name, "link", "delete", "eth0", check=False)
        self._ip("-n", self.hub, "link", "delete", port, check=False)
        link = ("link", "add", "eth0", "address", _mac(address), "netns", name, "type", "veth")
        self._ip(*link, "peer", "name", port, "netns", self.hub)
        self._batch(self.hub, f"link set {port} master hub up")
        self._batch(
            name,
            f"address add {address}/{self.subnet.prefixlen} dev eth0",
            "link set eth0 up",
            f"route add default via {gateway}",
        )

    def remove(self, name: str) -> None:
        """Remove a namespace and the links in it, if it exists."""
        if path(name).exists():
            self._ip("netns", "delete", name)

    @property
    def _gateway(self) -> IPv4Interface:
        """The hub's address, with the network's prefix."""
        return IPv4Interface((int(self.subnet.network_address) + 1, self.subnet.prefixlen))

    def _batch(self, namespace: str, *commands: str) -> None:
        """Run several `ip` commands in one namespace by one process."""
        self._ip("-n", namespace, "-batch", "-", stdin="\n".join(commands))

    def _ip(self, *arguments: str, check: bool = True, stdin: str = "") -> str:
        """Run `ip`; return what it printed (nothing when it failed and `check` is off)."""
        done = subprocess.run(
            ["ip", *arguments], input=stdin, capture_output=True, text=True, check=False, pass_fds=(self.lock,)
        )
        if check and done.returncode != 0:
            raise Failed(
                Problem(
                    code="machines/network",
                    what="a network namespace could not be set up",
                    saw=(f"ip {' '.join(arguments)}", *done.stderr.splitlines()),
                    now="nothing in this box's own network was changed",
                    hint="the kernel must allow network namespaces, bridges and veth; then run the same command again",
                )
            )
        return done.stdout if done.returncode == 0 else ""


def _mac(address: IPv4Address) -> str:
    """Return the hardware address that goes with a mesh address.

    A machine that is made anew has the one that its neighbours remember; else they would not find it for
    half a minute.
    """
    return ":".join(f"{byte:02x}" for byte in (0x02, 0, *address.packed))
