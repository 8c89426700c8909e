"""The benchmark's pure parts: what samples come to, what must be reached, and how it is shown."""

import configparser
from copy import deepcopy
from pathlib import Path

import pytest

from benchmarks import path, planning
from benchmarks.cases import (
    ANSIBLE,
    CASES,
    FLOOR,
    FOUR_OF_MANY,
    INSIDE,
    MEMORY,
    OURS,
    PLANNED,
    PYINFRA,
    Bar,
    Result,
    planned,
)
from benchmarks.contestants import ansible_inventory, pyinfra_inventory
from benchmarks.hosts import inventory
from benchmarks.report import document, figure, filled, terminal
from benchmarks.samples import Series, medians, rounds
from benchmarks.variants import FILES, VARIANTS
from envoymesh.model.inventory import parse
from roles.render import parsed
from tests.rendering import desired_of, files_of

NOTHING = Result(
    CASES["nothing"],
    {
        OURS: Series((0.6, 0.5, 0.7)),
        FLOOR: Series((0.4, 0.4, 0.4)),
        PYINFRA: Series((4.5, 5.0, 4.0)),
        ANSIBLE: Series((30.0, 20.0, 12.0)),
        INSIDE: Series((0.2, 0.2, 0.2)),
    },
)
LIST = Result(CASES["list"], {OURS: Series((0.3,))})


def verdicts(case: str, of: dict[str, float]) -> dict[str, bool]:
    return {bar.what: bar.met for bar in CASES[case].bars(of)}


def test_the_median_is_the_middle_whatever_the_order_and_an_outlier() -> None:
    series = Series((9.0, 1.0, 2.0, 3.0, 60.0))
    assert (series.median, series.least, series.most) == (3.0, 1.0, 60.0)
    assert medians({"a": series, "b": Series((1.0, 2.0))}) == {"a": 3.0, "b": 1.5}


def test_each_runs_once_a_round_and_each_begins_in_turn() -> None:
    order = rounds(["a", "b", "c"], 4)
    assert order == [("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b"), ("a", "b", "c")]


@pytest.mark.parametrize(("measured", "at_least", "met"), [(2, False, True), (2.01, False, False), (2, True, True)])
def test_a_bar_is_met_at_its_limit(measured: float, at_least: bool, met: bool) -> None:
    assert Bar("x", measured, 2, "", at_least=at_least).met is met
    assert not Bar("x", 1.99, 2, "", at_least=True).met


def test_bars_are_ratios_of_medians() -> None:
    assert [(bar.what, round(bar.measured, 2), bar.met) for bar in NOTHING.bars] == [
        ("as long as the floor", 1.5, True),
        ("faster than pyinfra", 7.5, False),
        ("faster than ansible-core", 33.33, False),
    ]


def test_the_cost_per_host_may_not_grow() -> None:
    of = {OURS: 2.5, FLOOR: 2.0, FOUR_OF_MANY: 0.4, MEMORY: 120.0}
    assert verdicts("fleet", of) == {
        "as long as the floor": True,
        "cost per host, 50 to 4": True,
        "peak memory (RSS)": True,
    }
    assert not verdicts("fleet", {**of, FOUR_OF_MANY: 0.19})["cost per host, 50 to 4"]


def test_wall_time_far_away_is_counted_in_round_trips() -> None:
    [bar] = CASES["far"].bars({OURS: 1.3})
    assert (round(bar.measured, 3), bar.limit, bar.met) == (13, 12, False)


def test_planning_that_grows_faster_than_its_hosts_is_seen_though_it_is_quick() -> None:
    inside = dict(zip((planned(n, whole=False) for n in PLANNED), (0.1, 0.4, 1.6), strict=True))
    found = verdicts("planning", {**inside, planned(2000, whole=True): 2.0})
    assert found == {"2000 hosts, whole process": True, "cost per host, 2000 to 500": False}


