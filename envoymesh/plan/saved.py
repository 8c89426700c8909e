"""Saved plans: a plan's document with marks of what it was made from, so that it is made true as it is, or not at all.

A mark is a digest: what a file is to hold, a private key perhaps, cannot be told from it. Pure.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from envoymesh.model.mesh import HostName, Mesh, Rollout
from envoymesh.plan.change import HostPlan
from envoymesh.plan.generation import Run
from envoymesh.plan.observed import Observed
from envoymesh.problems import Failed, Problem, counted, listed
from envoymesh.resources import File, Validation

FORMAT = 1
"""The version of the section `saved`; one that is not the tool's is refused."""

MOST_NAMES = 5
"""So many hosts are named in one sentence."""

Known = Mapping[HostName, tuple[Observed, HostPlan]]


@dataclass(frozen=True)
class Mark:
    """What one host's plan was made from and says: `generation` as it was read, the others are digests."""

    generation: str
    observed: str
    desired: str
    changes: str


@dataclass(frozen=True)
class SavedPlan:
    """A plan that was saved: where it is, how it is rolled out, and the marks of every host that was known."""

    at: str
    rollout: Rollout
    hosts: Mapping[HostName, Mark]


def mark(observed: Observed, plan: HostPlan) -> Mark:
    """Return the mark of a host's plan. What its Envoy answered counts by what the plan makes of it."""
    paths = (f"{path} {there!r}" for path, there in sorted(observed.paths.items()))
    units = (f"{name} {unit!r}" for name, unit in sorted(observed.units.items()))
    artifacts = (f"{path} {digest}" for path, digest in sorted(observed.artifacts.items()))
    names = (*sorted(observed.users), *sorted(observed.manifest))
    wanted = (
        f"{r!r} {r.sha256 if isinstance(r, File) else ''} {plan.digests.get(r.address, '')}"
        for r in plan.desired
        if not isinstance(r, Validation)  # of the same files, by the same program
    )
    changes = (f"{c.address} {c.action} {c.because} {c.effect} {c.diff}" for c in plan.changes)
    return Mark(
        generation=plan.generation,
        observed=_digest([repr(observed.platform), *paths, *units, *artifacts, *names]),
        desired=_digest(wanted),
        changes=_digest(changes),
    )


def sealed(document: Mapping[str, Any], mesh: Mesh, known: Known, run: Run) -> str:
    """Return the text of a plan's document with what it was made from, and a digest that shows an edit by hand."""
    saved = {
        "format": FORMAT,
        "mesh": mesh.identifier,
        "who": run.who,
        "at": run.at.isoformat(),
        "rollout": asdict(mesh.rollout),
        "hosts": {host: asdict(mark(*what)) for host, what in known.items()},
    }
    whole = {**document, "saved": saved}
    return json.dumps({**whole, "digest": _digest([_canonical(whole)])}, indent=2) + "\n"


def opened(text: str, at: str, mesh: Mesh) -> SavedPlan:
    """Return the plan in a file's text.

    Raises:
        Failed: it is no plan, of another version, of another mesh, or was edited; `at` is its path.
    """
    try:
        document = json.loads(text)
        saved, digest = document["saved"], document.pop("digest")
        its_format = saved["format"]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _refused("unreadable", "this file is no saved plan", at) from None
    if its_format != FORMAT:
        saw = f"format {its_format}; this release has {FORMAT}"
        raise _refused("unknown-version", "another release of the tool has saved this plan", at, saw)
    if digest != _digest([_canonical(document)]):
        raise _refused("edited", "this plan was changed or damaged after it was saved", at)
    if saved["mesh"] != mesh.identifier:
        saw = f"made for {saved['mesh']}, this is {mesh.identifier}: a mesh is its name and where its inventory lies"
        raise _refused("other-mesh", "this plan is of another mesh", at, saw)
    hosts = {HostName(host): Mark(**values) for host, values in saved["hosts"].items()}
    gone = [host for host in hosts if host not in mesh.hosts]
    if gone:
        raise _refused("inventory-changed", f"the inventory has {_few(gone)} no more", at)
    return SavedPlan(at, Rollout(**saved["rollout"]), hosts)


def refuse_what_differs(saved: SavedPlan, known: Known) -> None:
    """Refuse a saved plan where one that is made now is another; hosts that are not `known` now are not judged.

    Raises:
        Failed: what is wanted of a host is not what it was, or a host is not as it was.
    """
    now = {host: mark(*known[host]) for host in saved.hosts if host in known}
    wanted = [host for host, its in now.items() if its.desired != saved.hosts[host].desired]
    if wanted:
        what = f"what {_few(wanted)} shall have is not what it was when this plan was made"
        saw = "the inventory, its certificates or the tool's own roles and templates are others"
        raise _refused("inventory-changed", what, saved.at, saw, limit=wanted)
    moved = {host: why for host, its in now.items() if (why := _moved(saved.hosts[host], its))}
    if moved:
        what = f"{_few(list(moved))} moved since this plan was made"
        saws = [f"{host}: {why}" for host, why in moved.items()]
        raise _refused("host-moved", what, saved.at, *saws, limit=list(moved))


def _moved(then: Mark, now: Mark) -> str:
    """Return how a host is not as it was, in words; empty when it is."""
    if then.generation != now.generation:
        return "another apply has changed it"
    if then.observed != now.observed:
        return "something on it was changed by hand, or was started or stopped"
    return "" if then.changes == now.changes else "what its Envoy has loaded is not what it was"


def _refused(code: str, what: str, at: str, *saw: str, limit: Sequence[str] = ()) -> Failed:
    hint = "make a new one, and read it: ./mesh plan --out FILE"
    if limit:
        named = f" --limit {','.join(limit)}" if len(limit) <= MOST_NAMES else ""
        hint = f"see what would change now: ./mesh plan{named}\n{hint}"
    return Failed(Problem(f"plan/{code}", what, at, saw, "nothing was changed", hint))


def _few(hosts: Sequence[HostName]) -> str:
    return listed(hosts) if len(hosts) <= MOST_NAMES else counted(len(hosts), "host")


def _canonical(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(lines).encode(errors="surrogateescape")).hexdigest()
