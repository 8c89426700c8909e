"""Plans and outcomes as they are shown: one document, and text that says nothing that it does not."""

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from envoymesh.events import Outcome, OutcomeKind, Planned, exit_code_of, failed_outcome
from envoymesh.model.mesh import HostName
from envoymesh.plan.change import Action, Change
from envoymesh.plan.effects import Effect
from envoymesh.plan.planner import plan_for
from envoymesh.problems import ExitCode, Problem
from envoymesh.report.plan import folded, outcome_lines, outcomes_document, plan_document, plan_lines
from envoymesh.run.converge import Reading
from envoymesh.run.provision import planned
from roles import desired
from tests.layers import ROOT
from tests.rendering import BARE, mesh_of, observed_of, releases_of, secrets_of

FAILED = Problem("apply/not-stored", "no room", "b  file:/x", ("No space left",), "b: nothing was replaced", "df -h")
AWAY = Problem("ssh/unreachable", "no answer", "c", exit_code=ExitCode.UNREACHABLE)
CHANGE = Change("file:/x", Action.UPDATE, "its content differs", "-old\n+new\n", effect=Effect.DRAIN)
OUTCOMES = [
    Outcome(HostName("a"), OutcomeKind.CHANGED, (CHANGE,)),
    failed_outcome(HostName("b"), FAILED),
    failed_outcome(HostName("c"), AWAY),
    Outcome(HostName("d"), OutcomeKind.UNCHANGED),
]


