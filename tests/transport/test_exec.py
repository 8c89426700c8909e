"""Scripts on a host: bytes, lines, exit statuses, and connections that end in the middle."""

import hashlib
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from envoymesh.problems import ExitCode, Failed
from envoymesh.transport.ssh import Session, connect
from tests.transport.sshd import Sshd, until

KILL_SSHD = """
pid=$$
until [ "$(ps -o comm= -p "$pid")" = sshd ]; do pid=$(ps -o ppid= -p "$pid" | tr -d ' '); done
kill -9 "$pid"
"""
"""Ends the connection, as sshd's process for it dies."""


@pytest.fixture
def session(shared_server: Sshd, known_hosts: Path) -> Iterator[Session]:
    with connect(shared_server.login(known_hosts)) as session:
        yield session


def problem(failed: pytest.ExceptionInfo[Failed]) -> tuple[str, ExitCode]:
    (found,) = failed.value.problems
    return found.code, found.exit_code


def test_output_and_exit_status(session: Session) -> None:
    ran = session.exec("echo out; echo err >&2; exit 3", timeout_s=20)
    assert (ran.exit_status, ran.stdout, ran.stderr) == (3, b"out\n", b"err\n")


def test_executions_are_counted(session: Session) -> None:
    assert session.executions == 0
    session.exec("true", timeout_s=20)
    session.exec("true", timeout_s=20)
    assert session.executions == 2


def test_script_is_bash_and_quoting_is_exact(session: Session) -> None:
    awkward = "a'b\"c\\d\\\\e$f`g!h\n\ti*?~ ü \x01 %s \\n"
    script = f"shopt -q extglob; printf %s {quoted(awkward)}; [[ ab == a* ]]"
    ran = session.exec(script, timeout_s=20)
    assert (ran.exit_status, ran.stdout.decode()) == (0, awkward)


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def test_stdin_is_empty_without_one(session: Session) -> None:
    assert session.exec("wc -c", timeout_s=20).stdout.strip() == b"0"


def test_all_bytes_survive_both_ways(session: Session) -> None:
    every = bytes(range(256)) * 5
    assert session.exec("cat", stdin=[every, b"", every], timeout_s=20).stdout == every * 2


def test_much_in_all_three_directions_at_once(session: Session) -> None:
    sent = random.Random(1).randbytes(12 * 1024 * 1024)
    ran = session.exec("tee /dev/stderr", stdin=[sent], timeout_s=60)
    assert digest(ran.stdout) == digest(ran.stderr) == digest(sent)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_much_output_while_stdin_is_not_read(session: Session) -> None:
    script = "head -c 8000000 /dev/zero; head -c 8000000 /dev/zero >&2; wc -c"
    ran = session.exec(script, stdin=[bytes(8_000_000)], timeout_s=60)
    assert len(ran.stderr) == 8_000_000
    assert ran.stdout[8_000_000:].strip() == b"8000000"


def test_script_may_end_without_reading_stdin(session: Session) -> None:
    ran = session.exec("head -c 1 >/dev/null; exit 7", stdin=(bytes(1024) for _ in range(20_000)), timeout_s=60)
    assert ran.exit_status == 7
    assert session.exec("echo still here", timeout_s=20).stdout == b"still here\n"


def test_lines_arrive_while_the_script_runs(session: Session) -> None:
    heard: list[str] = []
    go_on = threading.Event()

    def listen(line: str) -> None:
        heard.append(line)
        go_on.set()

    def answer() -> Iterator[bytes]:
        assert go_on.wait(20)
        yield b"go on\n"

    script = "echo 'first ü'; read -r answer; printf '\\xff %s\\nno newline' \"$answer\""
    ran = session.exec(script, stdin=answer(), on_line=listen, timeout_s=30)
    assert heard == ["first ü", "\ufffd go on"]
    assert ran.stdout == "first ü\n".encode() + b"\xff go on\nno newline"


def test_killed_script_has_the_status_of_its_signal(session: Session) -> None:
    assert session.exec("kill -9 $$", timeout_s=20).exit_status == 128 + 9


