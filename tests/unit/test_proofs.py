"""What proves that a mesh works: from what was read to findings, good and bad, each bad one with its way out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from envoymesh.findings import Finding, exit_code_of_findings
from envoymesh.model.mesh import HostName, ServiceName
from envoymesh.plan.observed import TEXT_STATS, Dialled, HttpAnswer, Observed, ObservedPath, ObservedUnit
from envoymesh.plan.planner import plan_for
from envoymesh.problems import ExitCode, Failed, Problem
from envoymesh.resources import Artifact, Directory, File, Platform, Resource, Unit, User, Validation
from envoymesh.run import envoy, proofs
from envoymesh.run.converge import Reading
from envoymesh.run.proofs import Talk
from envoymesh.run.tunnel import Answer
from tests.rendering import INVENTORY, desired_of, mesh_of

TEXT = INVENTORY + "  service1-2: {service: service1, address: 10.77.0.22}\n"
MESH = mesh_of(TEXT)
EDGE, ONE, OTHER, THIRD = MESH.hosts.values()
SERVICE1, SERVICE2 = MESH.services.values()
PAIR = (ONE, THIRD)
"""The hosts of service1."""

PLATFORM = Platform("x86_64", (2, 36), (3, 11))
RDS = "/etc/envoymesh/front/rds.yaml"
LIVE = envoy.Server("1.40.0", "LIVE")
AWAY = Failed(Problem("ssh/unreachable", "no answer", "x", ("timed out",), hint="ping", exit_code=ExitCode.UNREACHABLE))
PROHIBITED = Failed(Problem("ssh/forward", "not forwarded", "x", ("open failed: administratively prohibited",)))


def well(finding: Finding) -> str:
    """Return what a finding says that must be good."""
    assert finding.ok, finding
    assert (finding.saw, finding.hint) == ("", "")
    return finding.what


def wrong(finding: Finding, code: ExitCode = ExitCode.PROBLEM) -> Finding:
    """Return a finding that must be bad, count as `code` and have a way out."""
    assert not finding.ok, finding
    assert finding.hint, finding
    assert exit_code_of_findings([finding]) is code
    return finding


# What a host tells


def as_desired(resources: Sequence[Resource], server: envoy.Server = LIVE) -> Observed:
    """Return what is read on a host that has all of `resources`, where this Envoy runs what is on disk."""
    units = [r for r in resources if isinstance(r, Unit)]
    stats = "".join(f'{name}: "{value}"\n' for unit in units for name, value in unit.probe.stats.items())
    info = {"version": f"0123abcd/{server.version}/Clean/RELEASE/BoringSSL", "state": server.state}
    return Observed(
        platform=PLATFORM,
        users=frozenset(r.name for r in resources if isinstance(r, User)),
        paths={r.path: there(r) for r in resources if isinstance(r, File | Directory)},
        artifacts={r.path: r.source.digest(PLATFORM) for r in resources if isinstance(r, Artifact)},
        units={u.name: ObservedUnit("loaded", "active", "enabled", needs_reload=False, stamp=u.stamp) for u in units},
        answers={
            (8001, TEXT_STATS): HttpAnswer(200, stats),
            (8001, envoy.SERVER_INFO): HttpAnswer(200, json.dumps(info)),
        },
        manifest=frozenset(r.address for r in resources if not isinstance(r, Validation)),
    )


def there(resource: File | Directory) -> ObservedPath:
    if isinstance(resource, Directory):
        return ObservedPath("directory", resource.owner, resource.group, resource.mode)
    return ObservedPath("regular file", resource.owner, resource.group, resource.mode, resource.sha256)


FRONT = tuple(desired_of(TEXT)[EDGE.name])
HEALTHY = as_desired(FRONT)


def found(observed: Observed) -> list[Finding]:
    """Return what the front's host tells."""
    return proofs.host_findings(EDGE.name, MESH, Reading(observed, plan_for(EDGE.name, FRONT, observed)))


