"""What this tool asks libvirt itself, by `virsh`: Vagrant knows too little of networks that are not its own."""

import subprocess
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Interface, IPv4Network
from xml.etree import ElementTree

from envoymesh.problems import Failed, Problem


def networks() -> Mapping[str, Sequence[IPv4Network]]:
    """Return the IPv4 addresses of libvirt's networks, running or not, by their names.

    Raises:
        Failed: libvirt does not answer.
    """
    return dict(network_in(_virsh("net-dumpxml", uuid)) for uuid in _virsh("net-list", "--all", "--uuid").split())


def network_in(xml: str) -> tuple[str, list[IPv4Network]]:
    """Return name and IPv4 addresses of the network that libvirt describes so."""
    network = ElementTree.fromstring(xml)  # noqa: S314 - libvirt wrote it
    addresses = [_addresses(ip) for ip in network.findall("ip") if ip.get("family", "ipv4") == "ipv4"]
    return network.findtext("name", ""), addresses


def _addresses(ip: ElementTree.Element) -> IPv4Network:
    address = ip.attrib["address"]
    mask = ip.get("netmask") or ip.get("prefix") or _class_of(int(address.partition(".")[0]))
    return IPv4Interface(f"{address}/{mask}").network


def _class_of(first: int) -> int:
    """Return the prefix that libvirt takes where none is given, by the first number of an address."""
    return 8 if first < 128 else 16 if first < 192 else 24


def machines() -> Sequence[str]:
    """Return the names of libvirt's machines, running or not.

    Raises:
        Failed: libvirt does not answer.
    """
    return _virsh("list", "--all", "--name").split()


def remove_network(name: str) -> None:
    """Remove a network, running or not, if there is one of this name.

    Raises:
        Failed: libvirt does not answer, or could not.
    """
    if name in _virsh("net-list", "--all", "--name").splitlines():
        if name in _virsh("net-list", "--name").splitlines():
            _virsh("net-destroy", name)
        _virsh("net-undefine", name)


def _virsh(*words: str) -> str:
    command = ["virsh", "--connect", "qemu:///system", *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(
            Problem(
                code="machines/libvirt",
                what=f"libvirt did not do `{words[0]}`",
                at=" ".join(command),
                saw=tuple(done.stderr.splitlines()[-10:]),
                now="no network was made or removed",
                hint="systemctl status libvirtd    and see whether this user is in the group libvirt: id",
            )
        )
    return done.stdout
