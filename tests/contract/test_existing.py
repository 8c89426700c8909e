"""Hosts that exist already: what the inventory says is how to log in."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from envoymesh.machines.existing import Existing
from envoymesh.machines.nspawn import Nspawn
from envoymesh.model.mesh import Host, SshSettings
from tests.contract.maker import problems_of
from tests.labs import free_ports, lab, quiet, run, small_mesh


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Nspawn]:
    with lab(small_mesh(0), tmp_path / "made") as maker:
        yield maker


@pytest.fixture
def host(made: Nspawn) -> Host:
    """Return the machine as somebody else would enter it: its sshd at a port of 127.0.0.1, and a key."""
    port, admin = free_ports(2)
    mesh = made._mesh
    made.publish(mesh.edges[0], {port: 22}, admin)
    login = made.logins(mesh.edges)[mesh.edges[0].name]
    return replace(mesh.edges[0], ssh=SshSettings(address="127.0.0.1", port=port, user="root", key=str(login.key)))


def test_it_can_be_logged_in_to(host: Host, tmp_path: Path) -> None:
    provider = Existing(tmp_path / "state")
    assert run(provider, host, "hostname; id -u").split() == [host.name, "0"]


def test_a_first_key_is_kept_and_another_one_refused(host: Host, made: Nspawn, tmp_path: Path) -> None:
    provider = Existing(tmp_path / "state")
    run(provider, host, "true")
    assert (tmp_path / "state" / "known_hosts").read_text().startswith(f"[127.0.0.1]:{host.ssh.port} ")
    made.destroy([host.name], quiet)
    made.create(made._mesh.edges, quiet)
    made.publish(made._mesh.edges[0], {host.ssh.port or 0: 22}, free_ports(1)[0])
    (problem,) = problems_of(lambda: run(provider, host, "true"))
    assert problem.code.startswith("ssh/host-key")


def test_a_key_that_must_be_known_before_is_not_accepted(host: Host, tmp_path: Path) -> None:
    provider = Existing(tmp_path / "state")
    strict = replace(host, ssh=replace(host.ssh, host_keys="strict"))
    (problem,) = problems_of(lambda: run(provider, strict, "true"))
    assert problem.code.startswith("ssh/host-key")
