"""Load on a mesh from a client host of its own: well-known generators, and every answer looked at.

    with load(lab) as seen:
        operation()
    assert seen.figures.lost == 0

The client host is a network namespace on the mesh's network: nothing that publishes ports of this box is on the way.
Clients go on until they find a file named `stop` in their folder, or end by themselves after `LONGEST_S`.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from envoymesh.machines import netns
from tests.figures import Figures, Sample, figures
from tests.labs import eventually
from tests.layers import ROOT
from tests.meshes import TestMesh

CLIENT = 250
"""The client host's address in the mesh's network."""

AROUND_S = 2.0
"""There is load for so long before the operation, and after it."""

LEAST_S, LONGEST_S = 12, 300
"""How long there is load at least, so that there are requests enough, and at most."""

PATIENCE_S = 30
"""How long a client waits for an answer."""

FIGURES = "ENVOYMESH_FIGURES"
"""Names a file in the environment to which a line of JSON is added for each load."""

BODY = "Hello from behind Envoy (service 1)! hostname: service1-# resolvedhostname: {network}.#\n"
"""What every answer must be, with `#` for a number."""


@dataclass(frozen=True)
class Site:
    """Where clients run and what they ask: a network namespace, a folder for their logs, the edge's address."""

    namespace: str
    folder: Path
    address: str

    def url(self, scheme: str) -> str:
        """Return the address of service 1."""
        return f"{scheme}://{self.address}:{8443 if scheme == 'https' else 8080}/service/1"

    @property
    def stop(self) -> Path:
        """The file that ends clients."""
        return self.folder / "stop"

    @property
    def body(self) -> str:
        """What every answer must be."""
        return BODY.format(network=self.address.rpartition(".")[0])

    def start(self, *argv: str, said: str) -> subprocess.Popen[bytes]:
        """Start a program on the client host, its output into a file; it does not outlive this process."""
        entering = ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net={netns.path(self.namespace)}"]
        with (self.folder / said).open("wb") as file:
            return subprocess.Popen(
                [*entering, *argv],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@dataclass(frozen=True)
class Clients:
    """Clients of one kind at work.

    Attributes:
        processes: what is run.
        samples: what became of each request, once the processes have ended.
        stops: whether they look for the file `stop`; else they are ended, and what they wait for does not count.
    """

    processes: Sequence[subprocess.Popen[bytes]]
    samples: Callable[[], list[Sample]]
    stops: bool = True


def wrk(site: Site, scheme: str, rate: int) -> Clients:
    """Requests over connections that are kept, each sent when it is due: HTTP/1.1."""
    each, logs = 10, site.folder / f"wrk-{scheme}"
    threads = rate // each
    logs.mkdir()
    pattern = re.sub(r"([^\w\s#])", r"%\1", site.body).replace("#", "%d+")
    plan = [str(site.stop), str(logs), str(LONGEST_S * each), str(1_000_000 // each), str(threads), f"^{pattern}$"]
    ends = [f"-d{LONGEST_S + PATIENCE_S}s", f"--timeout={PATIENCE_S}s"]
    # While a TLS connection cannot be made, wrk tries without a pause: this must not take the processors from hosts.
    argv = ["nice", "-n19", "wrk", f"-t{threads}", f"-c{threads}", *ends, "-s", "tests/load.lua"]
    process = site.start(*argv, site.url(scheme), "--", *plan, said=f"wrk-{scheme}.said")
    return Clients([process], lambda: [sample for log in logs.glob("[0-9]*") for sample in logged(log.read_text())])


SLICES = """
for slice in $(seq "$1"); do
  [ -e "$2" ] && break
  { echo "$EPOCHREALTIME"; h2load --log-file="$3.$slice.log" "${@:4}"; } > "$3.$slice.said" &
  sleep 1
done
wait
"""


def h2load(site: Site, scheme: str, protocol: str, rate: int) -> Clients:
    """Each request over a connection of its own, which is made when the request is due."""
    name, period_ms = f"h2load-{scheme}-{protocol}", 40
    paced = [f"--rate={rate * period_ms // 1000}", f"--rate-period={period_ms}ms"]
    argv = [*(["--h1"] if protocol == "h1" else []), f"-n{rate}", f"-c{rate}", f"-N{PATIENCE_S}s", *paced]
    told = [str(LONGEST_S), str(site.stop), str(site.folder / name), *argv, site.url(scheme)]
    process = site.start("bash", "-c", SLICES, "slices", *told, said=name)
    length = len(site.body.replace("#", "1")) + 1  # the host's part of the address has two digits

    def samples() -> list[Sample]:
        slices = [(log.read_text(), log.with_suffix(".said").read_text()) for log in site.folder.glob(f"{name}.*.log")]
        return [sample for log, said in slices for sample in sliced(log, said, rate, length)]

    return Clients([process], samples)


def sliced(log: str, said: str, count: int, length: int) -> list[Sample]:
    """Return what became of `count` requests.

    Args:
        log: a line for each that was answered: begun (microseconds since 1970), status, taken (microseconds).
        said: when it began (seconds since 1970), then h2load's summary: it tells how long all bodies are together.
        count: how many requests there were.
        length: of a body.
    """
    rows = [line.split() for line in log.splitlines()]
    found = [Sample(int(at) / 1e6, int(took) / 1e6, "" if code == "200" else code) for at, code, took in rows]
    at = float(said.partition("\n")[0])
    silent = [Sample(at, 0, "no answer")] * (count - len(found))
    good = sum(not sample.kind for sample in found)
    data = re.search(r"\((\d+)\) data", said)
    other = good == count and (data is None or int(data[1]) != count * length)
    return [*found, *silent, *([Sample(at, 0, "body")] if other else [])]


def curl(site: Site, scheme: str, rate: int) -> Clients:
    """Requests over connections that are kept for as long as the front lets them: HTTP/2."""
    each = 25
    words = ["-sk", "--http2", "--rate", f"{each}/s", "--max-time", str(PATIENCE_S)]
    url, begun = f"{site.url(scheme)}?[1-{LONGEST_S * each}]", time.time()
    written = ["--write-out", r"=%{http_code} %{http_version} %{time_total}\n"]
    names = [f"curl-{scheme}-{n}" for n in range(rate // each)]
    processes = [site.start("curl", *words, *written, url, said=name) for name in names]

    def samples() -> list[Sample]:
        texts = [(site.folder / name).read_text() for name in names]
        return [sample for text in texts for sample in written_out(text, site.body, begun, 1 / each)]

    return Clients(processes, samples, stops=False)


def written_out(text: str, body: str, begun: float, interval_s: float) -> Iterator[Sample]:
    """Yield what curl wrote: of each request the body, then a line. The next one begins an interval later, or after."""
    expected, free = re.compile(re.escape(body).replace(r"\#", r"\d+")), begun
    for got, code, version, took in re.findall(r"(?s)(.*?)=(\d{3}) ([\d.]+) ([\d.]+)\n", text):
        kind = code if code != "200" else "body" if not expected.fullmatch(got) else "" if version == "2" else version
        yield Sample(free, float(took), kind)
        free = max(free + interval_s, free + float(took))


def long_requests(site: Site) -> Clients:
    """Streamed answers and slow uploads, each client one after the other."""
    log = site.folder / "long.log"
    argv = [sys.executable, "-m", "tests.long_requests", site.url("http"), str(LONGEST_S), str(site.stop), str(log)]
    process = site.start(*argv, said="long")
    eventually(lambda: (site.folder / "long").read_text() == "begun\n", what="the long requests' begin")
    return Clients([process], lambda: list(logged(log.read_text())))


def logged(text: str) -> Iterator[Sample]:
    """Yield what is in a log: of each request when it was due and how long it took, in microseconds, and its kind."""
    for line in text.splitlines():
        at, took, *kind = line.split()
        yield Sample(int(at) / 1e6, int(took) / 1e6, *kind)


TRAFFIC: Mapping[str, Callable[[Site, float], Clients]] = {
    "long": lambda site, _: long_requests(site),
    "kept, HTTP/1.1": lambda site, share: wrk(site, "http", int(200 * share)),
    "kept, HTTP/1.1, TLS": lambda site, share: wrk(site, "https", int(150 * share)),
    "kept, HTTP/2, TLS": lambda site, share: curl(site, "https", int(150 * share)),
    "new, HTTP/1.1": lambda site, share: h2load(site, "http", "h1", int(250 * share)),
    "new, HTTP/1.1, TLS": lambda site, share: h2load(site, "https", "h1", int(150 * share)),
    "new, HTTP/2, TLS": lambda site, share: h2load(site, "https", "h2", int(100 * share)),
}
"""Requests a second over kept connections: 500; with a new connection each: 500. Beside these, long ones."""


class Load:
    """A load on a mesh, from `site`; when it has ended, `figures` tells what came of it."""

    figures: Figures

    def __init__(self, site: Site) -> None:
        self.site = site


@contextmanager
def load(lab: TestMesh, name: str, part: str = "", bound: str = "0", share: float = 1) -> Iterator[Load]:
    """Let clients ask for service 1 before, during and after what is done inside, which is called `name`.

    What came of it is kept where `FIGURES` says, for the part `part` of docs/reliability.md if that is one; `bound`
    tells there what may fail. `share` of the load is for tests that look for other things first: with all of it, many
    hosts on one box have no processor left.
    """
    with client_host(lab) as site:
        seen, started = Load(site), time.time()
        clients = {kind: start(site, share) for kind, start in TRAFFIC.items()}
        try:
            time.sleep(AROUND_S)
            begun = time.time()
            yield seen
            ended = time.time()
            time.sleep(max(AROUND_S, started + LEAST_S - ended))
            stop(site, clients.values())
        finally:
            for process in (process for kind in clients.values() for process in kind.processes):
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        samples = {kind: them.samples() for kind, them in clients.items()}
    assert ended - started < LONGEST_S, f"{name}: the load ended before it did: {ended - begun:.0f} s"
    for kind, found in samples.items():
        assert any(not s.kind for s in found), f"{name}: no good answer: {kind}"
        assert any(s.at > begun for s in found), f"{name}: no load: {kind}"
    seen.figures = figures(samples, begun, ended)
    if part and FIGURES in os.environ:
        with open(os.environ[FIGURES], "a") as file:
            file.write(json.dumps({"part": part, "name": name, "bound": bound, **asdict(seen.figures)}) + "\n")


def stop(site: Site, clients: Collection[Clients]) -> None:
    """End clients; those that wait for answers get them."""
    site.stop.touch()
    for process in (process for kind in clients if not kind.stops for process in kind.processes):
        process.terminate()
    for process in (process for kind in clients for process in kind.processes):
        process.wait(2 * PATIENCE_S)


@contextmanager
def client_host(lab: TestMesh) -> Iterator[Site]:
    """Give a host on the mesh's network, as far as clients need one: a network namespace."""
    mesh = lab.workspace.mesh
    name, address = f"{mesh.identifier}-client", mesh.machines.network[CLIENT]
    with tempfile.TemporaryDirectory() as folder, open(os.devnull) as lock:
        network = netns.Network(mesh.identifier, mesh.machines.network, lock.fileno())
        try:
            network.make(name)
            network.plug(name, address)
            yield Site(name, Path(folder), str(mesh.edges[0].address))
        finally:
            network.remove(name)
