"""Plans and outcomes: one JSON document, and the text that is drawn from that document and from nothing else.

docs/plan.md describes the documents field by field; fields are only ever added to them.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from envoymesh.events import Outcome, OutcomeKind, Planned
from envoymesh.plan.change import Action, Change
from envoymesh.plan.effects import MEANS, Effect, worst
from envoymesh.problems import ExitCode, counted, listed
from envoymesh.report.table import WIDTH
from envoymesh.report.terminal import problem_json

Document = dict[str, Any]
Line = tuple[str, str]
"""A line for people, and its style."""

MOST_DIFFS = 3
"""So many different diffs of one change are shown; hosts with further ones are counted."""

MOST_LINES = 8
"""So many hosts with the same good outcome have a line each; more of them are counted."""

MOST_BATCHES = 10


def plan_document(planned: Planned, exit_code: ExitCode, following: str) -> Document:
    """Return a plan as data; `following` is the command that makes it true."""
    changes = [c for o in planned.outcomes for c in o.changes]
    hosts = [_host(o) | {"new": o.host in planned.new} for o in planned.outcomes]
    return {
        **_document(hosts, exit_code, following if changes else ""),
        "effects": {e: {"changes": n, "means": MEANS[e]} for e in Effect if (n := sum(c.effect is e for c in changes))},
        "batches": [list(batch) for batch in planned.batches],
        "rollout": asdict(planned.rollout),
        "not_in_limit": list(planned.left_out),
    }


def outcomes_document(outcomes: Sequence[Outcome], exit_code: ExitCode, following: str) -> Document:
    """Return what became of hosts as data; `following` is the command to go on with, if there is one."""
    return _document([_host(o) for o in outcomes], exit_code, following)


def _document(hosts: list[Document], exit_code: ExitCode, following: str) -> Document:
    counts = {kind: sum(h["outcome"] == kind for h in hosts) for kind in OutcomeKind}
    return {
        "version": 1,
        "exit_code": int(exit_code),
        "hosts": hosts,
        "counts": {"changes": sum(len(h["changes"]) for h in hosts), **counts},
        "next": following,
    }


def _host(outcome: Outcome) -> Document:
    return {
        "host": outcome.host,
        "outcome": outcome.kind,
        "effect": worst([c.effect for c in outcome.changes]),
        "changes": [_change(c) for c in outcome.changes],
        "problem": problem_json(outcome.problem) if outcome.problem else None,
    }


def _change(change: Change) -> Document:
    return {
        "address": change.address,
        "action": change.action,
        "because": change.because,
        "effect": change.effect,
        "diff": change.diff,
    }


def plan_lines(document: Document) -> Iterator[Line]:
    """Yield a plan as text: what changes, in which order, what does not, and what all that costs."""
    changing = [h for h in document["hosts"] if h["changes"]]
    for same in _grouped(changing):
        yield from _group_lines(same)
        yield "", ""
    yield from _batch_lines(document["batches"], document["rollout"])
    yield from _effect_lines(document["effects"])
    yield from _untouched_lines(document)
    yield _closing(document["counts"], len(changing)), "bold"
    yield from _next_lines(document)


_MARKS = {Action.CREATE: "+", Action.START: "+", Action.DELETE: "-"}
_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}
_EFFECT_STYLES: dict[str, str] = {
    Effect.DRAIN: "yellow",
    Effect.HOT_RESTART: "yellow",
    Effect.RESTART: "yellow",
    Effect.STOP: "red",
}
_OUTCOME_STYLES = {OutcomeKind.UNCHANGED: "dim", OutcomeKind.CHANGED: "green"}


def _grouped(hosts: Sequence[Document]) -> list[list[Document]]:
    """Return the hosts in groups that have the same steps; their diffs may differ."""
    groups: dict[Any, list[Document]] = {}
    for host in hosts:
        steps = ((c["address"], c["action"], c["because"], c["effect"]) for c in host["changes"])
        groups.setdefault((host["new"], *steps), []).append(host)
    return list(groups.values())


def _group_lines(hosts: Sequence[Document]) -> Iterator[Line]:
    first, each = hosts[0], " each" if len(hosts) > 1 else ""
    new = f", {'new hosts' if each else 'a new host'}" if first["new"] else ""
    count = counted(len(first["changes"]), "change")
    for line in _wrapped(f"{folded([h['host'] for h in hosts])}{new}: {count}{each}{_effect_of(first)}", "  "):
        yield line, "bold"
    for number, change in enumerate(first["changes"]):
        effect = "" if change["effect"] == Effect.NONE else f"  [{change['effect']}]"
        because = "" if first["new"] else f"  ({change['because']})"
        text = f"  {_MARKS.get(change['action'], '~')} {change['action']:<8} {change['address']}{because}{effect}"
        for line in _wrapped(text, " " * 13):
            yield line, _EFFECT_STYLES.get(change["effect"], "")
        if not first["new"]:
            yield from _diff_lines([(h["host"], h["changes"][number]["diff"]) for h in hosts])
    if first["new"]:
        yield "    what will be in these files: --json", ""


def _effect_of(host: Document) -> str:
    return "" if host["effect"] == Effect.NONE else f", {host['effect']}"


def _diff_lines(diffs: Sequence[tuple[str, str]]) -> Iterator[Line]:
    """Yield one of the diffs that are alike, with the hosts that have it where they are not all."""
    alike: dict[str, dict[str, str]] = {}
    for host, diff in diffs:
        alike.setdefault(_without_own(host, diff), {})[host] = diff
    for having in list(alike.values())[:MOST_DIFFS]:
        first = next(iter(having.values()))
        same = [host for host, diff in having.items() if diff == first]
        others = [host for host in having if host not in same]
        if others or len(alike) > 1:
            also = f", and on {folded(others)} with other names, addresses and digests" if others else ""
            yield from ((line, "dim") for line in _wrapped(f"      on {folded(same)}{also}:", " " * 8))
        yield from ((_shown(f"      {line}"), _DIFF_STYLES.get(line[:1], "")) for line in first.splitlines())
    more = sum(len(having) for having in list(alike.values())[MOST_DIFFS:])
    if more:
        yield f"      and {counted(more, 'more host')} with other diffs: --limit HOST, or --json", "dim"


def _without_own(host: str, diff: str) -> str:
    """Return a diff without what is each host's own: its name, addresses, and digests made from them."""
    return re.sub(rf"\b{re.escape(host)}\b|\b\d+(\.\d+){{3}}\b|\b[0-9a-f]{{16,}}\b", "*", diff)


