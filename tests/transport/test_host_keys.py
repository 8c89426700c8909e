"""A host must prove to be the one that was met before."""

import fcntl
import os
import subprocess
import threading
from pathlib import Path

import pytest

from envoymesh.problems import ExitCode
from envoymesh.transport.ssh import connect
from tests.transport.sshd import Sshd, new_key, problem_of, until


def shown(server: Sshd) -> str:
    """Return the fingerprint of the server's key as ssh-keygen prints it."""
    said = subprocess.run(["ssh-keygen", "-lf", server.host_key], capture_output=True, text=True, check=True)
    return said.stdout.split()[1]


def line(server: Sshd, name: str = "") -> str:
    kind, blob, *_ = server.host_key.with_suffix(".pub").read_text().split()
    return f"{name or f'[127.0.0.1]:{server.port}'} {kind} {blob}\n"


def test_new_key_is_accepted_and_kept(shared_server: Sshd, known_hosts: Path) -> None:
    connect(shared_server.login(known_hosts)).close()
    assert known_hosts.read_text() == line(shared_server)
    assert known_hosts.stat().st_mode & 0o777 == 0o600
    assert known_hosts.parent.stat().st_mode & 0o777 == 0o700
    connect(shared_server.login(known_hosts, host_keys="strict")).close()
    assert known_hosts.read_text() == line(shared_server)


def test_new_key_goes_below_a_line_without_an_end(shared_server: Sshd, known_hosts: Path) -> None:
    known_hosts.parent.mkdir()
    known_hosts.write_text("# kept")
    connect(shared_server.login(known_hosts)).close()
    assert known_hosts.read_text() == f"# kept\n{line(shared_server)}"


def test_openssh_reads_what_was_kept(shared_server: Sshd, known_hosts: Path) -> None:
    connect(shared_server.login(known_hosts)).close()
    name = f"[127.0.0.1]:{shared_server.port}"
    subprocess.run(["ssh-keygen", "-F", name, "-f", known_hosts], stdout=subprocess.DEVNULL, check=True)


@pytest.mark.parametrize("policy", ["accept-new", "strict"])
def test_changed_key_is_refused(server: Sshd, known_hosts: Path, policy: str) -> None:
    login = server.login(known_hosts, host_keys=policy)
    known_hosts.parent.mkdir()
    known_hosts.write_text(f"# first line\n{line(server)}")
    before, first = known_hosts.read_text(), shown(server)
    server.new_host_key()
    problem = problem_of(login)
    assert (problem.code, problem.exit_code) == ("ssh/host-key-changed", ExitCode.PROBLEM)
    assert f"known {first} ssh-ed25519 ({known_hosts}:2)" in problem.saw
    assert f"shown {shown(server)} ssh-ed25519" in problem.saw
    assert "nothing was sent" in problem.now
    assert "ssh-keygen -lf" in problem.hint
    assert f"line 2 of {known_hosts}" in problem.hint
    assert server.logins() == 0
    assert known_hosts.read_text() == before


def test_key_of_another_type_alone_is_a_changed_key(server: Sshd, known_hosts: Path) -> None:
    login = server.login(known_hosts)
    connect(login).close()
    server.new_host_key("ecdsa")
    assert problem_of(login).code == "ssh/host-key-changed"


def test_known_type_is_asked_for(known_hosts: Path, server: Sshd) -> None:
    """A host with several keys of which one is known shows that one."""
    rsa = new_key(server.folder / "host_rsa", "rsa")
    server.stop()
    server.config.write_text(f"HostKey {rsa}\n{server.config.read_text()}")
    server.log.write_text("")
    server.start()
    kind, blob, *_ = rsa.with_suffix(".pub").read_text().split()
    known_hosts.parent.mkdir()
    known_hosts.write_text(f"[127.0.0.1]:{server.port} {kind} {blob}\n")
    connect(server.login(known_hosts, host_keys="strict")).close()


def test_unknown_key_is_refused_when_strict(shared_server: Sshd, known_hosts: Path) -> None:
    problem = problem_of(shared_server.login(known_hosts, host_keys="strict"))
    assert (problem.code, problem.exit_code) == ("ssh/host-key-unknown", ExitCode.PROBLEM)
    assert any(shown(shared_server) in saw for saw in problem.saw)
    assert line(shared_server).strip() in problem.hint
    assert not known_hosts.exists()


def test_users_own_file_counts_and_is_not_written(shared_server: Sshd, known_hosts: Path, home: Path) -> None:
    theirs = home / ".ssh/known_hosts"
    theirs.write_text(line(shared_server))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", theirs], capture_output=True, check=True)
    hashed = theirs.read_text()
    assert hashed.startswith("|1|")
    connect(shared_server.login(known_hosts, host_keys="strict")).close()
    assert not known_hosts.exists()
    assert theirs.read_text() == hashed


def test_users_own_file_can_show_a_changed_key(server: Sshd, known_hosts: Path, home: Path) -> None:
    (home / ".ssh/known_hosts").write_text(line(server))
    server.new_host_key()
    problem = problem_of(server.login(known_hosts))
    assert problem.code == "ssh/host-key-changed"
    assert "known_hosts:1" in problem.saw[0]


def test_revoked_key_is_refused(shared_server: Sshd, known_hosts: Path) -> None:
    known_hosts.parent.mkdir()
    known_hosts.write_text(f"@revoked {line(shared_server, '*')}{line(shared_server)}")
    assert problem_of(shared_server.login(known_hosts)).code == "ssh/host-key-revoked"


