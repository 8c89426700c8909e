"""Clients that ask the front all the time, and a count of what they were answered."""

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager

from tests.labs import eventually
from tests.meshes import TestMesh

CLIENTS = 4


@contextmanager
def load(lab: TestMesh, *methods: str) -> Iterator[Counter[str]]:
    """Give a count of `METHOD STATUS` that grows while some clients ask for service 1, each over one connection."""
    answers: Counter[str] = Counter()
    done = threading.Event()
    clients = [
        threading.Thread(target=client, args=(lab.http, methods[i % len(methods)], answers, done))
        for i in range(CLIENTS)
    ]
    for thread in clients:
        thread.start()
    try:
        eventually(lambda: answers.total() > 100, what="the first answers")
        yield answers
    finally:
        done.set()
        for thread in clients:
            thread.join()


def client(port: int, method: str, answers: Counter[str], done: threading.Event) -> None:
    """Ask over one connection, and over a new one when it fails, until `done`."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        while not done.wait(0.005):
            try:
                connection.request(method, "/service/1")
                answer = connection.getresponse()
                answer.read()
                answers[f"{method} {answer.status}"] += 1
            except (OSError, http.client.HTTPException) as error:
                answers[f"{method} {type(error).__name__}"] += 1
                connection.close()
