"""What OpenSSH is configured to do counts where a login leaves something open, and only there."""

import os
import shlex
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from envoymesh.transport import openssh
from envoymesh.transport.login import Login
from envoymesh.transport.openssh import jump_target, resolve, ssh_command
from envoymesh.transport.ssh import connect
from tests.transport.sshd import Sshd, new_key, problem_of

ANOTHER_KEY = """\
ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJeZTsFGNQtjDmGNXAqBMtNWcLOvNaGzlPdsPyNGPjpS
"""


def open_login(server: Sshd, known_hosts: Path, **more: object) -> Login:
    """Return a login that leaves to the configuration whether there is a jump host."""
    return server.login(known_hosts, jump=None, **more)


def by_openssh(login: Login) -> "subprocess.CompletedProcess[str]":
    """Log in by the command line that was made for it."""
    command = [*ssh_command(login), "echo hello"]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)


# The command line


def test_command_line_leaves_open_what_the_login_does() -> None:
    command = ssh_command(Login("web", "web", Path("/mesh/known_hosts"), host_keys="strict"))
    assert "StrictHostKeyChecking=yes" in command
    assert command[-1] == "web"
    assert not {"-i", "-p", "-J", "-F"} & set(command)


def test_command_line_through_jump_hosts() -> None:
    login = Login("web", "192.0.2.7", Path("/mesh/known_hosts"), 22, "deploy", Path("/mesh/key"), "ops@a:2200,b")
    (proxy,) = (option for option in ssh_command(login) if option.startswith("ProxyCommand="))
    outer = shlex.split(proxy.removeprefix("ProxyCommand="))
    assert outer[-3:] == ["-W", "[%h]:%p", "b"]
    (inner,) = (option for option in outer if option.startswith("ProxyCommand="))
    assert shlex.split(inner.removeprefix("ProxyCommand="))[-3:] == ["-W", "[%%h]:%%p", "ops@a"]
    assert "/mesh/key" in outer


def test_a_login_that_leaves_nothing_open_takes_nothing_from_the_configuration(
    shared_server: Sshd, known_hosts: Path, home: Path
) -> None:
    (home / ".ssh/config").write_text("Host *\n  ProxyJump nowhere.invalid\n  RemoteCommand false\n")
    login = shared_server.login(known_hosts)
    connect(login).close()
    assert by_openssh(login).stdout == "hello\n"


# How long a login may take


@pytest.mark.parametrize(("configured", "seconds"), [("ConnectTimeout 1m", 60), ("ConnectTimeout 0", 10), ("", 10)])
def test_a_login_takes_as_long_as_the_configuration_lets_it(
    known_hosts: Path, home: Path, configured: str, seconds: float
) -> None:
    (home / ".ssh/config").write_text(f"Host *\n  {configured}\n")
    login = Login("shop", "shop", known_hosts)
    assert resolve(login).timeout_s == seconds
    assert resolve(replace(login, timeout_s=3)).timeout_s == 3


# Host keys


def test_a_host_is_known_by_its_alias(server: Sshd, known_hosts: Path, home: Path) -> None:
    (home / ".ssh/config").write_text("Host *\n  HostKeyAlias shop\n")
    login = open_login(server, known_hosts)
    connect(login).close()
    assert known_hosts.read_text().startswith("shop ssh-ed25519 ")
    assert by_openssh(login).stdout == "hello\n"
    known_hosts.write_text(f"shop {ANOTHER_KEY}")
    assert problem_of(login).code == "ssh/host-key-changed"
    assert by_openssh(login).returncode == 255


@pytest.mark.parametrize("option", ["UserKnownHostsFile", "GlobalKnownHostsFile"])
@pytest.mark.parametrize("name", ["known", "known by space"])
def test_files_that_are_configured_are_read(
    shared_server: Sshd, known_hosts: Path, home: Path, option: str, name: str
) -> None:
    (home / name).write_text(f"[127.0.0.1]:{shared_server.port} {ANOTHER_KEY}")
    (home / ".ssh/config").write_text(f'Host *\n  {option} /nonexistent "{home / name}"\n')
    login = open_login(shared_server, known_hosts)
    problem = problem_of(login)
    assert problem.code == "ssh/host-key-changed"
    assert f"{home / name}:1" in problem.saw[0]
    assert by_openssh(login).returncode == 255
    assert not known_hosts.exists()


