"""What every provider that makes machines must keep: subclass `MakerContract`, and give it a `bench`."""

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import pytest

from envoymesh.machines import publish
from envoymesh.machines.base import MachineMaker
from envoymesh.model.mesh import Host, Mesh
from envoymesh.problems import Failed, Problem
from envoymesh.transport.openssh import ssh_command
from tests.labs import destroyed_after, eventually, free_ports, quiet, run, small_mesh

OPERATOR = """
import pickle, sys
maker, method, arguments, group = pickle.load(sys.stdin.buffer)
if group:
    (group / "cgroup.procs").write_text("0")
if method != "publish":
    arguments = (*arguments, lambda host, text: None)
getattr(maker, method)(*arguments)
"""

SERVER = """systemd-run --quiet --unit=answer-{port} --collect python3 -c '
import http.server
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{text}")
http.server.ThreadingHTTPServer(("{address}", {port}), Answer).serve_forever()'"""


@dataclass(frozen=True)
class Bench:
    """How to test one provider.

    Attributes:
        make: the provider of a mesh, with its state in a directory.
        is_off: whether the edge's machine is switched off.
        leftovers: what is left on the box of a mesh, in words; nothing after `down`.
        moments: when to kill a process that creates: name → whether that moment has come.
        tool: a tool without which it cannot work.
        slow: how many times slower than nspawn its machines are.
    """

    make: Callable[[Mesh, Path], MachineMaker]
    is_off: Callable[[Mesh, Path], bool]
    leftovers: Callable[[Mesh, Path], list[str]]
    tool: str
    moments: Mapping[str, Callable[[Mesh, Path], bool]] = field(default_factory=dict)
    slow: int = 1


@dataclass
class Site:
    """One mesh of a test's own, its provider, and where its state is."""

    bench: Bench
    mesh: Mesh
    state: Path
    maker: MachineMaker

    @property
    def hosts(self) -> list[Host]:
        return list(self.mesh.hosts.values())

    @property
    def edge(self) -> Host:
        return self.mesh.edges[0]

    def create(self) -> None:
        self.maker.create(self.hosts, quiet)

    def destroy(self) -> None:
        self.maker.destroy(self.maker.machines(), quiet)

    def leftovers(self) -> list[str]:
        return self.bench.leftovers(self.mesh, self.state)

    def nothing_is_left(self) -> None:
        """Wait for the last processes to go."""
        with suppress(AssertionError):
            eventually(lambda: not self.leftovers(), 30)
        assert self.leftovers() == []

    def publish(self) -> None:
        ports = {self.mesh.publish.http: 8080, self.mesh.publish.https: 8443}
        self.maker.publish(self.edge, ports, self.mesh.publish.admin)

    def boot_id(self, host: Host) -> str:
        # Guests that share the box's kernel share its boot id; when their first process began differs.
        return run(self.maker, host, "cut -d' ' -f22 /proc/1/stat; cat /proc/sys/kernel/random/boot_id")

    def reboot(self, *hosts: Host) -> None:
        """Reboot hosts at once, and wait until each has booted anew."""
        before = {host: self.boot_id(host) for host in hosts}
        for host in hosts:
            run(self.maker, host, "systemctl reboot --no-block")
        for host in hosts:
            eventually(lambda host=host: self.boot_id(host) != before[host], 60 * self.bench.slow, f"{host.name} boots")  # type: ignore[misc]


@contextmanager
def site(bench: Bench, state: Path, mesh: Mesh | None = None) -> Iterator[Site]:
    """Give a mesh without machines; destroy what came to be, and see that nothing is left."""
    chosen = mesh or small_mesh()
    with destroyed_after(bench.make(chosen, state)) as maker:
        made = Site(bench, chosen, state, maker)
        yield made
    made.nothing_is_left()


