"""Logging in: keys, agents, ~/.ssh/config, jump hosts, namespaces, and what is said when it does not work."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from envoymesh.model.mesh import HostName
from envoymesh.problems import ExitCode, Failed, Problem
from envoymesh.run.fleet import Fleet
from envoymesh.transport import ssh
from envoymesh.transport.login import Login
from envoymesh.transport.passphrases import Passphrases
from envoymesh.transport.ssh import connect, ssh_command
from tests.transport.sshd import SSHD, Sshd, agent, free_port, namespace, new_key, problem_of, running, until
from tests.transport.terminal import terminal


def says(login: Login, script: str = "echo hello") -> bytes:
    with connect(login) as session:
        return session.exec(script, timeout_s=20).stdout


# Keys


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_kinds_of_keys(server: Sshd, known_hosts: Path, tmp_path: Path, kind: str) -> None:
    key = new_key(tmp_path / "key", kind)
    server.authorized.write_text(key.with_suffix(".pub").read_text())
    assert says(server.login(known_hosts, key=key)) == b"hello\n"


def test_wrong_key(shared_server: Sshd, known_hosts: Path, tmp_path: Path) -> None:
    key = new_key(tmp_path / "wrong")
    problem = problem_of(shared_server.login(known_hosts, key=key))
    assert (problem.code, problem.exit_code) == ("ssh/auth", ExitCode.UNREACHABLE)
    assert problem.at == f"web root@127.0.0.1:{shared_server.port}"
    assert problem.saw == (f"{key}: refused",)
    assert "`root`" in problem.what
    assert str(key) in problem.hint


def test_wrong_user(shared_server: Sshd, known_hosts: Path) -> None:
    assert problem_of(shared_server.login(known_hosts, user="nobody-here")).code == "ssh/auth"


def test_explicit_key_is_the_only_one(shared_server: Sshd, known_hosts: Path, home: Path, tmp_path: Path) -> None:
    (home / ".ssh/id_ed25519").write_bytes(shared_server.key.read_bytes())
    (home / ".ssh/id_ed25519").chmod(0o600)
    assert says(shared_server.login(known_hosts, key=None)) == b"hello\n"
    wrong = new_key(tmp_path / "wrong")
    assert problem_of(shared_server.login(known_hosts, key=wrong)).code == "ssh/auth"


def test_key_that_is_missing_or_none(shared_server: Sshd, known_hosts: Path, tmp_path: Path) -> None:
    assert problem_of(shared_server.login(known_hosts, key=tmp_path / "missing")).code == "ssh/key-unreadable"
    (tmp_path / "text").write_text("no key at all\n")
    assert problem_of(shared_server.login(known_hosts, key=tmp_path / "text")).code == "ssh/key-unreadable"


def test_no_key_at_all(shared_server: Sshd, known_hosts: Path) -> None:
    problem = problem_of(shared_server.login(known_hosts, key=None))
    assert problem.code == "ssh/auth"
    assert "no key to offer" in problem.saw[0]


def test_encrypted_key(server: Sshd, known_hosts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key(tmp_path / "locked", passphrase="a secret")
    server.authorized.write_text(key.with_suffix(".pub").read_text())
    login = server.login(known_hosts, key=key)
    problem = problem_of(login)
    assert (problem.code, problem.hint) == ("ssh/key-encrypted", f"ssh-add {key}")
    with agent(tmp_path, new_key(tmp_path / "other"), key, passphrase="a secret") as place:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        assert says(login) == b"hello\n"


@pytest.fixture
def nothing_opened_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "_PASSPHRASES", Passphrases())


@pytest.fixture
def locked(server: Sshd, tmp_path: Path, nothing_opened_yet: None) -> Path:
    """A key that the server accepts and that is encrypted."""
    key = new_key(tmp_path / "locked", passphrase='a "secret" ü')
    server.authorized.write_text(key.with_suffix(".pub").read_text())
    return key


PASSPHRASE = b'a "secret" \xc3\xbc\n'


def test_passphrase_is_asked_for_once(server: Sshd, known_hosts: Path, locked: Path) -> None:
    logins = {HostName(f"web-{n}"): server.login(known_hosts, host=f"web-{n}", key=locked) for n in range(6)}
    with terminal({f"passphrase of the key {locked}": PASSPHRASE}) as shown, Fleet(logins) as fleet:
        ran = fleet.each(logins, lambda host: fleet.session(host).exec("true", timeout_s=60).exit_status)
        assert set(ran.values()) == {0}
        assert shown.shown.strip() == f"passphrase of the key {locked}:", "asked once, and not echoed"
        assert "secret" not in f"{ssh._PASSPHRASES!r} {vars(ssh._PASSPHRASES)!r}"
    assert server.log.read_text().count("Connection from") == 6, "nobody connects before the key is open"


def test_wrong_passphrase_is_asked_for_once(server: Sshd, known_hosts: Path, locked: Path) -> None:
    logins = {HostName(f"web-{n}"): server.login(known_hosts, host=f"web-{n}", key=locked) for n in range(6)}
    with terminal({"passphrase": b"wrong\n"}) as shown, Fleet(logins) as fleet:
        ran = fleet.each(logins, fleet.session)
        assert {p.code for p in ran.values() if isinstance(p, Problem)} == {"ssh/key-encrypted"}
        assert len(ran) == len(logins)
        assert shown.shown.count("passphrase of") == 1
    assert server.logins() == 0


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_encrypted_keys_of_other_kinds(
    server: Sshd, known_hosts: Path, tmp_path: Path, nothing_opened_yet: None, kind: str
) -> None:
    key = new_key(tmp_path / "locked", kind, passphrase="a secret")
    subprocess.run(["ssh-keygen", "-q", "-p", "-m", "PEM", "-P", "a secret", "-N", "a secret", "-f", key], check=True)
    server.authorized.write_text(key.with_suffix(".pub").read_text())
    with terminal({"passphrase": b"a secret\n"}):
        assert says(server.login(known_hosts, key=key)) == b"hello\n"


def test_usual_key_that_is_encrypted_is_opened_when_no_other_lets_in(
    server: Sshd, known_hosts: Path, home: Path, locked: Path
) -> None:
    locked.rename(home / ".ssh/id_ed25519")
    new_key(home / ".ssh/id_rsa", "rsa")
    login = server.login(known_hosts, key=None)
    with terminal({"passphrase": PASSPHRASE}) as shown:
        assert says(login) == b"hello\n"
        assert shown.shown.count("passphrase of") == 1
    server.authorized.write_text((home / ".ssh/id_rsa.pub").read_text())
    assert says(login) == b"hello\n"


def test_key_that_is_encrypted_is_not_asked_for_where_another_lets_in(
    server: Sshd, known_hosts: Path, home: Path, nothing_opened_yet: None
) -> None:
    new_key(home / ".ssh/id_ed25519", passphrase="a secret")
    (home / ".ssh/id_rsa").write_bytes(server.key.read_bytes())
    (home / ".ssh/id_rsa").chmod(0o600)
    with terminal({}) as shown:
        assert says(server.login(known_hosts, key=None)) == b"hello\n"
        assert shown.shown == ""


def test_key_from_the_agent(
    shared_server: Sshd, known_hosts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agent(tmp_path, shared_server.key) as place:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        assert says(shared_server.login(known_hosts, key=None)) == b"hello\n"
        assert problem_of(shared_server.login(known_hosts, key=new_key(tmp_path / "wrong"))).code == "ssh/auth"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Paramiko leaves its socket
def test_agent_that_is_gone_is_no_agent(
    shared_server: Sshd, known_hosts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone"))
    assert problem_of(shared_server.login(known_hosts, key=None)).code == "ssh/auth"


# Hosts that do not answer as they should


@contextmanager
def listener(says: bytes = b"", *, drops: bool = False) -> Iterator[tuple[int, list[int]]]:
    """Accept connections and say no more than `says`, or drop them; gives the port and what was accepted."""
    accepted: list[int] = []
    kept: list[socket.socket] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            accepted.append(len(accepted))
            kept.append(connection)
            connection.sendall(says)
            if drops:
                connection.close()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listening.getsockname()[1], accepted
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
        for connection in kept:
            connection.close()


def test_refused(shared_server: Sshd, known_hosts: Path) -> None:
    port = free_port()
    problem = problem_of(shared_server.login(known_hosts, port=port))
    assert (problem.code, problem.exit_code) == ("ssh/unreachable", ExitCode.UNREACHABLE)
    assert "refused" in problem.saw[0]
    assert f"-p {port}" in problem.hint
    assert not known_hosts.exists()


def test_name_that_nobody_knows(shared_server: Sshd, known_hosts: Path) -> None:
    assert problem_of(shared_server.login(known_hosts, address="nowhere.invalid")).code == "ssh/unreachable"


def test_host_that_says_nothing(shared_server: Sshd, known_hosts: Path) -> None:
    threads = threading.active_count()
    with listener() as (port, accepted):
        began = time.monotonic()
        problem = problem_of(shared_server.login(known_hosts, port=port), timeout_s=1)
        assert (problem.code, problem.exit_code) == ("ssh/unreachable", ExitCode.UNREACHABLE)
        assert "did not answer within 1 s" in problem.what
        assert 0.8 < time.monotonic() - began < 12, "neither earlier nor after Paramiko's own 15 s, on a busy box too"
        assert len(accepted) == 1
    until("threads are gone", lambda: threading.active_count() <= threads)


def test_host_that_stops_after_its_banner(shared_server: Sshd, known_hosts: Path) -> None:
    threads = threading.active_count()
    with listener(says=b"SSH-2.0-Slow\r\n") as (port, _):
        assert problem_of(shared_server.login(known_hosts, port=port), timeout_s=1).code == "ssh/unreachable"
    until("threads are gone", lambda: threading.active_count() <= threads)


def test_host_that_ends_the_handshake_leaves_no_timer(shared_server: Sshd, known_hosts: Path) -> None:
    threads = threading.active_count()
    with listener(says=b"SSH-2.0-Rude\r\n", drops=True) as (port, _):
        assert problem_of(shared_server.login(known_hosts, port=port), timeout_s=60).code == "ssh/unreachable"
    until("threads are gone", lambda: threading.active_count() <= threads)


def test_dropped_connections_are_tried_seven_times(shared_server: Sshd, known_hosts: Path) -> None:
    with listener(drops=True) as (port, accepted):
        problem = problem_of(shared_server.login(known_hosts, port=port))
        assert (problem.code, len(accepted)) == ("ssh/unreachable", 7)


def test_a_host_that_drops_slowly_is_given_up_in_time(shared_server: Sshd, known_hosts: Path) -> None:
    with listener(drops=True) as (port, accepted):
        began = time.monotonic()
        assert problem_of(shared_server.login(known_hosts, port=port), timeout_s=0.5).code == "ssh/unreachable"
        assert time.monotonic() - began < 5
        assert len(accepted) < 7


def test_second_try_succeeds(shared_server: Sshd, known_hosts: Path) -> None:
    with relay(shared_server.port, drops=2) as port:
        assert says(shared_server.login(known_hosts, port=port)) == b"hello\n"


@contextmanager
def relay(target: int, drops: int) -> Iterator[int]:
    """Drop the first connections, then pass one on to the port `target`."""
    with ExitStack() as resources:
        listening = resources.enter_context(socket.create_server(("127.0.0.1", 0)))

        def work() -> None:
            for _ in range(drops):
                listening.accept()[0].close()
            near = resources.enter_context(listening.accept()[0])
            far = resources.enter_context(socket.create_connection(("127.0.0.1", target)))
            back = threading.Thread(target=carry, args=[far, near])
            back.start()
            carry(near, far)
            back.join()

        thread = threading.Thread(target=work)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(20)


def carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):  # either end may be gone before it is told that the other one is
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_paramiko_prints_nothing(shared_server: Sshd, known_hosts: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = [
        "import sys",
        f"sys.path[:] = {sys.path!r}",
        "from pathlib import Path",
        "from envoymesh.problems import Failed",
        "from envoymesh.transport.login import Login",
        "from envoymesh.transport.ssh import connect",
        "known, port, key = sys.argv[1:]",
        "try: connect(Login('web', '127.0.0.1', Path(known), int(port), 'root', Path(key), 'none'))",
        "except Failed as failed: print(failed)",
    ]
    with listener(drops=True) as (port, _):
        ran = subprocess.run(
            [sys.executable, "-c", "\n".join(command), str(known_hosts), str(port), str(shared_server.key)],
            capture_output=True,
            text=True,
            check=True,
        )
    assert (ran.stdout, ran.stderr) == ("ssh/unreachable\n", "")


# ~/.ssh/config


def test_configuration_with_include_and_match(shared_server: Sshd, known_hosts: Path, home: Path) -> None:
    (home / ".ssh/config").write_text(
        f"Include {home}/.ssh/hosts\nMatch user root\n  IdentityFile {shared_server.key}\n"
    )
    (home / ".ssh/hosts").write_text(
        f"Host web-alias\n  HostName 127.0.0.1\n  Port {shared_server.port}\n  User root\n"
    )
    login = replace(shared_server.login(known_hosts), address="web-alias", port=None, user=None, key=None, jump=None)
    with connect(login) as session:
        assert session.exec("echo hello", timeout_s=20).stdout == b"hello\n"
    assert f"[127.0.0.1]:{shared_server.port}" in known_hosts.read_text()
    assert openssh(login) == "hello\n"


def test_login_wins_over_the_configuration(shared_server: Sshd, known_hosts: Path, home: Path) -> None:
    (home / ".ssh/config").write_text("Host *\n  Port 1\n  User nobody\n  ProxyJump nowhere.invalid\n")
    assert says(shared_server.login(known_hosts)) == b"hello\n"
    assert problem_of(shared_server.login(known_hosts, jump=None)).code == "ssh/unreachable"


def test_broken_configuration(shared_server: Sshd, known_hosts: Path, home: Path) -> None:
    (home / ".ssh/config").write_text("Port many\n")
    with pytest.raises(Failed) as failed:
        connect(shared_server.login(known_hosts, port=None))
    (problem,) = failed.value.problems
    assert problem.code == "ssh/config"
    assert any("line 1" in saw for saw in problem.saw)


# The command line


def openssh(login: Login) -> str:
    """Return what OpenSSH answers with the command line that was made for it."""
    command = [*ssh_command(login), "echo hello"]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_command_logs_in(shared_server: Sshd, tmp_path: Path) -> None:
    known_hosts = tmp_path / "with space %h" / "known_hosts"
    login = shared_server.login(known_hosts)
    connect(login).close()
    assert openssh(replace(login, host_keys="strict")) == "hello\n"


def test_command_refuses_a_changed_key(server: Sshd, known_hosts: Path) -> None:
    login = server.login(known_hosts)
    connect(login).close()
    server.new_host_key()
    ran = subprocess.run([*ssh_command(login), "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert ran.returncode == 255
    assert server.logins() == 0


# Jump hosts


@pytest.fixture
def inner() -> Iterator[Sshd]:
    """A server that can be reached from where the jump host is only."""
    with namespace() as place, running(namespace=place) as server:
        yield server


@pytest.fixture
def bastion(inner: Sshd) -> Iterator[Sshd]:
    """A jump host with the key of the inner server; it is reached from inside its namespace as well."""
    with running(namespace=inner.namespace) as server:
        server.authorized.write_text(inner.key.with_suffix(".pub").read_text())
        yield server


def test_jump_host_is_shared_and_verified(inner: Sshd, bastion: Sshd, known_hosts: Path) -> None:
    login = inner.login(known_hosts, jump=f"root@127.0.0.1:{bastion.port}")
    failures: list[BaseException] = []
    ready = threading.Barrier(6)

    def work() -> None:
        try:
            with connect(login) as session:
                session.exec("true", timeout_s=20)
                ready.wait(20)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    before = threading.active_count()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (bastion.logins(), inner.logins()) == (1, 6)
    assert len(known_hosts.read_text().splitlines()) == 2
    until("the jump host's connection is gone too", lambda: threading.active_count() <= before)
    assert says(login) == b"hello\n"
    assert bastion.logins() == 2


def test_jump_host_with_a_changed_key(inner: Sshd, bastion: Sshd, known_hosts: Path) -> None:
    login = inner.login(known_hosts, jump=f"root@127.0.0.1:{bastion.port}")
    connect(login).close()
    bastion.new_host_key()
    with pytest.raises(Failed) as failed:
        connect(login)
    assert failed.value.problems[0].code == "ssh/host-key-changed"
    assert failed.value.problems[0].at == f"jump host 127.0.0.1 root@127.0.0.1:{bastion.port}"


def test_host_behind_the_jump_host_refuses(inner: Sshd, bastion: Sshd, known_hosts: Path) -> None:
    login = inner.login(known_hosts, jump=f"root@127.0.0.1:{bastion.port}", port=free_port())
    problem = problem_of(login)
    assert problem.code == "ssh/unreachable"
    assert "jump host" in problem.what


def test_jump_host_that_does_not_forward(inner: Sshd, known_hosts: Path) -> None:
    with running("AllowTcpForwarding no", namespace=inner.namespace) as bastion:
        bastion.authorized.write_text(inner.key.with_suffix(".pub").read_text())
        problem = problem_of(inner.login(known_hosts, jump=f"root@127.0.0.1:{bastion.port}"))
    assert (problem.code, problem.exit_code) == ("ssh/jump-forbidden", ExitCode.UNREACHABLE)
    assert "AllowTcpForwarding" in problem.hint
    assert inner.logins() == 0


def test_jump_host_that_dies_is_opened_anew(inner: Sshd, bastion: Sshd, known_hosts: Path) -> None:
    login = inner.login(known_hosts, jump=f"root@127.0.0.1:{bastion.port}")
    with connect(login) as session:
        bastion.stop()
        with pytest.raises(Failed) as failed:
            session.exec("sleep 60", timeout_s=30)
        assert failed.value.problems[0].code == "ssh/lost"
        bastion.log.write_text("")
        bastion.start()
        assert says(login) == b"hello\n"


def test_jump_host_that_drops_in_the_middle_of_a_run(inner: Sshd, bastion: Sshd, known_hosts: Path) -> None:
    jump = f"root@127.0.0.1:{bastion.port}"
    logins = {HostName(f"web-{n}"): inner.login(known_hosts, host=f"web-{n}", jump=jump) for n in range(6)}
    at_work = threading.Barrier(len(logins) + 1)

    def hear(_: str) -> None:
        at_work.wait(20)

    def work(host: HostName) -> int:
        return fleet.session(host).exec("echo working; sleep 60", on_line=hear, timeout_s=50).exit_status

    def drop() -> None:
        at_work.wait(20)
        bastion.stop()

    dropping = threading.Thread(target=drop)
    dropping.start()
    began = time.monotonic()
    with Fleet(logins) as fleet:
        ran = fleet.each(logins, work)
    dropping.join()
    assert time.monotonic() - began < 20
    assert [(p.code, p.exit_code) for p in ran.values() if isinstance(p, Problem)] == [
        ("ssh/lost", ExitCode.UNREACHABLE)
    ] * len(logins)
    bastion.log.write_text("")
    bastion.start()
    with Fleet(logins) as fleet:
        assert set(
            fleet.each(logins, lambda host: fleet.session(host).exec("true", timeout_s=20).exit_status).values()
        ) == {0}
    assert bastion.logins() == 1


def test_jump_host_that_drops_during_a_login(known_hosts: Path, shared_server: Sshd) -> None:
    with running() as bastion, listener(says=b"SSH-2.0-Slow\r\n") as (port, accepted):
        bastion.authorized.write_text(shared_server.key.with_suffix(".pub").read_text())
        login = shared_server.login(known_hosts, port=port, jump=f"root@127.0.0.1:{bastion.port}")

        def drop() -> None:
            until("the login is under way", lambda: bool(accepted))
            bastion.stop()

        dropping = threading.Thread(target=drop)
        dropping.start()
        began = time.monotonic()
        problem = problem_of(login, timeout_s=30)
        dropping.join()
        bastion.start()
    assert (problem.code, problem.exit_code) == ("ssh/unreachable", ExitCode.UNREACHABLE)
    assert "the jump host ended its connection" in problem.what
    assert time.monotonic() - began < 10
    assert len(accepted) == 1


def test_jump_over_two_and_by_openssh(inner: Sshd, bastion: Sshd, known_hosts: Path) -> None:
    hop = f"root@127.0.0.1:{bastion.port}"
    last = f"root@127.0.0.1:{inner.port}"
    login = inner.login(known_hosts, jump=f"{hop},{last}")
    assert says(login) == b"hello\n"
    logins = bastion.logins(), inner.logins()
    assert logins == (1, 2)
    assert openssh(replace(login, host_keys="strict")) == "hello\n"
    assert (bastion.logins(), inner.logins()) == (2, 4)


def test_jump_from_the_configuration(shared_server: Sshd, known_hosts: Path, home: Path) -> None:
    with running() as bastion:
        (home / ".ssh/config").write_text(
            f"Host jump\n  HostName 127.0.0.1\n  Port {bastion.port}\n  User root\n  IdentityFile {bastion.key}\n"
            "Host *\n  ProxyJump jump\n"
        )
        login = shared_server.login(known_hosts, jump=None)
        assert says(login) == b"hello\n"
        assert bastion.logins() == 1


def test_proxy_command_from_the_configuration(shared_server: Sshd, known_hosts: Path, home: Path) -> None:
    """Here sshd itself is the command, as inetd would run it; nothing listens where the login says."""
    command = f"{SSHD} -i -f {shared_server.config} -o 'VersionAddendum=%h,%p,%r'"
    (home / ".ssh/config").write_text(f"Host *\n  ProxyCommand {command}\n")
    login = shared_server.login(known_hosts, address="192.0.2.7", port=7, jump=None)
    with connect(login) as session:
        assert session.exec("echo hello", timeout_s=20).stdout == b"hello\n"
        assert session.connection.transport.remote_version.endswith(" 192.0.2.7,7,root")
    assert openssh(login) == "hello\n"


def test_proxy_command_that_fails(shared_server: Sshd, known_hosts: Path, home: Path) -> None:
    (home / ".ssh/config").write_text("Host *\n  ProxyCommand false\n")
    problem = problem_of(shared_server.login(known_hosts, jump=None))
    assert (problem.code, problem.exit_code) == ("ssh/unreachable", ExitCode.UNREACHABLE)


# Namespaces


def test_host_inside_a_namespace(inner: Sshd, known_hosts: Path) -> None:
    outside = Path("/proc/thread-self/ns/net").readlink()
    login = inner.login(known_hosts)
    assert says(login, "readlink /proc/self/ns/net") != f"{outside}\n".encode()
    assert Path("/proc/thread-self/ns/net").readlink() == outside
    assert problem_of(replace(login, namespace=None)).code == "ssh/unreachable"
    assert openssh(login) == "hello\n"


def test_users_known_hosts_do_not_speak_of_a_namespace(inner: Sshd, known_hosts: Path, home: Path) -> None:
    other = new_key(home / "other").with_suffix(".pub").read_text()
    (home / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{inner.port} {other}")
    assert says(inner.login(known_hosts)) == b"hello\n"


def test_namespace_that_is_missing(shared_server: Sshd, known_hosts: Path, tmp_path: Path) -> None:
    problem = problem_of(shared_server.login(known_hosts, namespace=tmp_path / "missing"))
    assert problem.code == "ssh/unreachable"
    assert "missing" in problem.saw[0]
    (tmp_path / "file").touch()
    assert problem_of(shared_server.login(known_hosts, namespace=tmp_path / "file")).code == "ssh/unreachable"


def test_dead_peer_is_noticed(inner: Sshd, known_hosts: Path) -> None:
    assert inner.namespace is not None
    with connect(inner.login(known_hosts)) as session:
        subprocess.run(["ip", "-n", inner.namespace.name, "link", "set", "lo", "down"], check=True)
        began = time.monotonic()
        with pytest.raises(Failed) as failed:
            session.exec("sleep 120", timeout_s=100)
    assert failed.value.problems[0].code == "ssh/lost"
    assert time.monotonic() - began < 25
