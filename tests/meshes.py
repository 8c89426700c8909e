"""A mesh for tests: an inventory of its own, and the project's own commands run on it as a person would."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from envoymesh.problems import of_inventory
from envoymesh.run.interrupt import STOPS
from envoymesh.run.workspace import Workspace, open_workspace
from tests.labs import eventually, free_ports, run
from tests.layers import ROOT

INVENTORY = """\
# A mesh of the tests.
name: {name}
provider: {provider}
publish: {{http: {http}, https: {https}, admin: {admin}}}
machines: {{network: {network}{machines}}}
rollout: {{canary: 0}}
services:
  service1: {{path: /service/1}}
  service2: {{path: /service/2}}
hosts:
  front-envoy: {{role: edge, address: {prefix}.10}}
  service1-1: {{service: service1, address: {prefix}.21}}
  service2-1: {{service: service2, address: {prefix}.31}}
"""
"""Without canaries, hosts of different services change together, which saves each test seconds."""


FRONT, SIDECAR, APP = "envoymesh-front.service", "envoymesh-sidecar.service", "'envoymesh-app*'"
"""Units of hosts, for a shell: those of the application by a pattern that `systemctl` takes."""


class TestMesh:
    """An inventory in a folder of its own, and what a person does with it.

    Attributes:
        checkout: where the project's commands are run: another checkout has other templates.
    """

    __test__ = False
    checkout = ROOT

    def __init__(self, folder: Path, *, provider: str, network: int, machines: str = "") -> None:
        self.folder = folder
        self.inventory = folder / "inventory.yaml"
        self.http, self.https, self.admin = free_ports(3)
        prefix = f"10.{network}.0"
        self.inventory.write_text(
            INVENTORY.format(
                name=f"t{network}",
                provider=provider,
                http=self.http,
                https=self.https,
                admin=self.admin,
                network=f"{prefix}.0/24",
                prefix=prefix,
                machines=machines,
            )
        )

    @property
    def workspace(self) -> Workspace:
        """The inventory as it is now."""
        return open_workspace(self.inventory)

    def argv(self, *words: str) -> list[str]:
        """Return the command line of a task on this mesh; words that are not the task's come after its name."""
        return [sys.executable, "-m", "invoke", words[0], "--inventory", str(self.inventory), *words[1:]]

    def own(self, text: str) -> str:
        """Return a text as the tool prints it for this inventory: its commands name it."""
        return of_inventory(text, str(self.inventory))

    def width(self, text: str) -> int:
        """Return how wide a text of the tool would be for an inventory in the folder where it is run."""
        return max(map(len, text.replace(f" --inventory {self.inventory}", "").splitlines()))

    def run(self, *words: str, code: int | None = 0, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a task; it must exit with `code`, unless that is None."""
        done = subprocess.run(
            self.argv(*words),
            cwd=self.checkout,
            capture_output=True,
            check=False,
            text=True,
            timeout=timeout_s,
        )
        assert code in (None, done.returncode), (
            f"{words}: exit {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a task as a terminal would, and return it while it runs, its error output as a pipe.

        Where the tests run in the background of a shell, they ignore Ctrl-C, and so would the task.
        """
        return subprocess.Popen(
            ["env", "--default-signal=INT", *self.argv(*words)],
            cwd=self.checkout,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def on(self, host: str, command: str, code: int = 0) -> str:
        """Run a command on a host; it must exit with `code`; return what it printed."""
        return self.run("exec", host, command, code=code).stdout

    def on_all(self, script: str) -> list[str]:
        """Run a script on all hosts at once, over a login of the provider; return what each printed."""
        workspace = self.workspace
        with ThreadPoolExecutor() as pool:
            return list(pool.map(lambda host: run(workspace.provider, host, script), workspace.mesh.hosts.values()))

    def stop_envoys(self) -> None:
        """Stop all Envoys: what puts the mesh back then starts them, and need not wait until those before have gone."""
        self.on_all("systemctl stop 'envoymesh-[fs]*'")

    def none_drains(self) -> None:
        """Start all Envoys anew: the next hot restart has none to wait for that the last one has left to drain."""
        self.on_all("systemctl restart 'envoymesh-[fs]*'")
        eventually(lambda: self.get("/service/1")[0] == 200, what="an answer of all that was started anew")

    def application(self, host: str) -> str:
        """Return the name of the unit of a host's application."""
        return self.on(host, "basename /etc/systemd/system/envoymesh-app*.service").strip()

    def get(self, path: str, timeout_s: float = 10) -> tuple[int, str]:
        """Return status and body of a request to the front at its published port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=timeout_s)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def release(self) -> str | None:
        """Return the release of service 1 that answers, as tests/releases.py has it tell."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.http, timeout=10)) as connection:
            connection.request("GET", "/service/1")
            return connection.getresponse().getheader("release")

    def hostnames(self, service: str, requests: int = 40) -> set[str]:
        """Return the host names that answer for a service."""
        bodies = [self.get(f"/service/{service[-1]}")[1] for _ in range(requests)]
        return {body.split("hostname: ")[1].split()[0] for body in bodies if "hostname: " in body}

    def stat(self, name: str) -> int:
        """Return one of the front's counters."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)) as connection:
            connection.request("GET", f"/stats?filter=^{name}$")
            return int(connection.getresponse().read().decode().partition(": ")[2])

    def executions(self, host: str) -> int:
        """Return how many commands the host's sshd was asked to run so far."""
        text = self.on(
            host, "journalctl --sync && journalctl -u ssh -o cat --no-pager | grep -c 'Starting session: command'"
        )
        return int(text)


@contextmanager
def up(folder: Path, **settings: Any) -> Iterator[TestMesh]:
    """A mesh that is up and passes its check; gone afterwards, whatever happens."""
    mesh = TestMesh(folder, **settings)
    try:
        mesh.run("up")
        yield mesh
    finally:
        mesh.run("down")


@contextmanager
def edited(mesh: TestMesh, path: str, old: str, new: str) -> Iterator[None]:
    """Let the mesh be run from a checkout in which `old` is `new` in one file."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(".*", "tests", "docs"))
        text = (copy / path).read_text()
        assert old in text
        (copy / path).write_text(text.replace(old, new))
        mesh.checkout = copy
        try:
            yield
        finally:
            mesh.checkout = ROOT


HOLDER = """
import sys, time
from pathlib import Path
from envoymesh.run.lock import read_to_change
from envoymesh.run.provision import desired_of
from envoymesh.run.workspace import open_workspace
workspace = open_workspace(Path(sys.argv[1]), message="the night's work")
hosts = [workspace.mesh.hosts[name] for name in sys.argv[2:]]
with workspace.fleet(hosts) as fleet:
    read_to_change(workspace, fleet, desired_of(workspace, hosts), print)
    print("has it", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(lab: TestMesh, *hosts: str) -> Iterator[subprocess.Popen[str]]:
    """Another operator's process that has the lock of hosts until its standard input ends."""
    argv = [sys.executable, "-c", HOLDER, str(lab.inventory), *hosts]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "has it" in process.stdout.read(7)
            yield process
        finally:
            process.kill()


def cut_off(lab: TestMesh, how: signal.Signals, step: str, *words: str, is_last: bool = False) -> str:
    """Run a task and end it when it tells of `step`, a regular expression, by a signal to all of its processes.

    Returns:
        What it told.

    After its last step a task may be faster than the signal, and end well; so may what handles signals in it. Where
    it takes the first Ctrl-C for a wish, it gets another one.
    """
    with lab.start(*words) as process:
        assert process.stderr is not None
        told: list[str] = []
        was_there = False
        try:
            for line in process.stderr:
                told.append(line)
                if not was_there and re.search(step, line):
                    was_there = True
                    os.killpg(process.pid, how)
                elif was_there and how is signal.SIGINT and STOPS in line:
                    os.killpg(process.pid, how)
            process.wait(timeout=60)
        finally:
            process.kill()
    errors = "".join(told)
    assert was_there, f"it never told of {step}:\n{errors}"
    assert "Traceback" not in errors
    if is_last and process.returncode in (0, -how):
        return errors
    if how is signal.SIGINT:
        assert process.returncode == 1, errors
        # The host in hand may be done before the second Ctrl-C comes: then the first one has stopped the run.
        assert "problem run/interrupted: " in errors or STOPS in errors
    else:
        assert process.returncode == -how
    return errors


def document(text: str) -> Any:
    """Return the JSON document that a task printed."""
    return json.loads(text)
