"""What is read out of what Vagrant and libvirt say, and what is refused before either is asked for anything."""

import re
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from envoymesh.machines import vagrant_box
from envoymesh.machines.libvirt import network_in
from envoymesh.machines.vagrant import Vagrant, errors_in
from envoymesh.model.mesh import Host, HostName
from envoymesh.problems import Failed, Problem
from tests.layers import LIBVIRT, ROOT
from tests.rendering import mesh_of

PARALLEL = """\
Bringing machine 'front-envoy' up with 'libvirt' provider...
==> front-envoy: Creating domain with the following settings...
    front-envoy: SSH address: 192.168.121.2:22
An error occurred. The error will be shown after all tasks complete.
An error occurred while executing multiple actions in parallel.
Any errors that occurred are shown below.

An error occurred while executing the action on the 'front-envoy'
machine. Please handle this error then try again:

Name `x_front-envoy` of domain about to create is already taken. Please try to run
`vagrant up` command again.

An error occurred while executing the action on the 'service1-1'
machine. Please handle this error then try again:

uninitialized constant VagrantPlugins::ProviderLibvirt::Action::ProvisionerCleanup (autoload)
Call to virDomainCreateWithFlags failed: no space
"""

CRASHED = """\
==> s1: Starting domain.
/usr/lib/ruby/vendor_ruby/fog/libvirt/vm_action.rb:7:in `create': Call to X failed: no PTY (Libvirt::Error)
\tfrom /usr/lib/ruby/vendor_ruby/fog/libvirt/vm_action.rb:7:in `vm_action'
"""


def test_errors_are_told_per_machine_without_ruby() -> None:
    assert errors_in(PARALLEL.splitlines()) == {
        "front-envoy": [
            "Name `x_front-envoy` of domain about to create is already taken. Please try to run",
            "`vagrant up` command again.",
        ],
        "service1-1": ["Call to virDomainCreateWithFlags failed: no space"],
    }


def test_a_crash_is_told_by_its_first_line() -> None:
    assert errors_in(CRASHED.splitlines()) == {"": ["Call to X failed: no PTY"]}


def test_when_nothing_is_told_the_last_lines_are_shown() -> None:
    assert errors_in(["==> s1: Starting domain."]) == {"": ["==> s1: Starting domain."]}


# Networks


@pytest.mark.parametrize(
    ("addresses", "networks"),
    [
        ("", []),
        ("<ip address='10.77.0.1' netmask='255.255.255.0'/>", ["10.77.0.0/24"]),
        ("<ip family='ipv4' address='10.77.0.1' prefix='30'><dhcp/></ip>", ["10.77.0.0/30"]),
        ("<ip family='ipv6' address='fd00::1' prefix='64'/>", []),
        ("<ip address='10.8.0.1' prefix='24'/><ip address='10.9.0.1' prefix='24'/>", ["10.8.0.0/24", "10.9.0.0/24"]),
        ("<ip address='10.77.3.1'/>", ["10.0.0.0/8"]),
        ("<ip address='172.20.3.1'/>", ["172.20.0.0/16"]),
        ("<ip address='192.168.3.1'/>", ["192.168.3.0/24"]),
    ],
)
def test_all_addresses_of_a_network_are_read(addresses: str, networks: list[str]) -> None:
    xml = f"<network connections='1'><name>with a space</name><bridge name='virbr5'/>{addresses}</network>"
    name, found = network_in(xml)
    assert (name, list(map(str, found))) == ("with a space", networks)


# What is refused


@pytest.fixture
def maker(tmp_path: Path) -> Vagrant:
    """Return a provider that remembers two machines, `front-envoy` and `old`."""
    (tmp_path / "vagrant/logins").mkdir(parents=True)
    for name, address in (("front-envoy", "10.77.0.10"), ("old", "10.77.0.20"), (".old.new", "")):
        record = f'Host {name}\n  HostName {address}\n  User vagrant\n  IdentityFile "/a %% b"\n'
        (tmp_path / "vagrant/logins" / name).write_text(record)
    return Vagrant(mesh_of(), tmp_path, tmp_path / "inventory.yaml")


