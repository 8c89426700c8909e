"""Network namespaces: a hub with a bridge, and hosts that are plugged into it.

Everything here may be repeated at any moment and completes what a killed run left. Links are made straight
into their namespaces: nothing appears in the box's own network, not even for a moment.
"""

import subprocess
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


def make(name: str) -> None:
    """Make a namespace with a loopback."""
    if not exists(name):
        remove(name)
        _ip("netns", "add", name)
    _ip("-n", name, "link", "set", "lo", "up")


def make_hub(name: str, network: IPv4Network) -> None:
    """Make the namespace with the bridge, at the network's first address.

    It forwards nothing, and says so at once: a host that looks for the internet must not have to wait.
    """
    make(name)
    if _ip("-n", name, "link", "show", "hub", check=False) == "":
        _ip("-n", name, "link", "add", "hub", "type", "bridge", "forward_delay", "0")
    subprocess.run(["nsenter", f"--net={path(name)}", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"], check=True)
    _batch(
        name,
        f"link set hub address {_mac(_first(network).ip)} up",
        f"address replace {_first(network)} dev hub",
        "route replace unreachable default",
    )


def plug(name: str, hub: str, address: IPv4Address, network: IPv4Network) -> None:
    """Connect a host's namespace to the hub, with `address` and the hub as its default route."""
    gateway, port = _first(network).ip, f"v{int(address):08x}"
    route = _ip("-n", name, "route", "get", _ELSEWHERE, check=False)
    if f"via {gateway} dev eth0 src {address} " in route and _ip("-n", hub, "link", "show", port, check=False):
        return
    _ip("-n", name, "link", "delete", "eth0", check=False)
    _ip("-n", hub, "link", "delete", port, check=False)
    link = ("link", "add", "eth0", "address", _mac(address), "netns", name, "type", "veth")
    _ip(*link, "peer", "name", port, "netns", hub)
    _batch(hub, f"link set {port} master hub up")
    _batch(
        name,
        f"address add {address}/{network.prefixlen} dev eth0",
        "link set eth0 up",
        f"route add default via {gateway}",
    )


def remove(name: str) -> None:
    """Remove a namespace and the links in it, if it exists."""
    if path(name).exists():
        _ip("netns", "delete", name)


def _first(network: IPv4Network) -> IPv4Interface:
    """Return the hub's address, with the network's prefix."""
    return IPv4Interface((int(network.network_address) + 1, network.prefixlen))


def _mac(address: IPv4Address) -> str:
    """Return the hardware address that goes with a mesh address.

    A machine that is made anew has the one that its neighbours remember; else they would not find it for
    half a minute.
    """
    return ":".join(f"{byte:02x}" for byte in (0x02, 0, *address.packed))


def _batch(namespace: str, *commands: str) -> None:
    """Run several `ip` commands in one namespace by one process."""
    _ip("-n", namespace, "-batch", "-", stdin="\n".join(commands))


def _ip(*arguments: str, check: bool = True, stdin: str = "") -> str:
    """Run `ip`; return what it printed (nothing when it failed and `check` is off)."""
    done = subprocess.run(["ip", *arguments], input=stdin, capture_output=True, text=True, check=False)
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