@pytest.mark.parametrize(
    ("value", "text"), [(0.714, "0.71 s"), (9.994, "9.99 s"), (9.996, "10.0 s"), (44.04, "44.0 s"), (104.2, "104 s")]
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert figure(value, "s") == text


def test_the_terminal_shows_ratios_first_then_median_and_spread() -> None:
    lines = terminal([NOTHING, LIST]).splitlines()
    assert lines[0] == "4 hosts, nothing to do"
    assert lines[2].split() == ["envoymesh", "0.60", "s", "0.50", "s", "0.70", "s", "3"]
    assert lines[3].split()[:4] == ["1.50", "times", "that", "floor"]
    assert "7.50 times faster" in lines[4]
    assert any("7.50 times" in line and "≥ 8 times" in line and "not met" in line for line in lines)


def test_tables_fit_a_terminal() -> None:
    assert [line for line in terminal([NOTHING, LIST]).splitlines() if len(line) > 100] == []


def test_the_document_has_every_bar_and_what_stands_in_the_way() -> None:
    text = document([NOTHING, LIST], "2 processors", {"nothing": "Most of it is imports.\n"})
    assert "| 4 hosts, nothing to do | 7.50 times | ≥ 8 times | faster than pyinfra | not met |" in text
    assert "2 processors." in text
    assert text.index("## 4 hosts") < text.index("Most of it is imports.") < text.index("## `invoke --list`")
    assert [line for line in text.splitlines() if len(line) > 100] == []


def test_text_is_filled_to_the_columns_of_the_document() -> None:
    text = filled("word " * 50)
    assert max(map(len, text.splitlines())) <= 100
    assert text.split() == ["word"] * 50


def test_machines_and_tool_mean_the_same_hosts() -> None:
    made = parse(inventory(50), "inventory.yaml", seed="x")
    reached = parse(inventory(50, "{user: root, port: 22, jump: none}"), "inventory.yaml", seed="x")
    assert (made.provider, reached.provider) == ("nspawn", "existing")
    assert list(made.hosts) == list(reached.hosts)
    assert [h.address for h in made.hosts.values()] == [h.address for h in reached.hosts.values()]
    assert (len(made.hosts), len(made.edges)) == (50, 1)


def test_the_planned_inventory_has_as_many_hosts_as_asked_for() -> None:
    assert len(parse(planning.inventory(60), "inventory.yaml", seed="x").hosts) == 60


def test_peers_are_told_the_same_hosts_and_check_their_keys() -> None:
    hosts, key, known = {"front-envoy": "10.98.0.10", "service1-1": "10.98.0.11"}, Path("/k/id"), Path("/k/known")
    told: dict[str, list[tuple[str, dict[str, object]]]] = {}
    exec(pyinfra_inventory(hosts, key, known), told)
    assert {name: data["ssh_hostname"] for name, data in told["hosts"]} == hosts
    assert {data["ssh_strict_host_key_checking"] for _, data in told["hosts"]} == {"yes"}
    ini = configparser.ConfigParser(allow_no_value=True, delimiters=("=",), interpolation=None)
    ini.read_string(ansible_inventory(hosts, key, known))
    assert dict(ini["all"]) == {f"{name} ansible_host": address for name, address in hosts.items()}
    assert "StrictHostKeyChecking=yes" in ini["all:vars"]["ansible_ssh_common_args"]


def test_the_data_path_has_a_line_for_each_contestant_and_must_be_as_fast_as_the_sandbox() -> None:
    measured = {
        path.key(contestant, connections, figure): Series((value, value + 1, value + 2), path.FIGURES[figure])
        for contestant, value in ((path.APPLICATION, 40.0), (path.SANDBOX, 9.0), (path.MESH, 10.0))
        for connections in path.CONNECTIONS
        for figure in path.FIGURES
        if contestant != path.APPLICATION or figure in ("requests", "p50", "p99", "app")
    }
    result = Result(CASES["path"], measured)
    assert [(bar.met, round(bar.measured, 2)) for bar in result.bars] == [(True, 1.1)] * 3
    lines = terminal([result]).splitlines()
    assert [line for line in lines if line.startswith("  32 ")] == [
        "  32    application alone  41.0 /s   41.0 ms  41.0 ms  -            41.0 µs  -           -",
        "  32    sandbox            10.0 /s   10.0 ms  10.0 ms  10.0 µs      10.0 µs  10.0 MiB    10.0 MiB",
        "  32    envoymesh          11.0 /s   11.0 ms  11.0 ms  11.0 µs      11.0 µs  11.0 MiB    11.0 MiB",
    ]
    assert max(map(len, lines)) <= 100


def test_a_setting_is_told_in_times_the_mesh_s_own_configuration_right_before() -> None:
    own = {path.key(path.MESH, path.OPEN, "requests"): 4000.0}
    samples = {
        name: path.beside(own, {path.key(name, path.OPEN, figure): 5000.0 for figure in path.FIGURES}, name)
        for name in (*VARIANTS, path.SANDBOX)
    }
    measured = {
        series: Series((value,), path.unit(series)) for sample in samples.values() for series, value in sample.items()
    }
    lines = terminal([Result(CASES["settings"], measured)]).splitlines()
    shown = [line for line in lines if " times " in line]
    assert len(shown) == len(VARIANTS) + 1
    assert all("5000 /s" in line and "1.25 times" in line for line in shown)
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("name", VARIANTS)
def test_each_setting_that_is_compared_is_there(name: str) -> None:
    files = {path: file for resources in desired_of().values() for path, file in files_of(resources).items()}
    texts = {path: parsed(files[f"/etc/envoymesh/{path}"].content.decode()) for path in FILES}
    changed = deepcopy(texts)
    for file, content in changed.items():
        VARIANTS[name](file, content)
    assert changed != texts