def with_answer(path: str, body: str, status: int | None = 200) -> Observed:
    return replace(HEALTHY, answers={**HEALTHY.answers, (8001, path): HttpAnswer(status, body)})


def with_rds(version: str) -> Observed:
    """Return the host with another version of its routes on disk."""
    edited = replace(HEALTHY.paths[RDS], sha256="0" * 64, content=f'version_info: "{version}"\n'.encode())
    return replace(HEALTHY, paths={**HEALTHY.paths, RDS: edited})


def test_a_host_that_is_well_says_so_four_times() -> None:
    assert [well(finding) for finding in found(HEALTHY)] == [
        "Envoy 1.40.0 is LIVE",
        "runs what its 6 xDS files say",
        "refuses no update",
        "is as the inventory says",
    ]


def test_every_host_of_a_mesh_has_an_envoy_to_ask() -> None:
    for host, resources in desired_of(TEXT).items():
        observed = as_desired(resources)
        assert all(
            f.ok for f in proofs.host_findings(host, MESH, Reading(observed, plan_for(host, resources, observed)))
        )


@pytest.mark.parametrize("server", [envoy.Server("1.39.0", "LIVE"), envoy.Server("1.40.0", "PRE_INITIALIZING")])
def test_another_version_or_an_envoy_that_is_not_live_is_wrong(server: envoy.Server) -> None:
    finding = wrong(found(as_desired(FRONT, server))[0])
    assert finding.what == "Envoy 1.40.0 is not LIVE"
    assert finding.saw == f"Envoy {server.version} is {server.state}"
    assert finding.hint == "./mesh provision --limit front-envoy"


@pytest.mark.parametrize(
    "observed",
    [
        replace(HEALTHY, answers={}),
        with_answer(envoy.SERVER_INFO, "", None),
        with_answer(envoy.SERVER_INFO, "busy", 503),
        with_answer(envoy.SERVER_INFO, '{"version": "0123abcd/1.40'),
        with_answer(envoy.SERVER_INFO, "[]"),
    ],
)
def test_an_envoy_that_does_not_answer_is_one_finding_and_nothing_is_said_of_its_files(observed: Observed) -> None:
    first, *others = found(observed)
    assert wrong(first).what == "Envoy does not answer"
    assert first.hint == './mesh exec front-envoy "journalctl -u envoymesh-front -n 20 --no-pager"'
    assert not any("xDS" in f.what or "update" in f.what for f in others)


def test_a_file_that_is_not_loaded_is_wrong_and_drift_besides() -> None:
    _, loaded, _, same = found(with_rds("by-hand"))
    runs = HEALTHY.stats(8001)["http.ingress_http.rds.local_route.version_text"]
    assert wrong(loaded).what == "does not run what its xDS files say"
    assert loaded.saw == f"http.ingress_http.rds.local_route: {RDS} is by-hand, {runs} runs"
    assert wrong(same, ExitCode.DRIFT).saw == f"file:{RDS}"
    assert same.what == "is not as the inventory says: 1 to change"
    assert same.hint == "./mesh plan --limit front-envoy"


def test_a_file_that_is_gone_or_an_envoy_that_says_no_version_is_wrong() -> None:
    gone = replace(HEALTHY, paths={path: there for path, there in HEALTHY.paths.items() if path != RDS})
    assert f"{RDS} is unreadable, " in wrong(found(gone)[1]).saw
    silent = wrong(found(with_answer(TEXT_STATS, ""))[1]).saw
    assert silent.endswith("nothing runs and 1 more")
    assert silent.count(" is ") == proofs.SHOWN


def test_a_secret_that_differs_is_drift_and_no_more_is_known_of_it() -> None:
    secret = next(r for r in FRONT if isinstance(r, File) and r.secret)
    edited = replace(HEALTHY.paths[secret.path], sha256="0" * 64, content=None)  # gather reads none of it
    _, loaded, _, same = found(replace(HEALTHY, paths={**HEALTHY.paths, secret.path: edited}))
    assert well(loaded) == "runs what its 6 xDS files say"
    assert wrong(same, ExitCode.DRIFT).saw == secret.address


