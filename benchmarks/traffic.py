"""Traffic: requests over the data path, and what they cost the processes on it."""

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from string import Template

from ruamel.yaml import YAML

from benchmarks.contestants import PAYLOAD
from benchmarks.hosts import ROOT, Hosts, entering
from benchmarks.measure import NOTHING_WRITTEN, Command, run
from benchmarks.path import APPLICATION, FIGURES, MESH, SANDBOX, key
from benchmarks.variants import FILES, Edit
from envoymesh.problems import Failed, Problem

FRONT, SIDECAR = "front-envoy", "service1-1"
SECONDS = 2
PATH = "/service/1"
CONFIG = "/etc/envoymesh"
TICKS_PER_S = 100
"""proc(5) counts processor time in these (USER_HZ)."""

WHERE = """\
exec 3<>/dev/tcp/127.0.0.1/8001
printf 'GET /clusters HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3
grep -ao -m 1 '^local_service::127[^:]*:[0-9]*' <&3
"""

COST = """\
for unit in {units}; do
    pid=$(systemctl show -p MainPID --value "$unit")
    [ "$pid" != 0 ] || exit 1
    echo "$(cut -d ' ' -f 14,15 /proc/$pid/stat) $(grep VmRSS: /proc/$pid/status | tr -dc 0-9)"
done
"""


PUT = """\
cat > {path}.new && chmod 0644 {path}.new && mv {path}.new {path}
for i in $(seq 100); do
    exec 3<>/dev/tcp/127.0.0.1/8001
    printf 'GET /stats?type=TextReadouts HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3
    ! grep -aq '"{version}"' <&3 || exit 0
    sleep 0.05
done
exit 1
"""


@dataclass(frozen=True)
class Cost:
    """What a process has taken: processor time in seconds, and memory now (RSS, MiB)."""

    cpu_s: float
    mib: float


class Traffic:
    """The data path of a mesh with one service host, and beside it the sandbox's on the same hosts and Envoy."""

    def __init__(self, made: Hosts) -> None:
        self._made = made
        where = self._on(SIDECAR, WHERE).removeprefix("local_service::")
        self._app_address, _, self._app_port = where.strip().partition(":")
        units = self._on(SIDECAR, "systemctl list-units --plain --no-legend 'envoymesh-app*' | cut -d ' ' -f 1").split()
        self._units = {
            APPLICATION: {SIDECAR: units},
            SANDBOX: {FRONT: ["bench-front"], SIDECAR: ["bench-sidecar", *units]},
            MESH: {FRONT: ["envoymesh-front"], SIDECAR: ["envoymesh-sidecar", *units]},
        }

    def start_sandbox(self) -> None:
        """Start the sandbox's two Envoys beside the mesh's, from the same binary and with as many workers."""
        values = {"sidecar": self._made.addresses[SIDECAR], "address": self._app_address, "port": self._app_port}
        for host, name, base_id in ((SIDECAR, "sidecar", 12), (FRONT, "front", 11)):
            text = Template((PAYLOAD / "sandbox" / f"{name}.yaml").read_text("utf-8")).substitute(values)
            script = (
                f"cat > /run/bench-{name}.yaml && systemd-run --quiet --unit=bench-{name} "
                f"$(ls /opt/envoymesh/envoy/*/envoy) -c /run/bench-{name}.yaml --base-id {base_id} --concurrency 1"
            )
            self._on(host, script, text)

    @contextmanager
    def changed(self, edit: Edit) -> Iterator[None]:
        """Have front and sidecar work with files that are changed in this way; they get theirs back in the end."""
        before = {path: self._on(_host_of(path), f"cat {CONFIG}/{path}") for path in FILES}
        after = {path: _edited(path, text, edit) for path, text in before.items()}
        differing = [path for path in FILES if after[path] != _edited(path, before[path], lambda path, content: None)]
        try:
            self._put({path: after[path] for path in differing})
            yield
        finally:
            self._put({path: before[path] for path in differing})

    def _put(self, texts: Mapping[str, str]) -> None:
        for path, text in texts.items():
            version = YAML(typ="safe", pure=True).load(text)["version_info"]
            self._on(_host_of(path), PUT.format(path=f"{CONFIG}/{path}", version=version), text)

    def sample(self, contestant: str, connections: int, name: str = "") -> Mapping[str, float]:
        """Send requests for some seconds; return each figure under its series' name: the contestant's, or another one.

        Raises:
            Failed: a request failed, or none was answered.
        """
        before = self._costs(contestant)
        wrk = json.loads(run(self._wrk(contestant, connections)).stdout.splitlines()[-1])
        after = self._costs(contestant)
        if wrk["failed"] or not wrk["requests"]:
            saw = (f"{wrk['requests']} requests, {wrk['failed']} of them failed",)
            raise Failed(Problem("bench/contestant", f"{contestant} did not answer", saw=saw, now=NOTHING_WRITTEN))
        each = [(b.cpu_s - a.cpu_s) / wrk["requests"] * 1e6 for a, b in zip(before, after, strict=True)]
        figures = {"requests": wrk["requests"] / wrk["seconds"], "p50": wrk["p50"] * 1e3, "p99": wrk["p99"] * 1e3}
        figures["app"] = each[-1]
        if contestant != APPLICATION:
            figures |= {"envoys": each[0] + each[1], "front": after[0].mib, "sidecar": after[1].mib}
        return {key(name or contestant, connections, f): figures[f] for f in FIGURES if f in figures}

    def _wrk(self, contestant: str, connections: int) -> Command:
        front = self._made.addresses[FRONT]
        namespace, place = {
            APPLICATION: (f"{self._made.near}-{SIDECAR}", f"{self._app_address}:{self._app_port}"),
            SANDBOX: (self._made.near, f"{front}:18080"),
            MESH: (self._made.near, f"{front}:8080"),
        }[contestant]
        load = ["-t1", f"-c{connections}", f"-d{SECONDS}s", "-s", str(PAYLOAD / "figures.lua")]
        return Command("wrk", entering(namespace, ["wrk", *load, f"http://{place}{PATH}"]), ROOT)

    def _costs(self, contestant: str) -> list[Cost]:
        """Return what the processes on the path have taken: front, sidecar, application, those that there are."""
        lines = [
            line.split()
            for host, units in self._units[contestant].items()
            for line in self._on(host, COST.format(units=" ".join(units))).splitlines()
        ]
        return [Cost((int(user) + int(system)) / TICKS_PER_S, int(kib) / 1024) for user, system, kib in lines]

    def _on(self, host: str, script: str, stdin: str = "") -> str:
        """Run a script of bash as root on a host; return what it printed."""
        made = self._made
        options = [
            "-F",
            "none",
            "-i",
            str(made.key),
            "-o",
            f"UserKnownHostsFile={made.known_hosts}",
            "-o",
            "BatchMode=yes",
        ]
        argv = entering(made.near, ["ssh", *options, f"root@{made.addresses[host]}", script])
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            saw = tuple((done.stdout + done.stderr).splitlines()[-9:])
            raise Failed(Problem("bench/host", f"`{host}` could not be asked", saw=saw, now=NOTHING_WRITTEN))
        return done.stdout


def _host_of(path: str) -> str:
    return FRONT if path.startswith("front/") else SIDECAR


def _edited(path: str, text: str, edit: Edit) -> str:
    """Return one of Envoy's files after an edit, as JSON with a version of its own."""
    content = YAML(typ="safe", pure=True).load(text)
    edit(path, content)
    content["version_info"] = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    return json.dumps(content, indent=1)
