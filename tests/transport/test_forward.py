"""Sockets through the host."""

import http.client
import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from envoymesh.problems import ExitCode, Failed
from envoymesh.transport.ssh import Session, connect
from tests.transport.sshd import Sshd, free_port, running, until


class Answer(http.server.BaseHTTPRequestHandler):
    """Sends back what it is sent."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def session(shared_server: Sshd, known_hosts: Path) -> Iterator[Session]:
    with connect(shared_server.login(known_hosts)) as session:
        yield session


def post(sock: socket.socket, body: bytes) -> bytes:
    client = http.client.HTTPConnection("web")
    client.sock = sock
    client.request("POST", "/", body)
    answer = client.getresponse()
    assert answer.status == 200
    return answer.read()


def test_http_through_the_host(session: Session, web: int) -> None:
    executions = session.executions
    with session.forward("127.0.0.1", web) as sock:
        assert post(sock, b"small") == b"small"
        large = os.urandom(5_000_000)
        assert post(sock, large) == large
    assert session.executions == executions


def test_first_answer_is_not_held_back(shared_server: Sshd, known_hosts: Path, web: int) -> None:
    """Not by the 40 ms for which Linux delays an acknowledgement that sshd waits for: that would be so every time."""

    def is_quicker() -> bool:
        with connect(shared_server.login(known_hosts)) as session:
            began = time.monotonic()
            session.forward("127.0.0.1", web).close()
            return time.monotonic() - began < 0.035

    until("one that is quicker, on a box that may be busy", is_quicker, timeout_s=30)


def test_several_at_once_beside_a_script(session: Session, web: int) -> None:
    ended = threading.Event()

    def during(_: str) -> None:
        socks = [session.forward("127.0.0.1", web) for _ in range(5)]
        for sock in socks:
            assert post(sock, b"here") == b"here"
            sock.close()
        ended.set()

    session.exec("echo now; read -r answer", stdin=[b"on\n"], on_line=during, timeout_s=30)
    assert ended.is_set()


def test_nothing_is_left(session: Session, web: int) -> None:
    def state() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), sum("forward" in thread.name for thread in threading.enumerate())

    before = state()
    for _ in range(20):
        with session.forward("127.0.0.1", web) as sock:
            post(sock, b"x")
    until("files and threads are as before", lambda: state()[1] <= before[1] and state()[0] <= before[0])
    left_open = session.forward("127.0.0.1", web)
    session.close()
    left_open.settimeout(10)
    assert left_open.recv(1) == b""
    left_open.close()
    until("threads are gone", lambda: state()[1] == 0)


def test_port_where_nothing_listens(session: Session) -> None:
    with pytest.raises(Failed) as failed:
        session.forward("127.0.0.1", free_port())
    (problem,) = failed.value.problems
    assert (problem.code, problem.exit_code) == ("ssh/forward", ExitCode.PROBLEM)
    assert session.exec("true", timeout_s=20).exit_status == 0


def test_host_that_does_not_forward(known_hosts: Path, web: int) -> None:
    with running("AllowTcpForwarding no") as server, connect(server.login(known_hosts)) as session:
        with pytest.raises(Failed) as failed:
            session.forward("127.0.0.1", web)
        assert failed.value.problems[0].code == "ssh/forward"


def test_host_that_refuses_more_sessions(known_hosts: Path) -> None:
    with running("MaxSessions 0") as server, connect(server.login(known_hosts)) as session:
        with pytest.raises(Failed) as failed:
            session.exec("true", timeout_s=20)
        assert failed.value.problems[0].code == "ssh/sessions"


def test_host_that_allows_one_session_only(known_hosts: Path, web: int) -> None:
    """One script after the other, with sockets beside it, is all that is asked of a host."""
    with running("MaxSessions 1") as server, connect(server.login(known_hosts)) as session:

        def ask(line: str) -> None:
            with session.forward("127.0.0.1", web) as sock:
                assert post(sock, line.encode()) == line.encode()

        for number in range(50):
            ran = session.exec(f"echo {number}; cat", stdin=[b"."], on_line=ask, timeout_s=20)
            assert ran.stdout == f"{number}\n.".encode()