LDS_REFUSED = "listener_manager.lds.update_rejected: 2\nlistener_manager.lds.update_failure: 1\n"


def test_an_update_that_envoy_refuses_is_wrong_until_what_is_desired_runs() -> None:
    refused = replace(with_rds("by-hand"), answers=with_answer(envoy.COUNTS, LDS_REFUSED.replace("2", "0")).answers)
    assert well(found(refused)[2]) == "refuses no update; 1 were refused earlier, and replaced since"
    assert well(found(with_answer(envoy.COUNTS, LDS_REFUSED))[2]).startswith(
        "refuses no update; 3 were refused earlier"
    )
    rds_refused = "http.ingress_http.rds.local_route.update_rejected: 1\n"
    refused = replace(with_rds("by-hand"), answers=with_answer(envoy.COUNTS, rds_refused).answers)
    finding = wrong(found(refused)[2])
    assert (finding.what, finding.saw) == ("Envoy refuses an update", "http.ingress_http.rds.local_route")
    assert finding.hint == './mesh exec front-envoy "journalctl -u envoymesh-front -n 5 --no-pager --grep rejected"'


def test_a_long_list_is_cut() -> None:
    whole = wrong(proofs.is_as_desired(EDGE.name, [f"file:/{n}" for n in range(5)]), ExitCode.DRIFT)
    assert whole.saw == "file:/0, file:/1, file:/2, file:/3, file:/4"
    finding = wrong(proofs.is_as_desired(EDGE.name, [f"file:/{n}" for n in range(7)]), ExitCode.DRIFT)
    assert finding.what.endswith(": 7 to change")
    assert finding.saw == "file:/0, file:/1, file:/2, file:/3, file:/4 and 2 more"


def test_a_host_that_cannot_be_read_is_out_of_reach_with_the_problem_s_own_hint() -> None:
    finding = wrong(proofs.unreachable(ONE.name, AWAY.problems[0]), ExitCode.UNREACHABLE)
    assert (finding.subject, finding.what, finding.saw, finding.hint) == (
        "service1-1",
        "no answer",
        "timed out",
        "ping",
    )


# What a host's neighbour finds


@pytest.mark.parametrize("answer", [Dialled.REFUSED, Dialled.SILENT])
def test_inner_ports_that_nobody_else_is_let_in_at_are_well(answer: Dialled) -> None:
    dialled = dict.fromkeys(proofs.inner_ports(ONE), answer)
    said = well(proofs.keeps_to_itself(ONE, OTHER.name, dialled))
    assert said == "lets nobody else in at 8001 and 8080, tried from service2-1"


@pytest.mark.parametrize("port", [8001, 8080])
def test_an_inner_port_that_is_open_is_wrong(port: int) -> None:
    dialled = {place: Dialled.OPEN if place[1] == port else Dialled.REFUSED for place in proofs.inner_ports(ONE)}
    finding = wrong(proofs.keeps_to_itself(ONE, OTHER.name, dialled))
    assert (finding.subject, finding.saw) == ("service1-1", f"10.77.0.21:{port} accepts connections")
    assert finding.what == "lets others in behind its Envoy, tried from service2-1"
    assert finding.hint.startswith("./mesh provision --limit service1-1 ")
    assert finding.hint.endswith("./mesh exec service1-1 \"systemctl restart 'envoymesh-*'\"")


def test_the_front_s_own_ports_are_no_inner_ports() -> None:
    assert proofs.inner_ports(EDGE) == (("10.77.0.10", 8001),)


# Whom a front sends requests to


