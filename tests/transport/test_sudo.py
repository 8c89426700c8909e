"""sudo that asks for a password: asked for once, tried on one host first, and seen by nobody."""

import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from envoymesh.model.mesh import HostName
from envoymesh.problems import ExitCode, Failed, Problem
from envoymesh.run.fleet import Fleet
from envoymesh.transport import ssh
from envoymesh.transport.ssh import connect
from envoymesh.transport.sudo import Passwords
from tests.layers import all_required
from tests.transport.sshd import Sshd, until, user
from tests.transport.terminal import terminal

pytestmark = pytest.mark.skipif(shutil.which("sudo") is None and not all_required(), reason="not found: sudo")

PASSWORD = b'it\'s $(a) "xyzzy" \\n %s \xc3\xbc'


@pytest.fixture(autouse=True)
def nothing_typed_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test is a run of its own."""
    monkeypatch.setattr(ssh, "_PASSWORDS", Passwords())


@contextmanager
def asked(*settings: str) -> Iterator[str]:
    """Make a user who becomes root with a password."""
    with user() as name:
        subprocess.run(["chpasswd"], input=name.encode() + b":" + PASSWORD, check=True)
        file = Path("/etc/sudoers.d") / name
        file.write_text("".join(f"Defaults:{name} {setting}\n" for setting in settings) + f"{name} ALL=(ALL) ALL\n")
        file.chmod(0o440)
        try:
            yield name
        finally:
            file.unlink()
            Path(f"/var/lib/sudo/lectured/{name}").unlink(missing_ok=True)


@pytest.fixture
def ann() -> Iterator[str]:
    with asked() as name:
        yield name


def problem_with(server: Sshd, name: str, known_hosts: Path) -> Problem:
    with connect(server.login(known_hosts, user=name)) as session, pytest.raises(Failed) as failed:
        session.exec("echo must not run", timeout_s=20)
    (problem,) = failed.value.problems
    assert problem.exit_code == ExitCode.PROBLEM
    return problem


def test_password_is_asked_for_once(shared_server: Sshd, known_hosts: Path, ann: str) -> None:
    payload = random.Random(3).randbytes(3_000_000)
    login = shared_server.login(known_hosts, user=ann)
    with terminal({f"sudo password of {ann} on web: ": PASSWORD + b"\n"}) as shown:
        with connect(login) as session:
            ran = session.exec("id -un; cat; echo err >&2; exit 5", stdin=[payload], timeout_s=30)
            assert (ran.exit_status, ran.stderr) == (5, b"err\n")
            assert ran.stdout == b"root\n" + payload
            assert session.executions == 3, "refused without one, tried, run"
            assert session.exec("cat", stdin=[b"again"], timeout_s=20).stdout == b"again"
            assert session.exec("kill -TERM $$", timeout_s=20).exit_status == 128 + 15
            assert session.executions == 5
        with connect(login) as session:
            assert session.exec("id -un", timeout_s=20).stdout == b"root\n"
            assert session.executions == 2, "refused without one, run"
        assert shown.shown.strip() == f"sudo password of {ann} on web:", "asked once, and not echoed"
        assert shown.echoes


def test_many_hosts_are_asked_for_once(shared_server: Sshd, known_hosts: Path, ann: str) -> None:
    logins = {HostName(f"web-{n}"): shared_server.login(known_hosts, user=ann, host=f"web-{n}") for n in range(10)}
    with terminal({"sudo password": PASSWORD + b"\n"}) as shown, Fleet(logins) as fleet:
        ran = fleet.each(logins, lambda host: fleet.session(host).exec("id -un", timeout_s=60).stdout)
        assert set(ran.values()) == {b"root\n"}
        assert shown.shown.count("sudo password") == 1
        assert sum(fleet.executions().values()) == 2 * len(logins) + 1


def test_wrong_password_is_tried_on_one_host_once(shared_server: Sshd, known_hosts: Path, ann: str) -> None:
    logins = {HostName(f"web-{n}"): shared_server.login(known_hosts, user=ann, host=f"web-{n}") for n in range(6)}
    tries = Path(f"/tmp/{ann}-tries")
    with counted(ann, tries), terminal({"sudo password": b"wrong\n"}) as shown, Fleet(logins) as fleet:
        ran = fleet.each(logins, lambda host: fleet.session(host).exec("id -un", timeout_s=60).stdout)
        problems = [problem for problem in ran.values() if isinstance(problem, Problem)]
        assert {problem.code for problem in problems} == {"ssh/sudo-password"}
        assert len(problems) == len(logins)
        assert sum("become root with this password" in problem.what for problem in problems) == 1
        assert sum("did not accept it" in problem.what for problem in problems) == len(logins) - 1
        assert shown.shown.count("sudo password") == 1
        assert tries.read_text().count("incorrect password attempt") == 1
        assert "1 incorrect password attempt" in tries.read_text()
    assert not any("wrong" in str(problem) for problem in problems)


@contextmanager
def counted(name: str, file: Path) -> Iterator[None]:
    """Log what sudo says of a user: when it gives up, how many passwords it was given."""
    settings = Path("/etc/sudoers.d") / f"{name}-log"
    settings.write_text(f"Defaults:{name} logfile={file}\n")
    settings.chmod(0o440)
    file.touch()
    try:
        yield
    finally:
        settings.unlink()
        file.unlink()


def test_script_input_is_never_taken_for_a_password(shared_server: Sshd, known_hosts: Path, ann: str) -> None:
    """Not without a password, and not where it is wrong: the caller's data is not even begun."""
    begun: list[bytes] = []

    def data() -> Iterator[bytes]:
        begun.append(b"x")
        yield PASSWORD + b"\n"

    with connect(shared_server.login(known_hosts, user=ann)) as session:
        with pytest.raises(Failed):
            session.exec("cat", stdin=data(), timeout_s=20)
        assert begun == []


