"""From what was read to findings: what proves that a mesh works. Pure."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from envoymesh.findings import Finding
from envoymesh.model.mesh import Host, HostName, Mesh, Service, ServiceName
from envoymesh.model.ports import ADMIN_PORT, APP_PORT
from envoymesh.plan.observed import Dialled, Observed
from envoymesh.problems import ExitCode, Failed, Problem, listed
from envoymesh.resources import Resource, Unit
from envoymesh.run import envoy
from envoymesh.run.converge import Reading
from envoymesh.run.tunnel import Answer, forbids_forwarding, forwarding_hint

DAYS_LEFT = 14
"""A certificate with fewer days left is a problem: `provision` renews it much earlier."""

SHOWN = 5
"""So many names are shown of a list that may be long."""


@dataclass(frozen=True)
class Scope:
    """What a check looks at: these hosts, and these services through these fronts."""

    hosts: tuple[Host, ...]
    edges: tuple[Host, ...]
    services: tuple[Service, ...]


def scope_of(mesh: Mesh, hosts: Sequence[Host]) -> Scope:
    """Return the services that `hosts` have to do with, and the fronts: those among `hosts`, all if there are none."""
    edges = tuple(h for h in hosts if h.is_edge)
    names = mesh.services if edges else dict.fromkeys(h.service for h in hosts if h.service is not None)
    return Scope(tuple(hosts), edges or mesh.edges, tuple(mesh.services[ServiceName(name)] for name in names))


def to_read(scope: Scope, mesh: Mesh) -> tuple[Host, ...]:
    """Return the hosts that are read, each once: also a second one, from which the first is looked at."""
    chosen = dict.fromkeys((*scope.hosts, *scope.edges))
    others = (h for h in mesh.hosts.values() if h not in chosen)
    return tuple(chosen) if len(chosen) > 1 else (*chosen, *[h for h, _ in zip(others, range(1), strict=False)])


def ring(hosts: Sequence[Host]) -> dict[HostName, Host]:
    """Return whom each host looks at: the next one, so that each is looked at by one other; none when it is alone."""
    return {h.name: after for h, after in zip(hosts, (*hosts[1:], *hosts[:1]), strict=True) if h != after}


def inner_ports(host: Host) -> tuple[tuple[str, int], ...]:
    """Return the addresses and ports of a host at which nobody but itself may be answered."""
    ports = (ADMIN_PORT,) if host.is_edge else (ADMIN_PORT, APP_PORT)
    return tuple((str(host.address), port) for port in ports)


def unreachable(host: HostName, problem: Problem) -> Finding:
    """Return the finding about a host that could not be read."""
    return Finding(host, False, problem.what, "; ".join(problem.saw), problem.hint, problem.exit_code)


def host_findings(host: HostName, mesh: Mesh, reading: Reading) -> list[Finding]:
    """Return what the host itself tells."""
    observed, desired = reading.observed, reading.plan.desired
    unit, server = _envoy_unit(desired), envoy.server(observed)
    updates = envoy.updates(observed, desired)
    files = [runs_its_files(host, updates, unit), refuses_no_update(host, updates, unit)] if server.state else []
    return [
        serves(host, mesh.envoy_version, server, unit),
        *files,
        is_as_desired(host, [change.address for change in reading.plan.changes]),
    ]


def _envoy_unit(desired: Sequence[Resource]) -> str:
    return next(r.name.removesuffix(".service") for r in desired if isinstance(r, Unit) and r.probe.stats)


def _journal(host: str, unit: str) -> str:
    return f'./mesh exec {host} "journalctl -u {unit} -n 20 --no-pager"'


def serves(host: HostName, version: str, server: envoy.Server, unit: str) -> Finding:
    """Return whether the wanted Envoy is live."""
    if not server.state:
        return Finding(host, False, "Envoy does not answer", f"nothing at 127.0.0.1:{ADMIN_PORT}", _journal(host, unit))
    saw = f"Envoy {server.version} is {server.state}"
    ok = server == envoy.Server(version, "LIVE")
    if ok:
        return Finding(host, True, saw)
    return Finding(host, False, f"Envoy {version} is not LIVE", saw, f"./mesh provision --limit {host}")


def runs_its_files(host: HostName, updates: Sequence[envoy.Update], unit: str) -> Finding:
    """Return whether Envoy runs what is on disk."""
    other = [u for u in updates if not u.is_loaded]
    if not other:
        return Finding(host, True, f"runs what its {len(updates)} xDS files say")
    versions = (f"{u.name}: {u.file} is {u.on_disk or 'unreadable'}, {u.loaded or 'nothing'} runs" for u in other)
    return Finding(host, False, "does not run what its xDS files say", _some(list(versions)), _journal(host, unit))


def refuses_no_update(host: HostName, updates: Sequence[envoy.Update], unit: str) -> Finding:
    """Return whether Envoy has taken the last update of every file."""
    refused = [u.name for u in updates if u.is_refused]
    if refused:
        hint = f'./mesh exec {host} "journalctl -u {unit} -n 5 --no-pager --grep rejected"'
        return Finding(host, False, "Envoy refuses an update", _some(refused), hint)
    earlier = sum(u.refused for u in updates)
    over = f"; {earlier} were refused earlier, and replaced since" if earlier else ""
    return Finding(host, True, f"refuses no update{over}")


def is_as_desired(host: HostName, addresses: Sequence[str]) -> Finding:
    """Return whether nothing would have to change."""
    if not addresses:
        return Finding(host, True, "is as the inventory says")
    what = f"is not as the inventory says: {len(addresses)} to change"
    return Finding(host, False, what, _some(addresses), f"./mesh plan --limit {host}", ExitCode.DRIFT)


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def keeps_to_itself(host: Host, neighbour: HostName, dialled: Mapping[tuple[str, int], Dialled]) -> Finding:
    """Return whether the inner ports of `host` were closed to its neighbour."""
    ports = inner_ports(host)
    names = listed([str(port) for _, port in ports])
    opened = [f"{address}:{port}" for address, port in ports if dialled.get((address, port)) is Dialled.OPEN]
    if not opened:
        return Finding(host.name, True, f"lets nobody else in at {names}, tried from {neighbour}")
    what = f"lets others in behind its Envoy, tried from {neighbour}"
    restart = f"./mesh exec {host.name} \"systemctl restart 'envoymesh-*'\""
    hint = f"./mesh provision --limit {host.name}    then, for what still runs as it was: {restart}"
    return Finding(host.name, False, what, f"{listed(opened)} accepts connections", hint)


def has_its_members(
    edge: Host, service: Service, hosts: Sequence[Host], observed: Observed, away: Collection[HostName]
) -> Finding:
    """Return whether the front has exactly the inventory's hosts as members of a service, all of them healthy.

    Where only hosts that are out of reach (`away`) are missing, that is what is wrong, not the front.
    """
    counts, health = envoy.counts(observed), envoy.health(observed)
    total, healthy = (counts.get(f"cluster.{service.name}.membership_{which}", 0) for which in ("total", "healthy"))
    there = {address: ailment for (cluster, address), ailment in health.items() if cluster == service.name}
    names = {str(h.address): h.name for h in hosts}
    ailing = [f"{names.get(a, a)}: {ailment}" for a, ailment in there.items() if ailment]
    ailing += [f"{name}: no member" for a, name in names.items() if a not in there]
    ailing += [f"{a}: not in the inventory" for a in there if a not in names]
    if not ailing and total == healthy == len(hosts):
        return Finding(edge.name, True, f"{service.name} has {total} of {len(hosts)} members, all healthy")
    what = f"{service.name} has {total} members, {healthy} healthy; the inventory has {len(hosts)}"
    explained = set(there) == set(names) and all(names[a] in away for a, ailment in there.items() if ailment)
    code = ExitCode.UNREACHABLE if explained and ailing else ExitCode.PROBLEM
    return Finding(edge.name, False, what, _some(ailing), "./mesh status", code)


@dataclass(frozen=True)
class Talk:
    """What came of `sent` requests for one service: addresses that answered rightly, and what was wrong."""

    by: frozenset[str] = frozenset()
    wrong: tuple[str, ...] = ()
    sent: int = 0

    def heard(self, answer: Answer, service: Service) -> "Talk":
        """Return the talk with one more answer."""
        wrong = wrong_with(answer, service)
        if wrong:
            return Talk(self.by, (*self.wrong, wrong), self.sent + 1)
        return Talk(self.by | {answered_by(answer)}, self.wrong, self.sent + 1)


def answers(edge: Host, service: Service, scheme: str, talk: Talk) -> Finding:
    """Return whether every request for a service was answered as it must be."""
    if not talk.wrong:
        return Finding(edge.name, True, f"{service.name} answers over {scheme}")
    saw = f"{len(talk.wrong)} of {talk.sent} requests for {service.path}: {talk.wrong[0]}"
    hint = _journal(edge.name, "envoymesh-front")
    return Finding(edge.name, False, f"{service.name} does not answer as it must over {scheme}", saw, hint)


def every_host_answers(
    edge: Host, service: Service, hosts: Sequence[Host], talk: Talk, away: Collection[HostName]
) -> Finding:
    """Return whether every host of a service has answered; one that is out of reach (`away`) is no new problem."""
    silent = [h.name for h in hosts if str(h.address) not in talk.by]
    if not silent:
        return Finding(edge.name, True, f"every host of {service.name} answers: {_some([h.name for h in hosts])}")
    what = f"not every host of {service.name} answers"
    saw = f"none of {talk.sent} answers was by {_some(silent)}"
    code = ExitCode.UNREACHABLE if set(silent) <= set(away) else ExitCode.PROBLEM
    return Finding(edge.name, False, what, saw, "./mesh status", code)


def wrong_with(answer: Answer, service: Service) -> str:
    """Return what is wrong with an answer for a service; an empty string: nothing."""
    if answer.status != 200:
        return _told(answer)
    headers = answer.headers
    if headers.get("server") != "envoy" or not headers.get("x-envoy-upstream-service-time", "").isdigit():
        return f"it did not come through Envoy: server: {headers.get('server', 'not told')}"
    number = service.path.rsplit("/", 1)[-1]
    if not answer.body.startswith(f"Hello from behind Envoy (service {number})! "):
        return f"another body: {answer.body[:60]!r}"
    return ""


def wrong_with_not_found(answer: Answer) -> str:
    """Return what is wrong with an answer that must be a 404 of Envoy's own; an empty string: nothing."""
    of_envoy = answer.headers.get("server") == "envoy" and "x-envoy-upstream-service-time" not in answer.headers
    return "" if answer.status == 404 and of_envoy else _told(answer)