def members(healthy: int, total: int, clusters: Mapping[str, Mapping[str, Any]]) -> Observed:
    """Return the front's word on service1: its counts, and the health of each address."""
    counts = f"cluster.service1.membership_healthy: {healthy}\ncluster.service1.membership_total: {total}\n"
    statuses = [
        {"address": {"socket_address": {"address": address, "port_value": 8000}}, "health_status": status}
        for address, status in clusters.items()
    ]
    said = {"cluster_statuses": [{"name": "service1", "host_statuses": statuses}, {"name": "service2"}]}
    told = {envoy.COUNTS: counts, envoy.CLUSTERS: json.dumps(said)}
    return replace(HEALTHY, answers={(8001, path): HttpAnswer(200, body) for path, body in told.items()})


GOOD = {"eds_health_status": "HEALTHY"}
BAD = {"failed_active_health_check": True, "eds_health_status": "HEALTHY"}


def has_members(observed: Observed, *away: HostName) -> Finding:
    return proofs.has_its_members(EDGE, SERVICE1, PAIR, observed, away)


def test_a_front_that_has_all_members_healthy_is_well() -> None:
    observed = members(2, 2, {"10.77.0.21": GOOD, "10.77.0.22": GOOD})
    assert well(has_members(observed)) == "service1 has 2 of 2 members, all healthy"


@pytest.mark.parametrize(
    ("healthy", "total", "clusters", "saw"),
    [
        (1, 2, {"10.77.0.21": GOOD, "10.77.0.22": BAD}, "service1-2: failed active health check"),
        (1, 2, {"10.77.0.21": GOOD, "10.77.0.22": {"eds_health_status": "DRAINING"}}, "service1-2: EDS says DRAINING"),
        (1, 1, {"10.77.0.21": GOOD}, "service1-2: no member"),
        (
            3,
            3,
            {"10.77.0.21": GOOD, "10.77.0.22": GOOD, "10.77.0.99": GOOD},
            "10.77.0.99: not in the inventory",
        ),
        (
            2,
            2,
            {"10.77.0.21": GOOD, "10.77.0.99": GOOD},
            "service1-2: no member, 10.77.0.99: not in the inventory",
        ),
        (1, 2, {"10.77.0.21": GOOD, "10.77.0.22": GOOD}, ""),
        (0, 0, {}, "service1-1: no member, service1-2: no member"),
    ],
)
def test_a_member_that_ails_is_missing_or_is_too_many_is_wrong(
    healthy: int, total: int, clusters: dict[str, dict[str, Any]], saw: str
) -> None:
    finding = wrong(has_members(members(healthy, total, clusters)))
    assert finding.what == f"service1 has {total} members, {healthy} healthy; the inventory has 2"
    assert (finding.saw, finding.hint) == (saw, "./mesh status")


def test_a_front_that_tells_nothing_of_its_members_has_none() -> None:
    finding = wrong(has_members(replace(HEALTHY, answers={})))
    assert finding.what == "service1 has 0 members, 0 healthy; the inventory has 2"


def test_members_that_ail_because_their_host_is_out_of_reach_are_no_new_problem() -> None:
    one_away = members(1, 2, {"10.77.0.21": GOOD, "10.77.0.22": BAD})
    wrong(has_members(one_away, THIRD.name), ExitCode.UNREACHABLE)
    wrong(has_members(one_away, OTHER.name))
    wrong(has_members(members(0, 2, {"10.77.0.21": BAD, "10.77.0.22": BAD}), THIRD.name))
    wrong(has_members(members(1, 1, {"10.77.0.21": GOOD}), THIRD.name))
    extra = members(2, 3, {"10.77.0.21": GOOD, "10.77.0.22": BAD, "10.77.0.99": GOOD})
    wrong(has_members(extra, THIRD.name))
    other = members(1, 2, {"10.77.0.22": BAD, "10.77.0.99": GOOD})
    wrong(has_members(other, THIRD.name))


# What a client gets

HEADERS = {"server": "envoy", "x-envoy-upstream-service-time": "3"}
RIGHT = Answer(200, HEADERS, "Hello from behind Envoy (service 1)! hostname: service1-1 resolvedhostname: 10.77.0.21\n")
OF_ENVOY = Answer(404, {"server": "envoy"}, "")