def host(name: str, address: str) -> Host:
    return replace(mesh_of().edges[0], name=HostName(name), address=IPv4Address(address))


def refused(maker: Vagrant, *hosts: Host) -> list[Problem]:
    with pytest.raises(Failed) as failed:
        maker._refuse(hosts)
    return list(failed.value.problems)


def test_machines_are_remembered_with_how_to_log_in(maker: Vagrant) -> None:
    assert maker.machines() == ["front-envoy", "old"]
    login = maker.logins([host("old", "10.77.0.20")])[HostName("old")]
    assert (login.key, login.jump) == (Path("/a % b"), "none")


def test_hosts_as_they_are_and_new_ones_are_taken(maker: Vagrant) -> None:
    maker._refuse([host("front-envoy", "10.77.0.10"), host("new", "10.77.0.30"), host("fab-1", "10.77.0.31")])


@pytest.mark.parametrize("name", ["db", "cafe", "a1"])
def test_a_name_that_could_begin_an_id_is_refused(maker: Vagrant, name: str) -> None:
    (problem,) = refused(maker, host(name, "10.77.0.30"))
    assert (problem.code, problem.now) == ("machines/bad-name", "no machine was made, changed or removed")
    assert f"`{name}-1`" in problem.hint


def test_a_machine_with_another_address_is_refused(maker: Vagrant) -> None:
    (problem,) = refused(maker, host("old", "10.77.0.30"))
    assert problem.code == "machines/address-changed"
    assert "10.77.0.20" in problem.what


def test_a_host_with_the_address_of_a_machine_of_another_name_is_refused(maker: Vagrant) -> None:
    (problem,) = refused(maker, host("front-envoy", "10.77.0.10"), host("renamed", "10.77.0.20"))
    assert (problem.code, problem.at) == ("machines/address-taken", "renamed (10.77.0.20)")
    assert "name it `old`" in problem.hint


# The box


def test_the_box_to_build_is_named_as_it_will_be(maker: Vagrant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "ubuntu", "VERSION_CODENAME": "noble"})
    said = ["The box 'x' could not be found or", "could not be accessed in the remote catalog."]
    (problem,) = maker._failed(["up", "front-envoy"], said)
    assert (problem.code, problem.at) == ("machines/no-box", "front-envoy")
    assert "{box: envoymesh/noble}" in problem.hint


def test_a_network_that_virtualbox_does_not_allow_is_told_with_how_to_allow_it(maker: Vagrant) -> None:
    said = [
        "The IP address configured for the host-only network is not within the",
        "allowed ranges. Please update the address used to be within the allowed",
        "ranges and run the command again.",
    ]
    (problem,) = maker._failed(["up", "front-envoy"], said)
    assert problem.code == "machines/network-not-allowed"
    assert "echo '* 10.77.0.0/24' | sudo tee -a /etc/vbox/networks.conf" in problem.hint


def test_a_program_to_boot_with_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda tool: None if tool == "mcopy" else f"/usr/bin/{tool}")
    monkeypatch.setattr(vagrant_box, "MBR", (Path("/nonexistent"),))
    with pytest.raises(Failed) as failed:
        vagrant_box._require()
    (problem,) = failed.value.problems
    assert problem.what == "this box has no mcopy, mbr.bin"
    assert problem.hint == "apt-get install mtools syslinux"


def test_what_virtual_machines_need_is_installed_where_all_tests_must_run() -> None:
    rows = re.findall(r"^(?:always|hosts|tests) +(\S+)", (ROOT / "mesh").read_text(), re.MULTILINE)
    of_the_same_packages = {"tar", "setpriv", "ssh-keyscan"}  # Debian's essential ones, and openssh-client
    assert set(LIBVIRT) - of_the_same_packages <= set(rows)
