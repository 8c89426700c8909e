"""Becoming root, and login shells of all sorts."""

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from envoymesh.problems import ExitCode, Failed, Problem
from envoymesh.transport.ssh import connect
from tests.layers import all_required
from tests.transport.sshd import Sshd, running, user

needs_sudo = pytest.mark.skipif(shutil.which("sudo") is None and not all_required(), reason="not found: sudo")


@contextmanager
def allowed(name: str) -> Iterator[None]:
    """Let a user become root without a password."""
    file = Path("/etc/sudoers.d") / name
    file.write_text(f"{name} ALL=(ALL) NOPASSWD: ALL\n")
    file.chmod(0o440)
    try:
        yield
    finally:
        file.unlink()


def refused(server: Sshd, name: str, known_hosts: Path) -> Problem:
    """Return the problem of a script that is not run."""
    with connect(server.login(known_hosts, user=name)) as session, pytest.raises(Failed) as failed:
        session.exec("echo must not run", timeout_s=20)
    (problem,) = failed.value.problems
    assert problem.exit_code == ExitCode.PROBLEM
    assert problem.at == f"web {name}@127.0.0.1:{server.port}"
    return problem


@needs_sudo
def test_sudo_without_a_password(shared_server: Sshd, known_hosts: Path) -> None:
    payload = random.Random(2).randbytes(3_000_000)
    with user() as name, allowed(name), connect(shared_server.login(known_hosts, user=name)) as session:
        ran = session.exec("id -un; cat; echo err >&2; exit 5", stdin=[payload], timeout_s=30)
        assert (ran.exit_status, ran.stderr) == (5, b"err\n")
        assert ran.stdout == b"root\n" + payload
        assert session.exec("kill -TERM $$", timeout_s=20).exit_status == 128 + 15
        assert session.exec("id -un", timeout_s=20, as_root=False).stdout == f"{name}\n".encode()
        assert session.executions == 3


@needs_sudo
def test_sudo_that_asks_for_a_password(shared_server: Sshd, known_hosts: Path) -> None:
    with user() as name:
        problem = refused(shared_server, name, known_hosts)
        assert problem.code == "ssh/sudo-password"
        assert f"{name} ALL=(ALL) NOPASSWD: ALL" in problem.hint
        assert "visudo" in problem.hint
        with connect(shared_server.login(known_hosts, user=name)) as session:
            assert session.exec("id -un", timeout_s=20, as_root=False).exit_status == 0


def test_no_sudo(known_hosts: Path, tmp_path: Path) -> None:
    with user("/bin/sh") as name:
        only_bash = Path("/tmp") / f"{name}-path"  # where that user can go
        only_bash.mkdir(mode=0o755)
        (only_bash / "bash").symlink_to("/bin/bash")
        try:
            with running(f"SetEnv PATH={only_bash}") as server:
                assert refused(server, name, known_hosts).code == "ssh/sudo-missing"
        finally:
            shutil.rmtree(only_bash)


def test_login_shell_that_lets_nobody_in(shared_server: Sshd, known_hosts: Path) -> None:
    with user("/usr/sbin/nologin") as name, connect(shared_server.login(known_hosts, user=name)) as session:
        with pytest.raises(Failed) as failed:
            session.exec("true", timeout_s=20, as_root=False)
        assert failed.value.problems[0].code == "ssh/shell"


SHELLS = [shell for shell in ("bash", "dash", "zsh", "fish", "ksh", "mksh") if shutil.which(shell)]


@pytest.mark.parametrize("shell", SHELLS)
def test_script_runs_in_bash_whatever_the_login_shell(shared_server: Sshd, known_hosts: Path, shell: str) -> None:
    place = shutil.which(shell)
    assert place is not None
    script = "shopt -q extglob; printf '%s|' \"$BASH\" 'a\\b' \"it's\" \"\\\\\\\\\" '$HOME `x` !1'\nexit 4"
    with user(place) as name, connect(shared_server.login(known_hosts, user=name)) as session:
        ran = session.exec(script, timeout_s=20, as_root=False)
    assert ran.exit_status == 4
    bash, *rest = ran.stdout.decode().split("|")
    assert bash.endswith("/bash")
    assert rest == ["a\\b", "it's", "\\\\", "$HOME `x` !1", ""]


def test_what_the_login_shell_prints_is_not_the_scripts(shared_server: Sshd, known_hosts: Path) -> None:
    with user() as name:
        home = Path(f"~{name}").expanduser()
        (home / ".bashrc").write_text("echo welcome; printf 'no end of line'\n")
        heard: list[str] = []
        with connect(shared_server.login(known_hosts, user=name)) as session:
            ran = session.exec("echo mine", on_line=heard.append, timeout_s=20, as_root=False)
    assert (ran.stdout, heard) == (b"mine\n", ["mine"])
