"""Load on machines that are emulated: few requests a second, over kept and new connections, each answer looked at."""

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager

from tests.labs import eventually
from tests.meshes import TestMesh

PAUSE_S = 0.25
KEPT, NEW = 4, 4
"""Clients that keep their connection, and that make one for each request."""


@contextmanager
def gentle_load(mesh: TestMesh) -> Iterator[Counter[str]]:
    """Give a count of answers to requests for service 1 that grows: `good`, or what was wrong."""
    answers: Counter[str] = Counter()
    done = threading.Event()
    clients = [threading.Thread(target=_client, args=(mesh, n < KEPT, answers, done)) for n in range(KEPT + NEW)]
    for client in clients:
        client.start()
    try:
        eventually(lambda: answers.total() > 50, 120, what="the first answers")
        yield answers
        before = answers.total()
        eventually(lambda: answers.total() > before + 50, 120, what="answers afterwards")
    finally:
        done.set()
        for client in clients:
            client.join()


def _client(mesh: TestMesh, keeps: bool, answers: Counter[str], done: threading.Event) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", mesh.http, timeout=60)) as connection:
        while not done.wait(PAUSE_S):
            try:
                connection.request("GET", "/service/1")
                answer = connection.getresponse()
                hello = answer.read().startswith(b"Hello from behind Envoy (service 1)!")
                answers["good" if hello and answer.status == 200 else f"{answer.status}"] += 1
            except (OSError, http.client.HTTPException) as error:
                answers[type(error).__name__] += 1
                connection.close()
            if not keeps:
                connection.close()
