"""Asks fronts what a client would ask, through the SSH connections to their hosts."""

import socket
import ssl
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from envoymesh.findings import Finding
from envoymesh.model.mesh import Host, HostName, Mesh, Publish, Service
from envoymesh.problems import Failed
from envoymesh.run import proofs
from envoymesh.run.tunnel import OpenSocket, Tunnel, encrypted
from envoymesh.transport.ssh import Session

TALK_S = 10.0
"""So long one service is asked, at most, until each of its hosts has answered."""

ENOUGH_WRONG = 3
"""So many wrong answers say enough; each may have taken as long as the front waits."""

TALKS_AT_ONCE = 16


@dataclass(frozen=True)
class Front:
    """The front of one edge host: its sockets are opened through `session`, and `authority` judges its certificate."""

    session: Session
    edge: Host
    mesh: Mesh
    authority: ssl.SSLContext

    def opener(self, scheme: str) -> OpenSocket:
        """Return what connects to the port of `http` or `https`; it raises `Failed` or `OSError` where it cannot."""
        port = self.mesh.http_port if scheme == "http" else self.mesh.https_port

        def forwarded() -> socket.socket:
            return self.session.forward(str(self.edge.address), port)

        return forwarded if scheme == "http" else encrypted(forwarded, self.edge.name, self.authority)

    def tunnel(self, scheme: str) -> Tunnel:
        """Return HTTP over such a connection."""
        return Tunnel(self.edge.name, self.opener(scheme))


def front_findings(front: Front, services: Sequence[Service], away: Collection[HostName]) -> list[Finding]:
    """Return what a front's clients get: these services, nothing else, under a certificate that is valid.

    Args:
        front: which front.
        services: which services to ask for.
        away: hosts that are known to be out of reach.
    """
    doors = {scheme: _door(front, scheme) for scheme in ("http", "https")}
    found = [finding for finding in doors.values() if finding is not None]
    schemes = [scheme for scheme, finding in doors.items() if finding is None or finding.ok]
    found += [_nothing_else(front, scheme) for scheme in schemes]
    with ThreadPoolExecutor(TALKS_AT_ONCE) as pool:
        talks = [
            pool.submit(_service_findings, front, service, scheme, scheme == schemes[0], away)
            for service in services
            for scheme in schemes
        ]
        return found + [finding for talk in talks for finding in talk.result()]


def _door(front: Front, scheme: str) -> Finding | None:
    """Return the finding about the certificate, or that the port of a scheme cannot be used."""
    try:
        with closing(front.opener(scheme)()) as connection:
            certificate = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
    except (Failed, OSError) as error:
        return proofs.no_connection(front.edge.name, scheme, error)
    if not certificate:
        return None
    left_s = ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()
    return proofs.has_days_left(front.edge.name, int(left_s // 86400))


def _nothing_else(front: Front, scheme: str) -> Finding:
    paths = list(proofs.unknown_paths(front.mesh))
    with closing(front.tunnel(scheme)) as tunnel:
        try:
            return proofs.knows_nothing_else(front.edge.name, scheme, {path: tunnel.ask(path) for path in paths})
        except Failed as failed:
            return proofs.no_connection(front.edge.name, scheme, failed)


def _service_findings(
    front: Front, service: Service, scheme: str, everyone: bool, away: Collection[HostName]
) -> list[Finding]:
    """Ask for a service until every host has answered once, or, where not `everyone` is wanted, one has."""
    hosts = front.mesh.hosts_of(service.name)
    try:
        talk = _talk(front.tunnel(scheme), service, {str(h.address) for h in hosts} if everyone else set())
    except Failed as failed:
        return [proofs.no_connection(front.edge.name, scheme, failed)]
    found = [proofs.answers(front.edge, service, scheme, talk)]
    if everyone and len(talk.wrong) < ENOUGH_WRONG:
        found.append(proofs.every_host_answers(front.edge, service, hosts, talk, away))
    return found


def _talk(tunnel: Tunnel, service: Service, wanted: Collection[str]) -> proofs.Talk:
    """Ask for a service, over one connection, until all `wanted` addresses have answered.

    A connection stays with one of Envoy's workers, which goes round the members in turn; other clients of that
    worker take turns too, hence the many requests.
    """
    end = time.monotonic() + TALK_S
    talk = proofs.Talk().heard(tunnel.ask(service.path), service)
    with closing(tunnel):
        while not talk.by >= set(wanted) and talk.sent < 12 * len(wanted) + 20 and time.monotonic() < end:
            if len(talk.wrong) >= ENOUGH_WRONG:
                break
            talk = talk.heard(tunnel.ask(service.path), service)
    return talk


def published_findings(publish: Publish, authority: ssl.SSLContext) -> list[Finding]:
    """Return whether the first front and its admin interface answer at the published ports of this box."""

    def to(port: int) -> OpenSocket:
        return lambda: socket.create_connection(("127.0.0.1", port), timeout=5)

    tunnels = {
        publish.http: Tunnel("localhost", to(publish.http)),
        publish.https: Tunnel("localhost", encrypted(to(publish.https), "localhost", authority)),
        publish.admin: Tunnel("localhost", to(publish.admin)),
    }
    found = []
    for port, tunnel in tunnels.items():
        with closing(tunnel):
            found.append(proofs.is_published(port, tunnel.ask("/")))
    return found
