"""The page on reliability: what came of each operation and fault under load."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

INTRODUCTION = """\
# Reliability

What clients notice of each operation and of each fault, while about a thousand requests a second meet
the mesh. `./mesh bench --case reliability` measures all of it and writes this file; the tests in
`tests/lab/test_no_request_lost.py` and `tests/lab/test_faults.py` hold it.

{box}.
"""

METHOD = """\
## How it is measured

- The load comes from a host of its own on the mesh's network, past nothing but the front: 500
  requests a second over connections that are kept (`wrk`: HTTP/1.1 with and without TLS; `curl`:
  HTTP/2) and 500 with a new connection each (`h2load`: HTTP/1.1 with and without TLS, HTTP/2). Beside
  these, 8 answers that are streamed for 5 s and 8 uploads that take 5 s are in flight at any time.
- A request is good when its status is 200 and its body is whole and the right one. h2load tells no
  bodies, but how long all of them were together, which is compared. curl asks again when a kept
  connection turns out to be closed before an answer has begun; wrk and h2load never do.
- wrk and h2load send when a request is due, whether others were answered or not; latency counts from
  then.
- The longest gap is that between two good answers to one kind of client, the longest of all kinds.
- p99 is that of good answers to requests from before, during and after the operation. Clients, hosts
  and the tool share the processors of one box: that the tool works at the same time is seen in it.
- Rows "without care" are the same load on the way how it is often done; it must see losses, or it is
  blind.
"""

HEAD = ("under load", "runs", "sent", "failed", "may fail", "longest gap", "p99 before", "during", "after")


@dataclass(frozen=True)
class Run:
    """What came of one operation or fault, as its test wrote it.

    Attributes:
        part: of the page.
        name: of the operation or fault.
        bound: what may fail, in words.
        sent: requests.
        failed: how many of these, by kind of client and what it got.
        longest_gap_s: between two good answers to one kind of client.
        p99_s: before, during and after.
    """

    part: str
    name: str
    bound: str
    sent: int
    failed: Mapping[str, int]
    longest_gap_s: float
    p99_s: Sequence[float]


def read(text: str) -> list[Run]:
    """Return what tests wrote, a JSON document a line; of each only what the page shows."""
    names = [field.name for field in fields(Run)]
    return [Run(**{name: told[name] for name in names}) for told in map(json.loads, text.splitlines())]


def document(runs: Sequence[Run], box: str, note: str) -> str:
    """Return docs/reliability.md; `note` is why the values are what they are."""
    parts = {run.part: [other for other in runs if other.part == run.part] for run in runs}
    tables = (f"## {part}\n\n{table(those)}" for part, those in parts.items())
    return "\n".join([INTRODUCTION.format(box=box), *tables, METHOD, f"{note.strip()}\n"])


def table(runs: Sequence[Run]) -> str:
    """Return a table in Markdown, with a line for each operation."""
    of_each = {run.name: [other for other in runs if other.name == run.name] for run in runs}
    lines = [HEAD, ("---",) * len(HEAD), *(_cells(those) for those in of_each.values())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cells(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the line of one operation: of its runs all requests, the longest gap, and the median of each p99."""
    lost = [sum(run.failed.values()) for run in runs]
    latencies = (f"{statistics.median(run.p99_s[i] for run in runs) * 1000:.0f} ms" for i in range(3))
    return (
        runs[0].name.replace("_", " "),
        str(len(runs)),
        f"{sum(run.sent for run in runs):,}",
        ", ".join(map(str, lost)) if any(lost) else "0",
        runs[0].bound,
        f"{max(run.longest_gap_s for run in runs):.1f} s",
        *latencies,
    )