def _batch_lines(batches: Sequence[Sequence[str]], rollout: Document) -> Iterator[Line]:
    if len(batches) < 2:
        return
    settings = ", ".join(f"{name} {value}" for name, value in rollout.items())
    yield f"in {len(batches)} batches, each found healthy before the next begins ({settings}):", "bold"
    shown = batches if len(batches) <= MOST_BATCHES else batches[: MOST_BATCHES - 1]
    for number, batch in enumerate(shown, 1):
        yield from ((line, "") for line in _wrapped(f"  {number:>3}  {folded(batch)}", " " * 7))
    if len(shown) < len(batches):
        hosts = counted(sum(map(len, batches[len(shown) :])), "host")
        yield f"  ...  {len(batches) - len(shown)} more batches, {hosts}: --json", ""
    yield "", ""


def _effect_lines(effects: Document) -> Iterator[Line]:
    if effects:
        yield "what the changes do to what serves:", "bold"
        for name, effect in effects.items():
            yield f"  {name:<11} {effect['changes']:>5}  {effect['means']}", _EFFECT_STYLES.get(name, "")
        yield "", ""


def _untouched_lines(document: Document) -> Iterator[Line]:
    """Yield whom the plan leaves alone, by name where they are few, and of whom nothing is known."""
    same = [h["host"] for h in document["hosts"] if h["outcome"] == OutcomeKind.UNCHANGED]
    same = same if len(same) <= MOST_LINES else []  # the count at the end says it
    left_out = document["not_in_limit"] if document["hosts"] else []  # then that is all there is to say
    for what, hosts in (("as desired", same), ("not in --limit", left_out)):
        if hosts:
            who = folded(hosts) if len(hosts) <= MOST_LINES else counted(len(hosts), "host")
            yield from ((line, "dim") for line in _wrapped(f"{what}: {who}", "  "))
    unknown: dict[tuple[str, str], list[str]] = {}
    for host in document["hosts"]:
        if host["problem"]:
            unknown.setdefault((host["outcome"], host["problem"]["code"]), []).append(host["host"])
    for (outcome, code), hosts in unknown.items():
        yield from ((line, "red") for line in _wrapped(f"{outcome}: {folded(hosts)} ({code})", "  "))