def test_two_that_meet_a_host_at_once_keep_one_line(shared_server: Sshd, known_hosts: Path) -> None:
    def waits() -> bool:
        """Tell whether somebody waits for a lock of this process."""
        locks = Path("/proc/locks").read_text().splitlines()
        return any("-> FLOCK" in lock and f" {os.getpid()} " in lock for lock in locks)

    known_hosts.parent.mkdir()
    with known_hosts.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        other = threading.Thread(target=lambda: connect(shared_server.login(known_hosts)).close())
        other.start()
        until("the other waits for its turn", waits)
        file.write(line(shared_server))
    other.join()
    assert known_hosts.read_text() == line(shared_server)


def test_new_key_that_cannot_be_kept(shared_server: Sshd, known_hosts: Path) -> None:
    known_hosts.mkdir(parents=True)
    problem = problem_of(shared_server.login(known_hosts))
    assert (problem.code, problem.exit_code) == ("ssh/known-hosts", ExitCode.PROBLEM)
    assert str(known_hosts) in problem.what


# Certificates


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return new_key(tmp_path / "authority")


def trust(authority: Path, known_hosts: Path, names: str = "*", marker: str = "@cert-authority") -> str:
    """Trust an authority, or say with another marker what is to be said of it; return the line."""
    kind, blob, *_ = authority.with_suffix(".pub").read_text().split()
    known_hosts.parent.mkdir(exist_ok=True)
    line = f"{marker} {names} {kind} {blob}\n"
    with known_hosts.open("a") as file:
        file.write(line)
    return line


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("signer", ["ed25519", "ecdsa", "rsa"])
def test_certificate_of_a_known_authority_is_enough(
    server: Sshd, known_hosts: Path, tmp_path: Path, kind: str, signer: str
) -> None:
    authority = new_key(tmp_path / "authority", signer)
    server.new_host_key(kind)
    server.show_certificate(authority, "-h", "-n", "other,127.0.0.1")
    line = trust(authority, known_hosts)
    connect(server.login(known_hosts, host_keys="strict")).close()
    assert known_hosts.read_text() == line, "its key need not be known"
    server.new_host_key(kind)
    (server.folder / "host_key-cert.pub").unlink()
    assert problem_of(server.login(known_hosts)).code == "ssh/host-key-unknown"


@pytest.mark.parametrize(
    ("names", "counts"), [("127.0.0.1", True), ("127.0.0.*", True), ("[127.0.0.1]:*", True), ("other", False)]
)
def test_authority_is_for_the_hosts_of_its_line(
    server: Sshd, known_hosts: Path, authority: Path, names: str, counts: bool
) -> None:
    server.show_certificate(authority, "-h", "-n", "127.0.0.*")
    trusted = trust(authority, known_hosts, names)
    connect(server.login(known_hosts)).close()
    assert known_hosts.read_text() == trusted + ("" if counts else line(server)), "a key is kept where none counts"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["-h", "-n", "other"], "it is for other"),
        (["-h"], "it is for nobody"),
        (["-n", "127.0.0.1"], "it is a user's"),
        (["-h", "-n", "127.0.0.1", "-V", "-2d:-1d"], "it is not valid now"),
        (["-h", "-n", "127.0.0.1", "-V", "+1d:+2d"], "it is not valid now"),
        (["-h", "-n", "127.0.0.1", "-O", "critical:only@here=on"], "it has conditions that are not known"),
    ],
)
def test_certificate_that_does_not_fit_is_refused(
    server: Sshd, known_hosts: Path, authority: Path, options: list[str], why: str
) -> None:
    server.show_certificate(authority, *options)
    trusted = trust(authority, known_hosts)
    problem = problem_of(server.login(known_hosts))
    assert (problem.code, problem.exit_code) == ("ssh/host-key-unknown", ExitCode.PROBLEM)
    assert why in problem.what
    assert server.logins() == 0
    assert known_hosts.read_text() == trusted
    known_hosts.write_text(trusted + line(server))
    connect(server.login(known_hosts)).close()


def test_certificate_of_another_authority_is_refused(
    server: Sshd, known_hosts: Path, authority: Path, tmp_path: Path
) -> None:
    server.show_certificate(authority, "-h", "-n", "127.0.0.1")
    trust(new_key(tmp_path / "another"), known_hosts)
    problem = problem_of(server.login(known_hosts))
    assert problem.code == "ssh/host-key-unknown"
    assert "its authority is not known" in problem.what


def test_certificate_that_is_signed_with_sha1_is_refused(server: Sshd, known_hosts: Path, tmp_path: Path) -> None:
    authority = new_key(tmp_path / "authority", "rsa")
    server.show_certificate(authority, "-h", "-n", "127.0.0.1", "-t", "ssh-rsa")
    trust(authority, known_hosts)
    assert "SHA-1" in problem_of(server.login(known_hosts)).what


def test_revoked_authority_or_key_is_refused(server: Sshd, known_hosts: Path, authority: Path) -> None:
    server.show_certificate(authority, "-h", "-n", "127.0.0.1")
    trusted = trust(authority, known_hosts)
    trust(authority, known_hosts, marker="@revoked")
    assert problem_of(server.login(known_hosts)).code == "ssh/host-key-revoked"
    known_hosts.write_text(f"{trusted}@revoked {line(server, '*')}")
    assert problem_of(server.login(known_hosts)).code == "ssh/host-key-revoked"


def test_certificate_is_not_asked_for_without_an_authority(server: Sshd, known_hosts: Path, authority: Path) -> None:
    server.show_certificate(authority, "-h", "-n", "127.0.0.1")
    connect(server.login(known_hosts)).close()
    assert known_hosts.read_text() == line(server)