def test_killed_shell_is_lost(session: Session) -> None:
    with pytest.raises(Failed) as failed:
        session.exec("kill -9 $PPID", timeout_s=20)
    assert problem(failed) == ("ssh/lost", ExitCode.UNREACHABLE)


def test_connection_that_dies_is_lost_at_once(session: Session) -> None:
    began = time.monotonic()
    with pytest.raises(Failed) as failed:
        session.exec(f"echo working; {KILL_SSHD} sleep 60", timeout_s=50)
    assert problem(failed) == ("ssh/lost", ExitCode.UNREACHABLE)
    assert "working" in failed.value.problems[0].saw
    assert failed.value.problems[0].now
    assert time.monotonic() - began < 10
    with pytest.raises(Failed) as failed:
        session.exec("true", timeout_s=20)
    assert problem(failed) == ("ssh/lost", ExitCode.UNREACHABLE)


def test_connection_that_dies_under_a_payload_is_lost(session: Session) -> None:
    def payload() -> Iterator[bytes]:
        while True:
            yield bytes(100_000)

    with pytest.raises(Failed) as failed:
        session.exec(f"head -c 3000000 >/dev/null; {KILL_SSHD}", stdin=payload(), timeout_s=50)
    assert problem(failed)[0] == "ssh/lost"


def test_time_over(session: Session) -> None:
    began = time.monotonic()
    with pytest.raises(Failed) as failed:
        session.exec("echo last words; exec sleep 60", timeout_s=3)
    assert problem(failed) == ("ssh/timeout", ExitCode.PROBLEM)
    assert failed.value.problems[0].saw == ("last words",)
    assert 2.9 < time.monotonic() - began < 30, "neither earlier nor with the script, on a busy box too"


def test_time_over_while_nobody_reads_stdin(session: Session) -> None:
    with pytest.raises(Failed) as failed:
        session.exec("exec sleep 60", stdin=[bytes(20_000_000)], timeout_s=3)
    assert problem(failed)[0] == "ssh/timeout"


def test_callers_own_errors_are_not_the_connections(session: Session) -> None:
    def unreadable() -> Iterator[bytes]:
        yield b"some"
        raise FileNotFoundError("artifact")

    with pytest.raises(FileNotFoundError):
        session.exec("cat", stdin=unreadable(), timeout_s=20)


def test_error_in_on_line_is_the_callers(session: Session) -> None:
    def closed_terminal(line: str) -> None:
        raise BrokenPipeError(line)

    with pytest.raises(BrokenPipeError):
        session.exec("echo line; sleep 60", on_line=closed_terminal, timeout_s=20)


def test_longest_script(session: Session) -> None:
    longest = "#" * (120 * 1024 - 5) + "\npwd\n"
    assert session.exec(longest, timeout_s=20).exit_status == 0
    with pytest.raises(ValueError, match="does not fit"):
        session.exec(longest + "\n", timeout_s=20)


def test_background_process_that_keeps_the_output_open_is_waited_for(session: Session) -> None:
    ran = session.exec("(sleep 0.5; echo late) & echo soon", timeout_s=20)
    assert ran.stdout == b"soon\nlate\n"


def test_hundred_sessions_leave_nothing_behind(shared_server: Sshd, known_hosts: Path) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    login = shared_server.login(known_hosts)
    with connect(login) as session:  # what is loaded once is loaded now
        session.exec("true", timeout_s=20)
    before = open_files(), threading.active_count()
    for _ in range(100):
        with connect(login) as session:
            session.exec("true", stdin=[b"some"], timeout_s=20)
    until("no more files", lambda: open_files() <= before[0], timeout_s=30)
    until("no more threads", lambda: threading.active_count() <= before[1], timeout_s=30)


def test_twenty_at_once(shared_server: Sshd, known_hosts: Path) -> None:
    answers: list[bytes] = []
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with connect(shared_server.login(known_hosts)) as session:
                answers.append(session.exec(f"cat; echo {number}", stdin=[b"from "], timeout_s=60).stdout)
        except BaseException as error:  # shown by the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(answers) == sorted(f"from {n}\n".encode() for n in range(20))
    assert len(known_hosts.read_text().splitlines()) == 1
