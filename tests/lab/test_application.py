"""The application as a process: on loopback alone, and stopping in order."""

import http.client
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.labs import eventually, free_ports
from tests.layers import ROOT

WITH_A_SLOW_PATH = """\
import asyncio, sys
from aiohttp import web
from service.app import Settings, application, serve

async def slow(request):
    print("begun", flush=True)
    await asyncio.sleep(1)
    return web.Response(text="finished")

app = application(Settings("/service/1", "/healthz", "10.0.0.1"))
app.router.add_get("/slow", slow)
serve(app, "127.0.0.1", int(sys.argv[1]))
"""


def get(port: int, path: str) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


def started(port: int, *words: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            eventually(lambda: get(port, "/healthz")[0] == 200, within_s=20, what="the application")
            yield process
        finally:
            process.kill()


@pytest.fixture
def application(port: int) -> Iterator[subprocess.Popen[str]]:
    words = ["--path", "/service/7", "--health-path", "/healthz", "--address", "10.0.0.1"]
    words += ["--listen", "127.0.0.1", "--port", str(port)]
    yield from started(port, "-m", "service", *words)


@pytest.fixture
def slow(port: int) -> Iterator[subprocess.Popen[str]]:
    yield from started(port, "-c", WITH_A_SLOW_PATH, str(port))


def test_it_answers_as_the_command_line_says(application: subprocess.Popen[str], port: int) -> None:
    name = socket.gethostname()
    expected = f"Hello from behind Envoy (service 7)! hostname: {name} resolvedhostname: 10.0.0.1\n"
    assert get(port, "/service/7") == (200, expected)
    assert get(port, "/service/70")[0] == 404
    listening = subprocess.run(["ss", "-Hltn", f"sport = {port}"], capture_output=True, text=True, check=True).stdout
    assert [line.split()[3] for line in listening.splitlines()] == [f"127.0.0.1:{port}"]


def test_a_stop_finishes_what_is_being_answered_and_takes_nothing_new(slow: subprocess.Popen[str], port: int) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as idle, ThreadPoolExecutor() as pool:
        idle.request("GET", "/healthz")
        idle.getresponse().read()
        running = pool.submit(get, port, "/slow")
        assert slow.stdout is not None
        assert slow.stdout.readline() == "begun\n"
        slow.send_signal(signal.SIGTERM)
        eventually(lambda: refuses(port), within_s=5, what="the port being closed")
        assert running.result() == (200, "finished")
        assert slow.wait(timeout=10) == 0, "an idle connection must not hold it up"


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False