def inventory(hosts: int, settings: str = "") -> str:
    members = (
        f"  {name}-{n}: {{service: {name}, address: 10.0.{number}.{n}}}\n"
        for number, (name, many) in enumerate((("cart", hosts // 2), ("shop", (hosts - 1) // 2)), 1)
        for n in range(1, many + 1)
    )
    edge = "  front-envoy: {role: edge, address: 10.0.0.1}\n"
    head = f"name: x\nprovider: existing\n{settings}services: {{cart: {{path: /c}}, shop: {{path: /s}}}}\nhosts:\n"
    return f"{head}{edge}{''.join(members)}"


def plan_of(before: str, after: str, away: Sequence[str] = (), limit: Sequence[str] = ()) -> Planned:
    """Return the plan that takes hosts from one inventory to another; hosts that the first has not are bare."""
    old, new = mesh_of(before), mesh_of(after)
    had = desired(old, secrets_of(old), releases_of(old), list(old.hosts.values()))
    wanted = desired(new, secrets_of(new), releases_of(new), list(new.hosts.values()))
    readings: dict[HostName, Reading | Problem] = {}
    for host, resources in wanted.items():
        observed = observed_of(had[host]) if host in had else BARE
        readings[host] = AWAY if host in away else Reading(observed, plan_for(host, resources, observed))
    return planned(new, {h: r for h, r in readings.items() if not limit or h in limit})


def document_of(plan: Planned) -> Any:
    """Return a plan's document as a program reads it."""
    return json.loads(json.dumps(plan_document(plan, ExitCode.DRIFT, "./mesh provision")))


def text_of(plan: Planned) -> list[str]:
    return [text for text, _ in plan_lines(document_of(plan))]


MEMORY = "machines: {memory_mib: 700}\n"


def test_a_plan_says_of_each_change_why_and_what_it_does_and_shows_its_diff() -> None:
    assert text_of(plan_of(inventory(3), inventory(3, "front: {http_port: 8090}\n"))) == [
        "front-envoy: 1 change, drain",
        "  ~ update   file:/etc/envoymesh/front/lds.yaml  (its content differs)  [drain]",
        "      --- observed",
        "      +++ desired",
        "      @@ -1,9 +1,9 @@",
        *ANY_VERSION,
        "       # What the front listens on. A change here drains the listener, so routes and endpoints are in files of"
        " their own.",
        "       resources:",
        '       - "@type": type.googleapis.com/envoy.config.listener.v3.Listener',
        "         name: http",
        "      -  address: {socket_address: {address: 0.0.0.0, port_value: 8080}}",
        "      +  address: {socket_address: {address: 0.0.0.0, port_value: 8090}}",
        "         traffic_direction: INBOUND",
        "         per_connection_buffer_limit_bytes: 32768 # 32 KiB",
        "         filter_chains:",
        "",
        "what the changes do to what serves:",
        "  drain           1  Envoy replaces a listener: its connections are told to end, closed after 30 s",
        "",
        "as desired: cart-1 and shop-1",
        "1 change on 1 host; 2 hosts as desired",
        "next: ./mesh provision",
    ]


class _Version(str):
    """Equal to a line that tells any version of an xDS file."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return bool(re.fullmatch(rf'      \{self}version_info: "[0-9a-f]{{16}}"', str(other)))

    __hash__ = str.__hash__


ANY_VERSION = [_Version("-"), _Version("+")]


def test_hosts_with_the_same_changes_are_told_together_and_fifty_fit_on_a_screen_or_two() -> None:
    text = text_of(plan_of(inventory(50), inventory(50, MEMORY)))
    assert "cart-1 to cart-25 and shop-1 to shop-24: 3 changes each, hot restart" in text
    assert [line for line in text if line.startswith("      on ")] == [
        "      on cart-1, and on cart-2 to cart-25 and shop-1 to shop-24 with other names, addresses and",
    ]
    assert "    2  cart-2 to cart-7 and shop-1 to shop-6" in text
    assert "150 changes on 50 hosts" in text
    assert len(text) < 120


@pytest.mark.parametrize("count", [3, 5])
def test_of_different_diffs_three_are_shown(count: int) -> None:
    names = "abcde"[:count]
    services = ", ".join(f"{name}: {{path: /{name}}}" for name in names)
    hosts = "".join(f"  {name}-1: {{service: {name}, address: 10.0.1.{n}}}\n" for n, name in enumerate(names))
    head, edge = "name: x\nprovider: existing\n", "  front-envoy: {role: edge, address: 10.0.0.1}\n"
    mesh = f"services: {{{services}}}\nhosts:\n{edge}{hosts}"
    text = text_of(plan_of(f"{head}{mesh}", f"{head}envoy: {{version: 1.39.3}}\n{mesh}"))
    shown = [line for line in text if line.startswith("      on ") and "sidecar" not in line]
    assert shown == ["      on a-1:", "      on b-1:", "      on c-1:"]
    assert ("      and 2 more hosts with other diffs: --limit HOST, or --json" in text) == (count == 5)


def test_what_a_new_host_gets_is_told_without_the_content_of_its_files() -> None:
    plan = plan_of(inventory(3), inventory(4))
    text = text_of(plan)
    assert "cart-2, a new host: 23 changes" in text
    assert "  + create   file:/etc/envoymesh/sidecar/rds.yaml" in text
    assert "    what will be in these files: --json" in text
    assert not any("match:" in line for line in text)
    [diff] = [
        c["diff"]
        for h in document_of(plan)["hosts"]
        for c in h["changes"]
        if h["new"] and c["address"].endswith("rds.yaml")
    ]
    assert "+    - match: {path_separated_prefix:" in diff


def test_who_is_not_touched_is_told_and_many_are_only_counted() -> None:
    text = text_of(plan_of(inventory(4), inventory(4), away=["shop-1"], limit=["cart-1", "cart-2", "shop-1"]))
    assert text == [
        "as desired: cart-1 and cart-2",
        "not in --limit: front-envoy",
        "unreachable: shop-1 (ssh/unreachable)",
        "nothing to change; 2 hosts as desired; 1 host not known",
    ]
    assert text_of(plan_of(inventory(50), inventory(50))) == ["nothing to change; 50 hosts as desired"]
    limited = text_of(plan_of(inventory(50), inventory(50), limit=["cart-1"]))
    assert "not in --limit: 49 hosts" in limited
    assert text_of(plan_of(inventory(4), inventory(4), limit=["nobody"])) == ["no host to plan for"]


def test_many_batches_are_counted() -> None:
    one_by_one = "rollout: {max_parallel: 1}\n"
    text = text_of(plan_of(inventory(50, one_by_one), inventory(50, one_by_one + MEMORY)))
    header = text.index(
        "in 26 batches, each found healthy before the next begins (max_parallel 1, canary 1, max_failed 0):"
    )
    assert text[header + 9 : header + 11] == ["    9  cart-9 and shop-8", "  ...  17 more batches, 33 hosts: --json"]


PLANS = [
    plan_of(inventory(2), inventory(2, MEMORY)),
    plan_of(
        inventory(5),
        inventory(7, "front: {http_port: 8090}\n"),
        away=["shop-2"],
        limit=["cart-1", "shop-2", "front-envoy", "cart-3"],
    ),
    plan_of(inventory(50), inventory(50, MEMORY)),
    plan_of(inventory(4), inventory(4)),
]


@pytest.mark.parametrize("plan", PLANS)
def test_nothing_is_in_the_text_but_what_the_document_says_and_words_that_go_around_it(plan: Planned) -> None:
    document = document_of(plan)
    said = json.dumps(document, ensure_ascii=False).replace("\\n", " ").replace("\\", " ") + json.dumps(
        [diff for h in document["hosts"] for c in h["changes"] for diff in c["diff"].split()]
    )
    shown = {word.strip("(),;:") for line in text_of(plan) for word in line.split()}
    counted = {str(n) for n in range(1000)}
    unexplained = {w for w in shown if w not in said and json.dumps(w)[1:-1] not in said} - counted
    assert unexplained <= {*WORDS}, unexplained - {*WORDS}


WORDS = re.findall(
    r"\S+",
    "+ - ~ --- observed +++ desired @@ [hot] [drain] [restart] each to a new host hosts changes change and on in "
    "batches batch found healthy before the next begins what do does serves as not --limit HOST --json or more with "
    "[hot restart] other diffs nothing known will be these files ... unreachable names addresses digests",
)


@pytest.mark.parametrize("plan", PLANS)
def test_what_is_put_together_fits_100_columns(plan: Planned) -> None:
    assert [line for line in text_of(plan) if len(line) > 100 and not line.startswith("      ")] == []


def test_what_a_host_says_cannot_command_a_terminal() -> None:
    change = Change("file:/x\x1b[2J", Action.DELETE, "nothing asks for it any more", "-\x1b[31m\n", effect=Effect.STOP)
    plan = Planned([Outcome(HostName("a"), OutcomeKind.CHANGED, (change,))], {}, (), mesh_of().rollout, ())
    text = text_of(plan)
    assert text[1] == "  - delete   file:/x [2J  (nothing asks for it any more)  [stop]"
    assert not any("\x1b" in line for line in text)


def test_the_document_of_a_plan_has_what_decides() -> None:
    document = document_of(plan_of(inventory(3), inventory(4), limit=["front-envoy", "cart-1", "cart-2"]))
    assert (document["version"], document["exit_code"], document["next"]) == (1, 2, "./mesh provision")
    assert [(h["host"], h["outcome"], h["new"], h["effect"]) for h in document["hosts"]] == [
        ("front-envoy", "changed", False, "hot"),
        ("cart-1", "unchanged", False, "none"),
        ("cart-2", "changed", True, "none"),
    ]
    assert document["batches"] == [["cart-2"], ["front-envoy"]]
    assert document["rollout"] == {"max_parallel": "25%", "canary": 1, "max_failed": 0}
    assert document["counts"] == {
        **{"changes": 24, "unchanged": 1, "changed": 2, "failed": 0, "unreachable": 0, "not started": 0}
    }
    assert {name: e["changes"] for name, e in document["effects"].items()} == {"none": 23, "hot": 1}
    assert document["not_in_limit"] == ["shop-1"]
    assert document["hosts"][0]["changes"][0].keys() == {"address", "action", "because", "effect", "diff"}


def outcome_text(outcomes: Sequence[Outcome], following: str = "") -> list[str]:
    document = outcomes_document(outcomes, exit_code_of(outcomes), following)
    return [text for text, _ in outcome_lines(json.loads(json.dumps(document)))]


def test_outcomes_are_a_line_for_each_host_and_a_count() -> None:
    assert outcome_text(OUTCOMES) == [
        "a                changed      1 change, drain",
        "b                failed       apply/not-stored",
        "c                unreachable  ssh/unreachable",
        "d                unchanged",
        "1 unchanged, 1 changed, 1 failed, 1 unreachable",
    ]


def test_many_that_ended_well_are_one_line_and_whoever_did_not_has_one() -> None:
    many = [Outcome(HostName(f"h{n}"), OutcomeKind.CHANGED, (CHANGE,)) for n in range(30)]
    many += [Outcome(HostName(f"u{n}"), OutcomeKind.UNCHANGED) for n in range(20)]
    assert outcome_text([*many, OUTCOMES[1]]) == [
        "20 hosts         unchanged",
        "30 hosts         changed      30 changes, drain",
        "b                failed       apply/not-stored",
        "20 unchanged, 30 changed, 1 failed",
    ]


def test_the_next_command_is_told_where_there_is_one() -> None:
    assert outcome_text([OUTCOMES[0]], "./mesh check")[-2:] == ["1 changed", "next: ./mesh check"]
    assert outcome_text([OUTCOMES[3]]) == ["d                unchanged", "1 unchanged"]
    assert outcome_text([]) == ["no hosts"]


def test_a_document_of_outcomes_keeps_its_fields() -> None:
    document = json.loads(json.dumps(outcomes_document(OUTCOMES, ExitCode.PROBLEM, "")))
    assert (document["version"], document["exit_code"]) == (1, 1)
    assert [h["outcome"] for h in document["hosts"]] == ["changed", "failed", "unreachable", "unchanged"]
    assert document["hosts"][0]["changes"][0] == {
        **{"address": "file:/x", "action": "update", "because": CHANGE.because},
        **{"effect": "drain", "diff": CHANGE.diff},
    }
    assert document["hosts"][1]["problem"]["now"] == FAILED.now


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a-1", "a-2"], "a-1 and a-2"),
        (["a-1", "b-1", "a-2", "b-2", "a-3"], "a-1 to a-3, b-1 and b-2"),
        (["a-8", "a-9", "a-10", "a-12"], "a-8 to a-10 and a-12"),
        (["w01", "w02", "w03"], "w01 to w03"),
        (["a", "a1", "1", "2", "3"], "a, a1 and 1 to 3"),
    ],
)
def test_names_that_are_numbered_on_are_told_by_the_first_and_the_last(names: list[str], text: str) -> None:
    assert folded(names) == text


@pytest.mark.parametrize(
    ("hosts", "code"),
    [([0, 3], ExitCode.DONE), ([0, 2], ExitCode.UNREACHABLE), ([1, 2], ExitCode.PROBLEM), ([], ExitCode.DONE)],
)
def test_a_failed_host_counts_before_one_out_of_reach(hosts: list[int], code: ExitCode) -> None:
    assert exit_code_of([OUTCOMES[i] for i in hosts]) is code


def example() -> Any:
    """Return the plan that docs/plan.md shows."""
    before = inventory(2) + "  shop-1: {service: shop, address: 10.0.2.1}\n"
    plan = plan_of(before, f"{before}  cart-2: {{service: cart, address: 10.0.1.2}}\n", limit=["front-envoy"])
    return json.loads(json.dumps(plan_document(plan, ExitCode.DRIFT, "./mesh provision --limit edge")))


def without_versions(text: str) -> str:
    return re.sub(r'version_info: (\\\\?)"[0-9a-f]{16}', r'version_info: \\1"', text)


def test_the_documentation_shows_a_real_plan_and_names_every_field() -> None:
    documentation = (ROOT / "docs/plan.md").read_text("utf-8")
    [shown] = re.findall(r"```json\n(.*?)```", documentation, re.DOTALL)
    document = example()
    assert without_versions(shown) == without_versions(json.dumps(document, indent=2) + "\n")
    text = "".join(f"{line}\n" for line, _ in plan_lines(document))
    assert without_versions(f"$ ./mesh plan --limit edge\n{text}```") in without_versions(documentation)
    [table] = re.findall(r"\| field \| what \|\n(.*?)\n\n", documentation, re.DOTALL)
    named = set(re.findall(r"`(\w+)`", re.sub(r"hosts\[\]\.(changes\[\]\.)?|\[\]", "", table)))
    host = document["hosts"][0]
    assert {*document, *document["counts"], *document["rollout"], *host, *host["changes"][0]} - named == {"not started"}
    assert {"code", "what", "at", "saw", "now", "hint"} <= named
