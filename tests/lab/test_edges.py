"""Two edges: clients of a health check before them lose nothing while one after the other changes."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from envoymesh.machines import netns
from envoymesh.model.ports import HEALTH_PATH
from envoymesh.transport.dial import dial
from tests.lab.test_bad_hosts import REFUSES, ssh_that
from tests.labs import eventually
from tests.meshes import TestMesh, document

SECOND = "  front-2: {role: edge, address: 10.84.0.11}\n"
LEAVE_S = 3
EDGES = {"front-envoy": "10.84.0.10", "front-2": "10.84.0.11"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestMesh]:
    mesh = TestMesh(tmp_path_factory.mktemp("edges"), provider="nspawn", network=84)
    text = mesh.inventory.read_text()
    assert text.endswith("31}\n")
    mesh.inventory.write_text(text.replace("services:", f"front: {{leave_s: {LEAVE_S}}}\nservices:", 1) + SECOND)
    try:
        mesh.run("up")
        yield mesh
    finally:
        mesh.run("down")


@pytest.fixture
def two(running: TestMesh) -> Iterator[TestMesh]:
    text = running.inventory.read_text()
    yield running
    running.inventory.write_text(text)
    running.run("up")


class Balancer:
    """What stands before the edges: it asks each for its health, and sends clients to those that are well.

    `seen` has for each edge what its health check has answered since, `answers` what clients got.
    """

    def __init__(self, mesh: TestMesh, edges: dict[str, str]) -> None:
        self._namespace = netns.path(mesh.workspace.mesh.identifier)
        self.edges = edges
        self.well = dict.fromkeys(edges, True)
        self.seen: dict[str, set[int]] = {name: set() for name in edges}
        self.answers: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.done = threading.Event()

    def connection(self, edge: str) -> http.client.HTTPConnection:
        """Return a connection to the front of an edge, as its clients make it."""
        connection = http.client.HTTPConnection(self.edges[edge], 8080, timeout=20)
        connection.sock = dial(self.edges[edge], 8080, deadline=time.monotonic() + 2, namespace=self._namespace)
        return connection

    def health(self, edge: str) -> int:
        """Return the status with which an edge answers a health check; 0 where it does not."""
        try:
            with closing(self.connection(edge)) as connection:
                connection.request("GET", HEALTH_PATH)
                return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0

    def check(self, edge: str) -> None:
        while not self.done.wait(0.5):
            status = self.health(edge)
            self.seen[edge].add(status)
            self.well[edge] = status == 200

    def ask(self, number: int) -> None:
        """Ask over one connection for as long as it lasts and its edge is well."""
        method = ("GET", "POST")[number % 2]
        while not self.done.is_set():
            edges = [name for name, well in self.well.items() if well] or list(self.edges)
            edge = edges[number % len(edges)]
            try:
                with closing(self.connection(edge)) as connection:
                    connection.sock.settimeout(20)  # `dial` leaves what was left of its own 2 s
                    while self.well[edge] and connection.sock and not self.done.wait(0.01):
                        connection.request(method, "/service/1")
                        answer = connection.getresponse()
                        answer.read()
                        self.answers[f"{method} {answer.status}"] += 1
                        self.served[edge] += 1
            except (OSError, http.client.HTTPException) as error:
                self.answers[f"{method} {type(error).__name__}"] += 1


@contextmanager
def balanced(mesh: TestMesh, edges: dict[str, str]) -> Iterator[Balancer]:
    balancer = Balancer(mesh, edges)
    threads = [threading.Thread(target=balancer.check, args=[edge]) for edge in edges]
    threads += [threading.Thread(target=balancer.ask, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: set(balancer.served) == set(edges), what="answers of every edge")
        yield balancer
    finally:
        balancer.done.set()
        for thread in threads:
            thread.join()


def with_other_listeners(mesh: TestMesh) -> None:
    text = mesh.inventory.read_text()
    mesh.inventory.write_text(text.replace(f"leave_s: {LEAVE_S}", f"leave_s: {LEAVE_S}, https_port: 9443"))


def other_listeners(mesh: TestMesh) -> None:
    with_other_listeners(mesh)
    mesh.run("provision")


def other_processes(mesh: TestMesh) -> None:
    mesh.inventory.write_text(mesh.inventory.read_text().replace("machines: {", "machines: {cpus: 2, "))
    mesh.run("provision", "--limit", "edge")


def reboots(mesh: TestMesh) -> None:
    rebooted = document(mesh.run("reboot", "edge", "--json").stdout)
    assert {host["host"]: host["outcome"] for host in rebooted["hosts"]} == dict.fromkeys(EDGES, "changed")


def scales(mesh: TestMesh) -> None:
    mesh.run("scale", "service1=2")
    mesh.run("check")
    members = {h["host"]: h["members"] for h in document(mesh.run("status", "--json").stdout)["hosts"] if h["members"]}
    assert {edge: m["service1"]["healthy"] for edge, m in members.items()} == dict.fromkeys(EDGES, 2)
    left = document(mesh.run("scale", "service1=1", "--json").stdout)
    assert {host["host"] for host in left["hosts"]} == {*EDGES, "service1-2"}


@pytest.mark.parametrize("change", [other_listeners, other_processes, reboots, scales])
def test_edges_change_one_at_a_time_and_no_client_notices(two: TestMesh, change: Callable[[TestMesh], None]) -> None:
    with balanced(two, EDGES) as balancer:
        change(two)
        after = balancer.answers.total()
        eventually(lambda: all(balancer.well.values()), what="both are well")
        eventually(lambda: balancer.answers.total() > after + 200, what="requests after it")
    assert set(balancer.answers) == {"GET 200", "POST 405"}, balancer.answers
    assert balancer.answers.total() > 1000
    for edge, seen in balancer.seen.items():
        assert seen == {200} if change is scales else {200, 503} <= seen, edge
    two.run("plan", "--limit", "edge")
    if change is other_processes:
        two.stop_envoys()


def test_clients_do_notice_an_edge_that_is_restarted_by_hand(two: TestMesh) -> None:
    with balanced(two, EDGES) as balancer:
        two.on("front-2", "systemctl restart envoymesh-front")
        after = balancer.answers.total()
        eventually(lambda: balancer.answers.total() > after + 200, what="requests after it came back")
    assert set(balancer.answers) > {"GET 200", "POST 405"}, balancer.answers


def test_an_edge_that_was_left_behind_as_going_is_found_and_brought_back(two: TestMesh) -> None:
    two.run("admin", "front-2", "/healthcheck/fail", "--post")
    balancer = Balancer(two, EDGES)
    assert {edge: balancer.health(edge) for edge in EDGES} == {"front-envoy": 200, "front-2": 503}
    assert "it reports that it goes" in two.run("plan", code=2).stdout
    assert "Envoy 1.40.0 is DRAINING" in two.run("check", code=1).stdout
    two.run("provision")
    assert {edge: balancer.health(edge) for edge in EDGES} == {"front-envoy": 200, "front-2": 200}


def test_nobody_is_told_to_leave_the_only_edge_that_serves(two: TestMesh) -> None:
    two.on("front-2", "systemctl stop envoymesh-front")
    with ssh_that(two, "front-2", REFUSES), balanced(two, {"front-envoy": EDGES["front-envoy"]}) as balancer:
        with_other_listeners(two)
        two.run("provision", code=4)
    assert balancer.seen == {"front-envoy": {200}}
    assert set(balancer.answers) == {"GET 200", "POST 405"}, balancer.answers


def test_an_edge_whose_front_does_not_run_is_started_before_another_is_left(two: TestMesh) -> None:
    two.on("front-2", "systemctl stop envoymesh-front")
    with_other_listeners(two)
    done = two.run("provision")
    assert [line.split()[-1] for line in done.stderr.splitlines() if " batch " in line] == ["front-2", "front-envoy"]
    assert "front-envoy      lets its clients leave" in done.stderr
    assert "front-2          lets its clients leave" not in done.stderr


def test_one_edge_of_two_is_not_rebooted_while_the_other_does_not_serve(two: TestMesh) -> None:
    two.on("front-envoy", "systemctl stop envoymesh-front")
    try:
        assert "problem reboot/nobody-else: " in two.run("reboot", "front-2", code=1).stderr
    finally:
        two.on("front-envoy", "systemctl start envoymesh-front")
