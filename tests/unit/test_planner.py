"""The planner: what must change, decided by what is observed and what runs, never by what a run did before."""

from dataclasses import replace

import pytest

from envoymesh.model.mesh import HostName
from envoymesh.plan.change import Action
from envoymesh.plan.observed import TEXT_STATS, HttpAnswer, Observed, ObservedPath, ObservedUnit
from envoymesh.plan.planner import plan_for
from envoymesh.problems import Failed
from envoymesh.resources import (
    Artifact,
    Directory,
    EnvoyBinary,
    File,
    Platform,
    Probe,
    Resource,
    Tree,
    Unit,
    User,
    Validation,
)

HOST = HostName("web")
PLATFORM = Platform("x86_64", (2, 36), (3, 11))
CONFIG = File("/etc/x/lds.yaml", b"one\ntwo\n", group="x", mode=0o640)
TREE = Artifact("/opt/app", Tree({"a.py": b"pass\n"}))
UNIT = Unit("x.service", "s1", Probe(8001, "/ready", {"lds.version_text": "abc"}))
CHECKED = Validation("x", ("true",), bytes, "x", frozenset({CONFIG.address}))
DESIRED: tuple[Resource, ...] = (User("x"), Directory("/etc/x"), TREE, CONFIG, CHECKED, UNIT)
CONVERGED = Observed(
    platform=PLATFORM,
    users=frozenset({"x"}),
    paths={
        "/etc/x": ObservedPath("directory", "root", "root", 0o755),
        CONFIG.path: ObservedPath("regular file", "root", "x", 0o640, CONFIG.sha256),
    },
    artifacts={TREE.path: TREE.source.digest(PLATFORM)},
    units={UNIT.name: ObservedUnit("loaded", "active", "enabled", needs_reload=False, stamp="s1")},
    answers={(8001, TEXT_STATS): HttpAnswer(200, 'lds.version_text: "abc"\n')},
    manifest=frozenset(r.address for r in DESIRED if not isinstance(r, Validation)),
)
BARE = Observed(PLATFORM, frozenset(), {}, {}, {}, {}, frozenset())


def changes(observed: Observed, desired: tuple[Resource, ...] = DESIRED) -> list[tuple[str, Action]]:
    return [(c.address, c.action) for c in plan_for(HOST, desired, observed).changes]


def test_nothing_changes_on_a_host_that_is_as_desired() -> None:
    assert changes(CONVERGED) == []


def test_a_bare_host_gets_everything_in_the_order_of_the_roles() -> None:
    assert changes(BARE) == [
        ("user:x", Action.CREATE),
        ("directory:/etc/x", Action.CREATE),
        ("artifact:/opt/app", Action.CREATE),
        ("file:/etc/x/lds.yaml", Action.CREATE),
        ("unit:x.service", Action.START),
    ]


@pytest.mark.parametrize(
    ("path", "because"),
    [
        (ObservedPath("regular file", "root", "x", 0o640, "0" * 64, b"one\n"), "its content differs"),
        (ObservedPath("regular file", "root", "root", 0o640, CONFIG.sha256), "owner is root:root, not root:x"),
        (ObservedPath("regular file", "root", "x", 0o644, CONFIG.sha256), "mode is 0644, not 0640"),
        (ObservedPath("symbolic link", "root", "root", 0o777), "it is a symbolic link"),
    ],
)
def test_any_difference_of_a_file_is_an_update_that_says_which(path: ObservedPath, because: str) -> None:
    observed = replace(CONVERGED, paths={**CONVERGED.paths, CONFIG.path: path})
    [change] = plan_for(HOST, DESIRED, observed).changes
    assert (change.address, change.action, change.because) == (CONFIG.address, Action.UPDATE, because)


def test_a_diff_goes_from_observed_to_desired_and_a_secret_is_not_in_it() -> None:
    path = ObservedPath("regular file", "root", "x", 0o640, "0" * 64, b"one\nold\n")
    observed = replace(CONVERGED, paths={**CONVERGED.paths, CONFIG.path: path})
    [change] = plan_for(HOST, DESIRED, observed).changes
    assert "-old\n+two\n" in change.diff
    secret = tuple(replace(r, secret=True) if isinstance(r, File) else r for r in DESIRED)
    [change] = plan_for(HOST, secret, observed).changes
    assert "old" not in change.diff
    assert "two" not in change.diff


