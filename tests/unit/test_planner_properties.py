"""The planner over anything that can be desired and observed: it always answers, and what it asks for is enough."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from envoymesh.model.mesh import HostName
from envoymesh.plan.change import Action, HostPlan
from envoymesh.plan.observed import TEXT_STATS, HttpAnswer, Observed, ObservedPath, ObservedUnit
from envoymesh.plan.planner import plan_for
from envoymesh.resources import Artifact, Directory, File, Platform, Probe, Resource, Tree, Unit, User, Validation
from tests.rendering import started

HOST = HostName("web")
PLATFORM = Platform("x86_64", (2, 36), (3, 11))
FILES, DIRECTORIES = ("/a/x", "/a/b/$(y)\n", "/é", "/etc/systemd/system/u.service"), ("/a", "/a/b", "/-rf")
ARTIFACTS, UNITS, USERS = ("/opt/one", "/opt/two"), ("u.service", "v.service"), ("root", "x")
STAT = "listener.lds.version_text"
MARKER = b"-----BEGIN PRIVATE KEY-----\nnobody may see this\n"

modes = st.sampled_from((0, 0o640, 0o644, 0o755, 0o2755))
owners = st.sampled_from(USERS)
content = st.one_of(st.binary(max_size=40), st.text(max_size=40).map(lambda t: t.encode("utf-8", "replace")))
digests = st.sampled_from(("", "0" * 64))
words = st.sampled_from(("", "s1", "s2", "é ' $(x)"))


def tree(text: str) -> Tree:
    return Tree({"a.py": text.encode()})


def unique(resources: list[Resource]) -> tuple[Resource, ...]:
    return tuple({r.address: r for r in resources}.values())


secrets = st.builds(
    lambda path, owner, mode: File(path, MARKER, owner, mode=mode, secret=True), st.sampled_from(FILES), owners, modes
)
units = st.builds(
    lambda name, stamp, version: Unit(name, stamp, Probe(8001, "/ready", {STAT: version} if version else {})),
    st.sampled_from(UNITS),
    words,
    st.sampled_from(("", "v1", "v2")),
)
resources = st.one_of(
    st.builds(User, st.sampled_from(USERS)),
    st.builds(Directory, st.sampled_from(DIRECTORIES), owners, owners, modes),
    st.builds(File, st.sampled_from(FILES), content, owners, owners, modes),
    secrets,
    st.builds(Artifact, st.sampled_from(ARTIFACTS), st.builds(tree, words)),
    units,
    st.builds(
        lambda guards: Validation("v", ("true",), bytes, "x", frozenset(guards)),
        st.lists(st.sampled_from([f"file:{path}" for path in FILES])),
    ),
)
desired_sets = st.lists(resources, max_size=12).map(unique)

observed_paths = st.builds(
    ObservedPath,
    st.sampled_from(("regular file", "directory", "symbolic link", "fifo", "socket")),
    owners,
    owners,
    modes,
    st.one_of(st.none(), digests),
    st.one_of(st.none(), content, st.just(MARKER)),
)
observed_units = st.builds(
    ObservedUnit,
    st.sampled_from(("loaded", "not-found", "masked", "error")),
    st.sampled_from(("active", "reloading", "inactive", "failed", "activating", "")),
    st.sampled_from(("enabled", "disabled", "masked", "static", "")),
    st.booleans(),
    words,
)
answers = st.builds(
    HttpAnswer, st.one_of(st.none(), st.just(200)), st.one_of(st.text(), st.just(f'{STAT}: "v1"\n'), st.just(": "))
)
addresses = st.one_of(
    st.text(max_size=20),
    st.builds(
        "{}:{}".format,
        st.sampled_from(("unit", "file", "artifact", "directory", "user", "socket")),
        st.sampled_from((*FILES, *DIRECTORIES, *ARTIFACTS, *UNITS, "/gone", "")),
    ),
)
observations = st.builds(
    Observed,
    st.just(PLATFORM),
    st.frozensets(owners),
    st.dictionaries(st.sampled_from((*FILES, *DIRECTORIES)), observed_paths),
    st.dictionaries(st.sampled_from(ARTIFACTS), digests),
    st.dictionaries(st.sampled_from(UNITS), observed_units),
    st.dictionaries(st.just((8001, TEXT_STATS)), answers),
    st.frozensets(addresses, max_size=8),
)


def made_true(plan: HostPlan, observed: Observed) -> Observed:
    """Return the host as it is once exactly the changes of `plan` are done."""
    users, paths, artifacts = set(observed.users), dict(observed.paths), dict(observed.artifacts)
    running, http = dict(observed.units), dict(observed.answers)
    for change in plan.changes:
        match change.resource:
            case User(name=name):
                users.add(name)
            case Directory() as r:
                paths[r.path] = ObservedPath("directory", r.owner, r.group, r.mode)
            case File() as r:
                paths[r.path] = ObservedPath("regular file", r.owner, r.group, r.mode, r.sha256)
            case Artifact() as r:
                artifacts[r.path] = plan.digests[r.address]
            case Unit() as r:
                running[r.name] = started(r)
    if plan.changes:  # each Envoy has taken in what its unit says: the apply waits for it
        stats = {k: v for r in plan.desired if isinstance(r, Unit) for k, v in r.probe.stats.items()}
        text = "".join(f'{name}: "{version}"\n' for name, version in stats.items())
        http[8001, TEXT_STATS] = HttpAnswer(200, text)
    manifest = frozenset(plan.manifest) if plan.changes else observed.manifest
    return replace(
        observed,
        users=frozenset(users),
        paths=paths,
        artifacts=artifacts,
        units=running,
        answers=http,
        manifest=manifest,
    )


def one_version(desired: tuple[Resource, ...]) -> bool:
    """Tell whether all units want the same of the one Envoy there is."""
    return len({tuple(r.probe.stats.values()) for r in desired if isinstance(r, Unit) and r.probe.stats}) < 2


@given(desired_sets.filter(one_version), observations)
def test_what_a_plan_asks_for_is_enough_and_no_more_than_the_roles_and_the_manifest(
    desired: tuple[Resource, ...], observed: Observed
) -> None:
    plan = plan_for(HOST, desired, observed)
    assert plan == plan_for(HOST, desired, observed)
    told = [change.address for change in plan.changes]
    assert len(told) == len(set(told))
    known = {r.address for r in desired} | observed.manifest | {"manifest:last-apply"}
    assert set(told) <= known
    assert all(c.because for c in plan.changes)
    wanted = {r.address for r in desired}
    assert all((c.resource is None) == (c.address not in wanted) for c in plan.changes)
    assert wanted.isdisjoint(c.address for c in plan.changes if c.action is Action.DELETE)
    assert plan_for(HOST, desired, made_true(plan, observed)).changes == ()


@given(desired_sets, observations)
def test_no_secret_is_in_a_plan_that_is_shown(desired: tuple[Resource, ...], observed: Observed) -> None:
    """Also not what such a file holds before."""
    hidden = {r.path for r in desired if isinstance(r, File) and r.secret}
    paths = {p: o if p in hidden else replace(o, content=None) for p, o in observed.paths.items()}
    plan = plan_for(HOST, desired, replace(observed, paths=paths))
    assert "nobody may see" not in repr((plan, desired, paths)) + "".join(c.diff for c in plan.changes)