def test_sudo_that_needs_no_password_after_all_leaves_none_to_the_script(
    shared_server: Sshd, known_hosts: Path, ann: str
) -> None:
    """As when somebody gives the user NOPASSWD between two scripts."""
    with terminal({"sudo password": PASSWORD + b"\n"}), connect(shared_server.login(known_hosts, user=ann)) as session:
        assert session.exec("cat", stdin=[b"one"], timeout_s=20).stdout == b"one"
        (Path("/etc/sudoers.d") / ann).write_text(f"{ann} ALL=(ALL) NOPASSWD: ALL\n")
        assert session.exec("cat", stdin=[b"two"], timeout_s=20).stdout == b"two"


def test_no_password_is_given(shared_server: Sshd, known_hosts: Path, ann: str) -> None:
    with terminal({"sudo password": b"\n"}) as shown:
        assert "no sudo password" in problem_with(shared_server, ann, known_hosts).what
        assert "did not accept" in problem_with(shared_server, ann, known_hosts).what
        assert shown.shown.count("sudo password") == 1


def test_no_terminal(shared_server: Sshd, known_hosts: Path, ann: str) -> None:
    problem = problem_with(shared_server, ann, known_hosts)
    assert problem.code == "ssh/sudo-password"
    assert "on a terminal" in problem.hint
    assert f"{ann} ALL=(ALL) NOPASSWD: ALL" in problem.hint


def test_keys_that_edit(shared_server: Sshd, known_hosts: Path, ann: str) -> None:
    typed = b"nonsense\x15" + PASSWORD + b"xy\x7f\x08\n"
    with terminal({"sudo password": typed}), connect(shared_server.login(known_hosts, user=ann)) as session:
        assert session.exec("id -un", timeout_s=20).stdout == b"root\n"


def test_interrupt_while_it_is_asked_for(shared_server: Sshd, known_hosts: Path, ann: str) -> None:
    logins = {HostName(f"web-{n}"): shared_server.login(known_hosts, user=ann, host=f"web-{n}") for n in range(3)}
    threads = threading.active_count()
    with terminal({"sudo password": b"half a pass\x03"}) as shown:
        with Fleet(logins) as fleet, pytest.raises(KeyboardInterrupt):
            fleet.each(logins, lambda host: fleet.session(host).exec("true", timeout_s=60))
        assert shown.echoes
        assert shown.shown.count("sudo password") == 1
    until("threads are gone", lambda: threading.active_count() <= threads)


@pytest.mark.parametrize("setting", ["lecture=always", "!lecture", "timestamp_timeout=0", "timestamp_type=global"])
def test_settings_of_sudo(shared_server: Sshd, known_hosts: Path, setting: str) -> None:
    at_it = terminal({"sudo password": PASSWORD + b"\n"})
    with asked(setting) as name, at_it, connect(shared_server.login(known_hosts, user=name)) as session:
        for sent in (b"one", b"two"):
            ran = session.exec("cat; echo err >&2", stdin=[sent], timeout_s=20)
            assert (ran.stdout, ran.stderr) == (sent, b"err\n")


def test_sudo_that_wants_a_terminal_is_told(shared_server: Sshd, known_hosts: Path) -> None:
    with asked("requiretty") as name, terminal({"sudo password": PASSWORD + b"\n"}) as shown:
        problem = problem_with(shared_server, name, known_hosts)
        assert problem.code == "ssh/sudo-terminal"
        assert f"Defaults:{name} !requiretty" in problem.hint
        assert shown.shown == ""


def test_nobody_sees_the_password(
    shared_server: Sshd, known_hosts: Path, ann: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Root on the host looks at every process there is, of this box too, while a script runs by way of sudo."""
    look = r"cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n'; echo; env; set"
    with terminal({"sudo password": PASSWORD + b"\n"}), connect(shared_server.login(known_hosts, user=ann)) as session:
        seen = session.exec(look, timeout_s=30).stdout
        assert b"sudo" in seen
        assert PASSWORD not in seen
        assert b"xyzzy" not in seen
        assert "xyzzy" not in f"{session!r} {ssh._PASSWORDS!r} {vars(ssh._PASSWORDS)!r}"
    assert "xyzzy" not in "".join(capfd.readouterr())
    assert "xyzzy" not in shared_server.log.read_text()