def test_a_right_answer_is_well_and_tells_by_whom() -> None:
    assert proofs.wrong_with(RIGHT, SERVICE1) == ""
    assert proofs.answered_by(RIGHT) == "10.77.0.21"
    assert proofs.answered_by(OF_ENVOY) == ""
    talk = Talk().heard(RIGHT, SERVICE1)
    assert talk == Talk(frozenset({"10.77.0.21"}), (), 1)
    assert well(proofs.answers(EDGE, SERVICE1, "https", talk)) == "service1 answers over https"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (replace(RIGHT, status=503, body="no healthy\n upstream"), "status 503 no healthy upstream"),
        (replace(RIGHT, status=204, body=""), "status 204"),
        (Answer(0, {}, "timed out"), "no answer (timed out)"),
        (replace(RIGHT, headers={**HEADERS, "server": "nginx"}), "it did not come through Envoy: server: nginx"),
        (replace(RIGHT, headers={}), "it did not come through Envoy: server: not told"),
        (replace(RIGHT, headers={"server": "envoy"}), "it did not come through Envoy: server: envoy"),
        (
            replace(RIGHT, headers={**HEADERS, "x-envoy-upstream-service-time": "x"}),
            "it did not come through Envoy: server: envoy",
        ),
        (
            replace(RIGHT, body="Hello from behind Envoy (service 2)! hostname: x"),
            "another body: 'Hello from behind Envoy (service 2)! hostname: x'",
        ),
        (replace(RIGHT, body=""), "another body: ''"),
    ],
)
def test_another_status_header_or_body_is_wrong(answer: Answer, reason: str) -> None:
    talk = Talk().heard(RIGHT, SERVICE1).heard(answer, SERVICE1)
    assert talk == Talk(frozenset({"10.77.0.21"}), (reason,), 2)
    finding = wrong(proofs.answers(EDGE, SERVICE1, "http", talk))
    assert finding.what == "service1 does not answer as it must over http"
    assert finding.saw == f"1 of 2 requests for /service/1: {reason}"


def test_every_host_must_have_answered() -> None:
    both, one = Talk(frozenset({"10.77.0.21", "10.77.0.22"}), (), 9), Talk(frozenset({"10.77.0.21"}), (), 44)
    said = well(proofs.every_host_answers(EDGE, SERVICE1, PAIR, both, ()))
    assert said == "every host of service1 answers: service1-1, service1-2"
    finding = wrong(proofs.every_host_answers(EDGE, SERVICE1, PAIR, one, ()))
    assert finding.what == "not every host of service1 answers"
    assert (finding.saw, finding.hint) == ("none of 44 answers was by service1-2", "./mesh status")
    wrong(proofs.every_host_answers(EDGE, SERVICE1, PAIR, one, [THIRD.name]), ExitCode.UNREACHABLE)
    wrong(proofs.every_host_answers(EDGE, SERVICE1, PAIR, Talk(sent=44), [THIRD.name]))


def test_a_404_of_envoy_s_own_to_every_unknown_path_is_well() -> None:
    said = well(proofs.knows_nothing_else(EDGE.name, "http", {"/": OF_ENVOY, "/service/10": OF_ENVOY}))
    assert said == "answers 404 over http to /, /service/10"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (RIGHT, "/: status 200 Hello from behind Envoy"),
        (Answer(404, HEADERS, "not here"), "/: status 404 not here"),
        (Answer(404, {"server": "nginx"}, ""), "/: status 404"),
        (Answer(0, {}, "timed out"), "/: no answer (timed out)"),
    ],
)
def test_an_unknown_path_that_gets_through_is_wrong(answer: Answer, reason: str) -> None:
    finding = wrong(proofs.knows_nothing_else(EDGE.name, "https", {"/": answer, "/service/10": OF_ENVOY}))
    assert finding.what == "answers over https to what no service has"
    assert finding.saw.startswith(reason)
    assert "/service/10" not in finding.saw
    assert finding.hint == "./mesh plan --limit front-envoy"