@contextmanager
def operator(
    maker: MachineMaker, method: str, *arguments: object, group: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a method of `maker` in a process of its own, which can be killed; in a control group, if one is given."""
    with subprocess.Popen([sys.executable, "-c", OPERATOR], stdin=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(pickle.dumps((maker, method, arguments, group)))
        process.stdin.close()
        yield process


def problems_of(work: Callable[[], object]) -> list[Problem]:
    """Return the problems with which `work` fails."""
    with pytest.raises(Failed) as failed:
        work()
    return list(failed.value.problems)


def get(port: int, within_s: float = 5) -> str:
    """Return what a server at 127.0.0.1 answers to GET /."""
    connection = HTTPConnection("127.0.0.1", port, timeout=within_s)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def path_without(tool: str, folder: Path) -> str:
    """Return a PATH with all that is on this one but for one tool; `folder` is made for it."""
    folder.mkdir()
    for place in os.environ["PATH"].split(":"):
        for found in Path(place).glob("*"):
            if found.name != tool and not (folder / found.name).exists():
                (folder / found.name).symlink_to(found)
    return str(folder)


class MakerContract:
    """The promises of `machines.base.MachineMaker`, on real machines."""

    @pytest.fixture
    def bench(self) -> Bench:
        raise NotImplementedError

    @pytest.fixture
    def here(self, bench: Bench, tmp_path: Path) -> Iterator[Site]:
        with site(bench, tmp_path / "state") as made:
            yield made

    # Create, log in, destroy.

    def test_a_machine_is_what_its_host_says(self, here: Site) -> None:
        assert here.maker.missing() == ""
        assert here.maker.machines() == []
        assert here.maker.logins(here.hosts) == {}
        here.create()
        assert sorted(here.maker.machines()) == sorted(here.mesh.hosts)
        for host in here.hosts:
            assert run(here.maker, host, "hostname; id -u").split() == [host.name, "0"]
            assert f" {host.address}/" in run(here.maker, host, "ip -4 -brief address")
            eventually(
                lambda host=host: run(here.maker, host, "systemctl is-system-running") == "running",  # type: ignore[misc]
                60 * here.bench.slow,
                "systemd is content",
            )

    def test_machines_reach_each_other(self, here: Site) -> None:
        here.create()
        edge, other = here.hosts
        assert run(here.maker, edge, f"head -c4 </dev/tcp/{other.address}/22") == "SSH-"
        assert run(here.maker, other, f"head -c4 </dev/tcp/{edge.address}/22") == "SSH-"

    def test_state_is_for_its_owner_alone(self, here: Site) -> None:
        here.create()
        login = here.maker.logins(here.hosts)[here.edge.name]
        assert login.key
        assert login.key.stat().st_mode & 0o077 == 0
        assert login.host_keys == "strict"

    def test_the_users_configuration_of_ssh_has_no_say(
        self, here: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        here.create()
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh/config").write_text("Host *\n  ProxyJump nowhere.invalid\n  RemoteCommand false\n  Port 1\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert run(here.maker, here.edge, "hostname") == here.edge.name
        command = [*ssh_command(here.maker.logins(here.hosts)[here.edge.name]), "hostname"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        assert done.stdout == f"{here.edge.name}\n"

    def test_nothing_is_left(self, here: Site) -> None:
        here.publish()
        here.create()
        assert here.leftovers()
        here.destroy()
        assert here.maker.machines() == []
        assert here.maker.logins(here.hosts) == {}
        here.nothing_is_left()

    def test_one_machine_of_two_can_go(self, here: Site) -> None:
        here.create()
        edge, other = here.hosts
        probe = f"timeout {10 * here.bench.slow} bash -c 'head -c4 </dev/tcp/{other.address}/22'"
        assert run(here.maker, edge, probe) == "SSH-"
        here.maker.destroy([other.name], quiet)
        assert here.maker.machines() == [edge.name]
        assert run(here.maker, edge, "hostname") == edge.name
        here.create()
        assert run(here.maker, other, "hostname") == other.name
        assert run(here.maker, edge, probe, timeout_s=20 * here.bench.slow) == "SSH-"

    def test_what_does_not_exist_can_be_destroyed(self, here: Site) -> None:
        here.maker.destroy([here.edge.name], quiet)
        assert here.leftovers() == []

    # Create again.

    def test_creating_again_changes_nothing(self, here: Site) -> None:
        here.create()
        before = {host: here.boot_id(host) for host in here.hosts}
        here.create()
        assert {host: here.boot_id(host) for host in here.hosts} == before

    def test_a_stopped_machine_keeps_its_disk(self, here: Site) -> None:
        here.create()
        before = here.boot_id(here.edge)
        run(here.maker, here.edge, "echo kept > /root/kept && sync && systemctl poweroff --no-block")
        eventually(lambda: here.bench.is_off(here.mesh, here.state), 60 * here.bench.slow, "the edge is off")
        here.create()
        assert run(here.maker, here.edge, "cat /root/kept") == "kept"
        assert here.boot_id(here.edge) != before

    def test_a_machine_made_anew_is_trusted_anew(self, here: Site) -> None:
        here.create()
        run(here.maker, here.edge, "echo old > /root/old")
        here.destroy()
        here.create()
        assert run(here.maker, here.edge, "ls /root") == ""

    # Killed in the middle.

    def test_a_killed_create_can_be_completed_or_undone(self, here: Site) -> None:
        for name, has_come in here.bench.moments.items():
            for then in (here.create, here.destroy):
                with operator(here.maker, "create", here.hosts) as process:
                    while not has_come(here.mesh, here.state):
                        assert process.poll() is None, f"{name}: it ended before"
                    process.kill()
                assert process.wait() == -signal.SIGKILL, name
                then()
                if then == here.create:
                    assert [run(here.maker, host, "hostname") for host in here.hosts] == list(here.mesh.hosts), name
                    here.destroy()
                here.nothing_is_left()

    def test_a_killed_destroy_can_be_completed_or_undone(self, here: Site) -> None:
        for then in (here.create, here.destroy):
            here.create()
            with operator(here.maker, "destroy", list(here.maker.machines())) as process:
                eventually(lambda: not _answers(here), 30 * here.bench.slow, "the edge is gone")
                process.kill()
            then()
            if then == here.create:
                assert [run(here.maker, host, "hostname") for host in here.hosts] == list(here.mesh.hosts)
        assert here.maker.machines() == []

    def test_two_creates_at_once_do_not_collide(self, here: Site) -> None:
        with operator(here.maker, "create", here.hosts) as one, operator(here.maker, "create", here.hosts) as other:
            assert (one.wait(), other.wait()) == (0, 0)
        assert [run(here.maker, host, "hostname") for host in here.hosts] == list(here.mesh.hosts)

    # Reboots.

    def test_all_reboot_at_once_and_come_back_by_themselves(self, here: Site) -> None:
        here.create()
        for _ in range(2):
            here.reboot(*here.hosts)
            for host in here.hosts:
                assert f" {host.address}/" in run(here.maker, host, "ip -4 -brief address")
        edge, other = here.hosts
        assert run(here.maker, edge, f"head -c4 </dev/tcp/{other.address}/22") == "SSH-"

    # Two meshes, wrong boxes.

    def test_two_meshes_do_not_meet(self, here: Site, bench: Bench, tmp_path: Path) -> None:
        here.create()
        with site(bench, tmp_path / "other", small_mesh(2)) as there:
            there.create()
            for each in (here, there):
                run(each.maker, each.edge, f"echo {each.mesh.identifier} > /root/mesh")
            for each in (here, there):
                assert run(each.maker, each.edge, "cat /root/mesh") == each.mesh.identifier
            only_there = there.hosts[-1]
            assert only_there.address not in {host.address for host in here.hosts}
            probe = f"timeout 5 bash -c 'head -c4 </dev/tcp/{only_there.address}/22' 2>/dev/null || echo refused"
            assert run(there.maker, there.edge, probe) == "SSH-"
            assert run(here.maker, here.edge, probe) == "refused"
            there.destroy()
        assert run(here.maker, here.edge, "cat /root/mesh") == here.mesh.identifier

    def test_a_missing_tool_is_named(self, here: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", path_without(here.bench.tool, tmp_path / "bin"))
        assert shutil.which(here.bench.tool) is None
        assert here.bench.tool in here.maker.missing()
        for work in (here.create, here.publish):
            (problem,) = problems_of(work)
            assert problem.code == "machines/tool-missing"
            assert f"`{here.bench.tool}`" in problem.what
            assert "apt-get install" in problem.hint
        monkeypatch.undo()
        assert here.leftovers() == []

    # Published ports.

    def test_published_ports_lead_to_the_edge(self, here: Site) -> None:
        here.publish()
        here.create()
        self._serve(here)
        for _ in range(2):
            assert get(here.mesh.publish.http) == "front"
            assert get(here.mesh.publish.admin) == "admin"
            here.publish()
        here.reboot(here.edge)
        self._serve(here)
        assert get(here.mesh.publish.http) == "front"
        assert get(here.mesh.publish.admin) == "admin"

    def test_published_ports_hold_many_connections(self, here: Site) -> None:
        here.create()
        here.publish()
        self._serve(here)
        answers: list[str] = []
        port = here.mesh.publish.http

        def ask() -> None:
            answers.extend([get(port, within_s=60) for _ in range(10)])

        threads = [threading.Thread(target=ask) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == ["front"] * 500

    def test_publishing_again_keeps_the_listeners(self, here: Site) -> None:
        here.create()
        here.publish()
        self._serve(here)
        with socket.create_connection(("127.0.0.1", here.mesh.publish.http)) as held:
            held.settimeout(10)
            held.sendall(b"GET / HTTP/1.0\r\n")
            here.publish()
            here.create()
            held.sendall(b"\r\n")
            assert held.recv(100).startswith(b"HTTP/1.0 200")

    def test_a_port_that_is_published_no_more_is_free(self, here: Site) -> None:
        here.publish()
        http, https = free_ports(2)
        here.maker.publish(here.edge, {http: 8080, https: 8443}, here.mesh.publish.admin)
        assert publish.published(here.state / "publish") == tuple(sorted((http, https, here.mesh.publish.admin)))
        publish.require_free(here.state, (here.mesh.publish.http, here.mesh.publish.https))

    def test_a_taken_port_is_told_before_anything_is_made(self, here: Site) -> None:
        taken = free_ports(1)[0]
        holder = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(taken)]
        with subprocess.Popen(holder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                eventually(lambda: get(taken))
                ports = {here.mesh.publish.http: 8080, taken: 8443}
                (problem,) = problems_of(lambda: here.maker.publish(here.edge, ports, here.mesh.publish.admin))
            finally:
                process.kill()
        assert problem.code == "machines/port-taken"
        assert str(taken) in problem.what
        assert f"pid {process.pid}" in problem.saw[0]
        assert "publish:" in problem.hint
        assert here.leftovers() == []

    @staticmethod
    def _serve(here: Site) -> None:
        """Answer `front` at 8080 of the edge's mesh address, `admin` at 8001 of its loopback."""
        address = str(here.edge.address)
        for text, where, port in (("front", address, 8080), ("admin", "127.0.0.1", 8001)):
            run(here.maker, here.edge, SERVER.format(text=text, address=where, port=port))
            probe = f"head -c0 </dev/tcp/{where}/{port} && echo yes"
            eventually(lambda probe=probe: run(here.maker, here.edge, probe) == "yes", 20 * here.bench.slow)  # type: ignore[misc]


def _answers(here: Site) -> bool:
    """Whether the edge can be logged in to."""
    try:
        return run(here.maker, here.edge, "true", timeout_s=5) == ""
    except (Failed, KeyError):
        return False