def _closing(counts: Document, changing: int) -> str:
    """Return `2 changes on 1 host; 3 hosts as desired`."""
    changes = f"{counted(counts['changes'], 'change')} on {counted(changing, 'host')}"
    same, unknown = counts[OutcomeKind.UNCHANGED], counts[OutcomeKind.FAILED] + counts[OutcomeKind.UNREACHABLE]
    if not any(counts[kind] for kind in OutcomeKind):
        return "no host to plan for"
    parts = [changes if changing else "nothing to change"]
    parts += [f"{counted(same, 'host')} as desired"] if same else []
    return "; ".join([*parts, f"{counted(unknown, 'host')} not known"] if unknown else parts)


def outcome_lines(document: Document) -> Iterator[Line]:
    """Yield what became of hosts as text: a line for each, or one for many that ended well, and a count."""
    for kind, same in groupby(_by_outcome(document["hosts"]), key=lambda h: h["outcome"]):
        hosts, style = list(same), _OUTCOME_STYLES.get(kind, "red")
        if len(hosts) > MOST_LINES and not any(h["problem"] for h in hosts):
            effects = worst([Effect(h["effect"]) for h in hosts])
            together = {"changes": [c for h in hosts for c in h["changes"]], "effect": effects, "problem": None}
            yield _outcome(counted(len(hosts), "host"), kind, together), style
            continue
        yield from ((_outcome(h["host"], kind, h), style) for h in hosts)
    shown = (f"{document['counts'][kind]} {kind}" for kind in OutcomeKind if document["counts"][kind])
    yield ", ".join(shown) or "no hosts", "bold"
    yield from _next_lines(document)


def _by_outcome(hosts: Sequence[Document]) -> list[Document]:
    """Return the hosts in their order where that is short, those with the same outcome together where it is not."""
    many = len(hosts) > MOST_LINES
    return sorted(hosts, key=lambda h: list(OutcomeKind).index(h["outcome"])) if many else list(hosts)


def _outcome(name: str, kind: str, host: Document) -> str:
    text = counted(len(host["changes"]), "change") + _effect_of(host) if host["changes"] else ""
    return f"{name:<16} {kind:<12} {host['problem']['code'] if host['problem'] else text}".rstrip()


def _next_lines(document: Document) -> Iterator[Line]:
    if document["next"]:
        yield f"next: {document['next']}", ""


def folded(found: Sequence[str]) -> str:
    """Return names by what they begin with; of three and more that are numbered on, the first and the last."""
    runs: list[list[str]] = []
    for name in _by_stem(found):
        if runs and name == _following(runs[-1][-1]):
            runs[-1].append(name)
        else:
            runs.append([name])
    return listed([part for run in runs for part in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else run)])


def _by_stem(found: Sequence[str]) -> list[str]:
    stems: dict[str, list[str]] = {}
    for name in found:
        stems.setdefault(name.rstrip("0123456789"), []).append(name)
    return [name for names in stems.values() for name in names]


def _following(name: str) -> str:
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    return f"{stem}{int(digits) + 1:0{len(digits)}}" if digits else ""


def _wrapped(text: str, indent: str) -> list[str]:
    """Return a text in lines of at most 100 columns, but for words that are longer."""
    return textwrap.wrap(_shown(text), WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _shown(text: str) -> str:
    """Return a line with a space for what a terminal would obey or cannot show."""
    return "".join(c if c.isprintable() else " " for c in text.expandtabs(4))