def test_unknown_paths_are_siblings_that_no_service_has() -> None:
    assert list(proofs.unknown_paths(MESH)) == ["/", "/service/10", "/service/20"]
    below = replace(MESH, services={**MESH.services, ServiceName("all"): replace(SERVICE2, path="/service/10")})
    assert list(proofs.unknown_paths(below)) == ["/", "/service/20", "/service/100"]


@pytest.mark.parametrize(
    ("error", "code", "saw", "hint"),
    [
        (ConnectionRefusedError("refused"), ExitCode.PROBLEM, "refused", "./mesh provision --limit front-envoy"),
        (AWAY, ExitCode.UNREACHABLE, "no answer; timed out", "journalctl -u envoymesh-front"),
        (PROHIBITED, ExitCode.PROBLEM, "not forwarded; open failed", "AllowTcpForwarding yes"),
    ],
)
def test_a_port_that_cannot_be_used_has_a_way_out(error: Failed | OSError, code: ExitCode, saw: str, hint: str) -> None:
    finding = wrong(proofs.no_connection(EDGE.name, "https", error), code)
    assert finding.what == "its port for https cannot be used"
    assert finding.saw.startswith(saw)
    assert hint in finding.hint


def test_a_published_port_is_answered_by_the_front_or_wrong() -> None:
    assert well(proofs.is_published(8080, OF_ENVOY)) == "is answered by the front"
    for answer in (Answer(0, {}, "Connection refused"), Answer(200, {"server": "nginx"}, "Welcome")):
        finding = wrong(proofs.is_published(8080, answer))
        assert (finding.subject, finding.hint) == ("127.0.0.1:8080", "./mesh up")
        assert answer.body in finding.saw


@pytest.mark.parametrize("days", [proofs.DAYS_LEFT, 365])
def test_a_certificate_with_days_left_is_well(days: int) -> None:
    assert well(proofs.has_days_left(EDGE.name, days)) == f"its certificate has {days} days left"


@pytest.mark.parametrize("days", [proofs.DAYS_LEFT - 1, 0, -3])
def test_a_certificate_that_ends_soon_is_wrong(days: int) -> None:
    assert wrong(proofs.has_days_left(EDGE.name, days)).hint == "./mesh provision --limit front-envoy"


# What is looked at


@pytest.mark.parametrize(
    ("hosts", "edges", "services", "read"),
    [
        ((EDGE, ONE, OTHER, THIRD), (EDGE,), (SERVICE1, SERVICE2), (EDGE, ONE, OTHER, THIRD)),
        ((ONE,), (EDGE,), (SERVICE1,), (ONE, EDGE)),
        ((OTHER, ONE, THIRD), (EDGE,), (SERVICE2, SERVICE1), (OTHER, ONE, THIRD, EDGE)),
        ((EDGE,), (EDGE,), (SERVICE1, SERVICE2), (EDGE, ONE)),
    ],
)
def test_a_scope_has_the_services_of_its_hosts_and_is_read_with_whom_it_needs(
    hosts: tuple[Any, ...], edges: tuple[Any, ...], services: tuple[Any, ...], read: tuple[Any, ...]
) -> None:
    scope = proofs.scope_of(MESH, hosts)
    assert (scope.hosts, scope.edges, scope.services) == (hosts, edges, services)
    assert proofs.to_read(scope, MESH) == read


@pytest.mark.parametrize("count", range(5))
def test_each_host_looks_at_one_other(count: int) -> None:
    hosts = list(MESH.hosts.values())[:count]
    looked = proofs.ring(hosts)
    assert len(looked) == (count if count > 1 else 0)
    assert len({h.name for h in looked.values()}) == len(looked)
    assert all(name != host.name for name, host in looked.items())