@pytest.mark.parametrize(
    ("unit", "action"),
    [
        (ObservedUnit("loaded", "inactive", "enabled", needs_reload=False, stamp=""), Action.START),
        (ObservedUnit("loaded", "failed", "enabled", needs_reload=False, stamp=""), Action.START),
        (ObservedUnit("loaded", "active", "enabled", needs_reload=False, stamp="s0"), Action.RESTART),
        (ObservedUnit("loaded", "active", "disabled", needs_reload=False, stamp="s1"), Action.UPDATE),
        (ObservedUnit("loaded", "active", "enabled", needs_reload=True, stamp="s1"), Action.UPDATE),
    ],
)
def test_a_unit_is_judged_by_what_runs_even_if_every_file_is_current(unit: ObservedUnit, action: Action) -> None:
    assert changes(replace(CONVERGED, units={UNIT.name: unit})) == [(UNIT.address, action)]


@pytest.mark.parametrize(
    ("desired", "observed", "action"),
    [
        ("11-1-1", "11-1-1", Action.RELOAD),
        ("11-1-1", "11-1-2", Action.RESTART),
        ("11-1-1", "", Action.RESTART),
        ("", "11-1-1", Action.RESTART),
    ],
)
def test_a_unit_is_reloaded_where_a_new_process_can_take_over_from_the_one_that_runs(
    desired: str, observed: str, action: Action
) -> None:
    """A process that tells nothing of it was started by a release of this tool that knew no takeover."""
    wanted = (*DESIRED[:-1], replace(UNIT, takeover=desired))
    unit = ObservedUnit("loaded", "active", "enabled", needs_reload=True, stamp="s0", takeover=observed)
    assert changes(replace(CONVERGED, units={UNIT.name: unit}), wanted) == [(UNIT.address, action)]


def test_an_envoy_without_its_admin_interface_is_replaced_by_one_that_has_it() -> None:
    """It gives it away as soon as another begins to start, also to one that then dies."""
    wanted = (*DESIRED[:-1], replace(UNIT, takeover="11-1-1"))
    runs = {UNIT.name: replace(CONVERGED.units[UNIT.name], takeover="11-1-1")}
    assert changes(replace(CONVERGED, units=runs, answers={}), wanted) == [(UNIT.address, Action.RELOAD)]
    assert changes(replace(CONVERGED, units=runs), wanted) == []


def test_an_envoy_that_has_not_loaded_its_current_files_is_made_to() -> None:
    stale = {(8001, TEXT_STATS): HttpAnswer(200, 'lds.version_text: "old"\n')}
    assert changes(replace(CONVERGED, answers=stale)) == [(UNIT.address, Action.UPDATE)]
    assert changes(replace(CONVERGED, answers={})) == [(UNIT.address, Action.UPDATE)]


def test_what_no_role_asks_for_any_more_goes_units_first_and_directories_from_within() -> None:
    left = {"directory:/a", "directory:/a/b", "file:/a/b/c", "unit:old.service", "artifact:/opt/old", "user:old"}
    observed = replace(CONVERGED, manifest=CONVERGED.manifest | left)
    assert changes(observed) == [
        ("unit:old.service", Action.DELETE),
        ("file:/a/b/c", Action.DELETE),
        ("artifact:/opt/old", Action.DELETE),
        ("directory:/a/b", Action.DELETE),
        ("directory:/a", Action.DELETE),
        ("user:old", Action.DELETE),
    ]


def test_a_unit_whose_place_another_takes_goes_once_its_requests_are_done() -> None:
    new = Unit("app-2.service", "s2", Probe(80, "/"), replaces="app")
    left = frozenset({"unit:app-1.service", "unit:app.service", "unit:other.service"})
    observed = replace(CONVERGED, manifest=CONVERGED.manifest | left)
    found = {c.address: (c.action, c.because) for c in plan_for(HOST, (*DESIRED, new), observed).changes}
    once = (Action.DELETE, "once its requests are done: app-2.service takes its place")
    assert found == {
        "unit:app-2.service": (Action.START, "it does not run"),
        "unit:app-1.service": once,
        "unit:app.service": once,
        "unit:other.service": (Action.DELETE, "nothing asks for it any more"),
    }


def test_a_run_that_died_before_its_manifest_is_completed() -> None:
    assert changes(replace(CONVERGED, manifest=frozenset())) == [("manifest:last-apply", Action.UPDATE)]


@pytest.mark.parametrize(
    ("platform", "code"),
    [
        (Platform("riscv64", (2, 36), None), "host/architecture"),
        (Platform("x86_64", (2, 28), None), "host/glibc"),
        (Platform("x86_64", None, None), "host/glibc"),
    ],
)
def test_a_host_that_cannot_run_envoy_is_a_problem_that_names_it(platform: Platform, code: str) -> None:
    envoy = Artifact("/opt/envoy", EnvoyBinary("1.40.0", {"x86_64": "1" * 64}))
    with pytest.raises(Failed) as failed:
        plan_for(HOST, (envoy,), replace(BARE, platform=platform))
    [problem] = failed.value.problems
    assert problem.code == code
    assert "web" in problem.at
    assert "nothing was changed" in problem.now