def _told(answer: Answer) -> str:
    body = " ".join(answer.body.split())[:160]
    return f"no answer ({body})" if answer.status == 0 else f"status {answer.status} {body}".rstrip()


def no_connection(edge: HostName, scheme: str, error: Failed | OSError) -> Finding:
    """Return the finding about a front whose port cannot be used."""
    what = f"its port for {scheme} cannot be used"
    if not isinstance(error, Failed):
        return Finding(edge, False, what, str(error), f"./mesh provision --limit {edge}")
    saw = "; ".join([error.problems[0].what, *error.problems[0].saw])
    hint = forwarding_hint(edge) if forbids_forwarding(error) else _journal(edge, "envoymesh-front")
    return Finding(edge, False, what, saw, hint, error.exit_code)


def knows_nothing_else(edge: HostName, scheme: str, answers_by_path: Mapping[str, Answer]) -> Finding:
    """Return whether each path that no service has was a 404 of Envoy's own."""
    wrong = [f"{path}: {reason}" for path, a in answers_by_path.items() if (reason := wrong_with_not_found(a))]
    if not wrong:
        return Finding(edge, True, f"answers 404 over {scheme} to {_some(list(answers_by_path))}")
    hint = f"./mesh plan --limit {edge}"
    return Finding(edge, False, f"answers over {scheme} to what no service has", _some(wrong), hint)


def is_published(port: int, answer: Answer) -> Finding:
    """Return whether a front's Envoy answers at a port of the operator's box."""
    subject = f"127.0.0.1:{port}"
    if answer.headers.get("server") == "envoy":
        return Finding(subject, True, "is answered by the front")
    return Finding(subject, False, "is not answered by the front", _told(answer), "./mesh up")


def answered_by(answer: Answer) -> str:
    """Return the mesh address of the host that answered."""
    found = re.search(r"resolvedhostname: (\S+)", answer.body)
    return found[1] if found else ""


def unknown_paths(mesh: Mesh) -> Iterator[str]:
    """Yield paths that no service has: the root, and for each service a sibling that begins like it."""
    yield "/"
    for service in mesh.services.values():
        sibling = f"{service.path}0"
        if not any(f"{sibling}/".startswith(f"{other.path}/") for other in mesh.services.values()):
            yield sibling


def has_days_left(edge: HostName, days: int) -> Finding:
    """Return whether a front's certificate is valid for long enough."""
    what = f"its certificate has {days} days left"
    return Finding(edge, days >= DAYS_LEFT, what, "", "" if days >= DAYS_LEFT else f"./mesh provision --limit {edge}")
