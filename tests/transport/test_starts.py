"""What a connection starts with: the algorithms that are offered, and how many are started at once."""

import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import paramiko
import pytest

from envoymesh.model.mesh import HostName
from envoymesh.problems import Problem
from envoymesh.run.fleet import Fleet
from envoymesh.transport.login import Login
from envoymesh.transport.ssh import connect
from envoymesh.transport.starts import AT_ONCE
from tests.transport.sshd import Sshd, problem_of, running


def offer(login: Callable[[int], Login]) -> list[list[str]]:
    """Return the lists of a client's first message, KEXINIT: key exchanges, host keys, ciphers, MACs, compressions."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = threading.Thread(target=problem_of, args=[login(listening.getsockname()[1]), 3])
        client.start()
        connection, _ = listening.accept()
        with connection, connection.makefile("rb") as said:
            connection.sendall(b"SSH-2.0-Listening\r\n")
            said.readline()
            size, padding = struct.unpack(">IB", said.read(5))
            message = paramiko.Message(said.read(size - 1)[: -padding or None])
    # What comes of it afterwards is another test's; only the first connection is taken.
    client.join()
    message.get_bytes(1 + 16)
    return [message.get_list() for _ in range(8)]


def test_only_good_algorithms_are_offered(shared_server: Sshd, known_hosts: Path) -> None:
    exchanges, host_keys, *ciphers_and_macs, up, down = offer(lambda port: shared_server.login(known_hosts, port=port))
    assert [name for name in exchanges if "ext-info" not in name and "strict" not in name] == [
        "mlkem768x25519-sha256",
        "curve25519-sha256@libssh.org",
        *("ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521"),
    ]
    assert "kex-strict-c-v00@openssh.com" in exchanges, "without it, messages could be cut off unseen (Terrapin)"
    assert host_keys == [
        "ssh-ed25519",
        *("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
        *("rsa-sha2-512", "rsa-sha2-256"),
    ]
    ciphers = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr"]
    sha256, sha512 = (
        ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-256"],
        ["hmac-sha2-512-etm@openssh.com", "hmac-sha2-512"],
    )
    assert ciphers_and_macs == [ciphers, ciphers, sha256 + sha512, sha256 + sha512]
    assert up == down == ["none"]


@pytest.mark.parametrize(
    "only",
    [
        *("Ciphers aes128-gcm@openssh.com", "Ciphers aes256-ctr", "MACs hmac-sha2-512-etm@openssh.com"),
        *("KexAlgorithms curve25519-sha256@libssh.org", "KexAlgorithms ecdh-sha2-nistp521"),
    ],
)
def test_what_is_offered_works(known_hosts: Path, only: str) -> None:
    ciphers = [] if only.startswith("Ciphers") else ["Ciphers aes128-ctr"]  # GCM has no MAC beside it
    with running(only, *ciphers) as server, connect(server.login(known_hosts)) as session:
        assert session.exec("cat", stdin=[b"x" * 100_000], timeout_s=20).stdout == b"x" * 100_000


@pytest.mark.parametrize(
    "only", ["KexAlgorithms diffie-hellman-group14-sha256", "Ciphers aes128-cbc", "MACs hmac-sha1"]
)
def test_a_host_with_nothing_but_what_is_bad_is_told(known_hosts: Path, only: str) -> None:
    ciphers = [] if only.startswith("Ciphers") else ["Ciphers aes128-ctr"]
    with running(only, *ciphers) as server:
        problem = problem_of(server.login(known_hosts))
    assert problem.code == "ssh/unreachable"
    assert "no algorithm in common" in problem.what


def test_thirty_hosts_behind_one_sshd_all_connect(known_hosts: Path) -> None:
    """As behind an address that is many hosts' (NAT): above ten logins at a time sshd drops connections at random."""
    with running("MaxStartups 10:30:100") as server:
        logins = {HostName(f"web-{n}"): server.login(known_hosts, host=f"web-{n}") for n in range(30)}
        with Fleet(logins) as fleet:
            ran = fleet.each(logins, lambda host: fleet.session(host).exec(f"echo {host}", timeout_s=60).stdout)
        assert {host: out for host, out in ran.items() if out != f"{host}\n".encode()} == {}
        assert server.logins() == 30
        assert server.drops() <= 5, "without turns it is 6 to 12; a busy sshd sees late that a login is done"


def test_hosts_connect_although_others_fill_the_sshd(known_hosts: Path) -> None:
    """Somebody else's logins hang there, so that each of ours is dropped with a chance of a fifth."""
    with running("MaxStartups 10:20:100", "LoginGraceTime 120") as server:
        others = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(9)]
        logins = {HostName(f"web-{n}"): server.login(known_hosts, host=f"web-{n}") for n in range(40)}
        try:
            with Fleet(logins) as fleet:
                ran = fleet.each(logins, lambda host: fleet.session(host).exec("true", timeout_s=60).exit_status)
        finally:
            for other in others:
                other.close()
        assert [problem for problem in ran.values() if isinstance(problem, Problem)] == []
        assert server.drops() > 0, "nothing was dropped: what this test is for did not happen"


def test_hosts_of_their_own_do_not_wait_for_each_other(shared_server: Sshd, known_hosts: Path) -> None:
    """A host that says nothing takes its own time only, however many of them there are."""
    silent = [socket.create_server(("127.0.0.1", 0)) for _ in range(AT_ONCE * 2)]
    ports = [sock.getsockname()[1] for sock in silent]
    logins = {HostName(f"web-{port}"): shared_server.login(known_hosts, port=port, timeout_s=6) for port in ports}
    began = time.monotonic()
    with Fleet(logins) as fleet:
        ran = fleet.each(logins, fleet.session)
    for sock in silent:
        sock.close()
    assert {problem.code for problem in ran.values() if isinstance(problem, Problem)} == {"ssh/unreachable"}
    assert time.monotonic() - began < 11.5, "two turns of 6 s, one after the other"
