"""The data path's case: its figures by contestant and number of connections, what must be reached, and its table."""

from collections.abc import Mapping, Sequence

from benchmarks.samples import Series, ratio
from benchmarks.variants import VARIANTS

APPLICATION, SANDBOX, MESH = "application alone", "sandbox", "envoymesh"
CONTESTANTS = (APPLICATION, SANDBOX, MESH)
CONNECTIONS = (1, 32, 256)

FIGURES = {
    "requests": " /s",
    "p50": " ms",
    "p99": " ms",
    "envoys": " µs",
    "app": " µs",
    "front": " MiB",
    "sidecar": " MiB",
}
"""Each figure and its unit: requests per second, their times, processor time of both Envoys and of the application for
each request, memory (RSS) of each Envoy."""

BESIDE = "beside"
"""Requests per second, in times those of the mesh's own configuration, which was sampled right before."""

HEAD = ("open", "contestant", "requests", "p50", "p99", "CPU: Envoys", "app", "RSS: front", "sidecar")

SETTINGS_HEAD = ("configuration", "requests", f"of {MESH}'s", "p50", "p99", "CPU: Envoys")
OPEN = 32
"""How many connections there are when single settings are compared."""


def settings_rows(measured: Mapping[str, Series]) -> list[Sequence[str]]:
    """Return a line for the mesh's configuration, each variant of it, and the sandbox's, with medians."""
    figures = ("requests", BESIDE, "p50", "p99", "envoys")
    return [(name, *(_cell(measured, name, OPEN, f) for f in figures)) for name in (MESH, *VARIANTS, SANDBOX)]


def beside(own: Mapping[str, float], other: Mapping[str, float], name: str) -> dict[str, float]:
    """Return a sample of another configuration with its requests in times those of the mesh's own sample."""
    times = requests(other, name, OPEN) / requests(own, MESH, OPEN)
    return {**other, key(name, OPEN, BESIDE): times}


def key(contestant: str, connections: int, figure: str) -> str:
    """Return the name of a series."""
    return f"{contestant}, {connections} connections, {figure}"


def unit(series: str) -> str:
    """Return the unit of a series."""
    return {**FIGURES, BESIDE: " times"}[series.rpartition(", ")[2]]


def requests(of: Mapping[str, float], contestant: str, connections: int) -> float:
    """Return how many requests per second a contestant answers."""
    return of[key(contestant, connections, "requests")]


def rows(measured: Mapping[str, Series]) -> list[Sequence[str]]:
    """Return a line for each number of connections and each contestant, with medians."""
    return [
        (str(connections), contestant, *(_cell(measured, contestant, connections, figure) for figure in FIGURES))
        for connections in CONNECTIONS
        for contestant in CONTESTANTS
    ]


def _cell(measured: Mapping[str, Series], contestant: str, connections: int, figure: str) -> str:
    series = measured.get(key(contestant, connections, figure))
    if series is None:
        return "-"
    return ratio(series.median, series.unit)