def test_the_usual_files_are_those_of_this_home(shared_server: Sshd, known_hosts: Path, home: Path) -> None:
    (home / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{shared_server.port} {ANOTHER_KEY}")
    assert problem_of(open_login(shared_server, known_hosts)).code == "ssh/host-key-changed"


def test_no_file_is_no_file(shared_server: Sshd, known_hosts: Path, home: Path) -> None:
    (home / ".ssh/config").write_text("Host *\n  UserKnownHostsFile none\n  GlobalKnownHostsFile none\n")
    assert resolve(open_login(shared_server, known_hosts)).known_hosts == (known_hosts,)


def test_a_configuration_that_is_strict_is_followed(shared_server: Sshd, known_hosts: Path, home: Path) -> None:
    (home / ".ssh/config").write_text("Host *\n  StrictHostKeyChecking yes\n")
    login = open_login(shared_server, known_hosts)
    problem = problem_of(login)
    assert problem.code == "ssh/host-key-unknown"
    assert "the login is strict" in problem.what
    assert by_openssh(login).returncode == 255
    assert not known_hosts.exists()


def test_a_configuration_that_is_careless_is_not_followed(server: Sshd, known_hosts: Path, home: Path) -> None:
    (home / ".ssh/config").write_text("Host *\n  StrictHostKeyChecking no\n")
    login = open_login(server, known_hosts)
    connect(login).close()
    server.new_host_key()
    assert problem_of(login).code == "ssh/host-key-changed"
    assert by_openssh(login).returncode == 255


def test_a_host_with_a_known_authority_is_not_taken_for_new(shared_server: Sshd, known_hosts: Path, home: Path) -> None:
    (home / ".ssh/known_hosts").write_text(f"@cert-authority * {ANOTHER_KEY}")
    login = shared_server.login(known_hosts)
    problem = problem_of(login)
    assert problem.code == "ssh/host-key-unknown"
    assert "it shows no certificate of its known authority" in problem.what
    assert any(f"{home}/.ssh/known_hosts:1" in saw for saw in problem.saw)
    assert not known_hosts.exists()
    known_hosts.parent.mkdir()
    subprocess.run(problem.hint.splitlines()[-1].partition("same key there: ")[2], shell=True, check=True)
    connect(login).close()


# What takes too long


def test_a_configuration_without_an_end(
    shared_server: Sshd, known_hosts: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openssh, "CONFIG_WITHIN_S", 0.5)
    fifo = home / "fifo"
    os.mkfifo(fifo)
    (home / ".ssh/config").write_text(f'Match exec "read line < {fifo}"\n')
    held = os.open(fifo, os.O_RDWR)
    try:
        problem = problem_of(open_login(shared_server, known_hosts))
    finally:
        os.write(held, b"go on\n")
        os.close(held)
    assert problem.code == "ssh/config"
    assert "0.5 s" in problem.what
    assert "ssh" in problem.hint


def test_an_agent_that_never_answers_is_passed_over(
    shared_server: Sshd, known_hosts: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_key(home / ".ssh/id_ed25519", passphrase="a secret")
    login = shared_server.login(known_hosts, key=None)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(home / "agent"))
        silent.listen()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(home / "agent"))
        problem = problem_of(login, timeout_s=4)
        assert problem.code == "ssh/auth"
        assert [line for line in problem.saw if line.startswith("agent: no answer within ")]
        (home / ".ssh/id_rsa").write_bytes(shared_server.key.read_bytes())
        (home / ".ssh/id_rsa").chmod(0o600)
        connect(replace(login, timeout_s=4)).close()


# Jump hosts


@pytest.mark.parametrize(
    ("jump", "parts"),
    [
        ("Web", (None, "Web", None)),
        ("Ops@Web:2200", ("Ops", "Web", 2200)),
        ("a,ssh://ops@Web:2200", ("ops", "Web", 2200)),
        ("ops@[fe80::1]:2200", ("ops", "fe80::1", 2200)),
        ("fe80::1", (None, "fe80::1", None)),
    ],
)
def test_a_jump_host_is_named_as_it_is_written(
    shared_server: Sshd, known_hosts: Path, jump: str, parts: tuple[str | None, str, int | None]
) -> None:
    target = resolve(shared_server.login(known_hosts))
    login = jump_target(replace(target, jump=jump)).login
    assert (login.user, login.address, login.port) == parts
