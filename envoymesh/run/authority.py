"""Authority: nobody replaces the certificates of another one's by accident. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import roles
from envoymesh import certificates
from envoymesh.model.mesh import HostName
from envoymesh.problems import Failed, Problem
from envoymesh.resources import File
from envoymesh.run.converge import Reading


def refuse_another(readings: Mapping[HostName, Reading | Problem]) -> None:
    """See that clients of every front accept the certificate that it is to get.

    Raises:
        Failed: a front has one of an authority that this box knows nothing of.
    """
    problems = list(_problems(readings))
    if problems:
        raise Failed(*problems)


def refuse_successor(readings: Mapping[HostName, Reading | Problem]) -> None:
    """See that every front has the authority of this box: clients accept what is signed by the next one, and no later.

    Raises:
        Failed: a front is out of reach, or has a certificate of another authority, be it a predecessor.
    """
    away = [replace(r, now=f"nothing was changed: {FOLLOWS}") for r in readings.values() if isinstance(r, Problem)]
    if away:
        raise Failed(*away)
    refuse_another(readings)
    behind = [_behind(*found) for found in _differing(readings)]
    if behind:
        raise Failed(*behind)


FOLLOWS = "a front that misses an authority cannot follow to the one after it"


def _problems(readings: Mapping[HostName, Reading | Problem]) -> Iterator[Problem]:
    for host, ours, there in _differing(readings):
        if not certificates.succeeds(ours, there):
            yield _other(host, ours, there)


def _differing(readings: Mapping[HostName, Reading | Problem]) -> Iterator[tuple[HostName, bytes, bytes]]:
    """Yield the fronts whose authority is another than they are to get: the host, ours, the one there; as PEM."""
    for host, reading in readings.items():
        if isinstance(reading, Problem):
            continue
        there = reading.observed.paths.get(roles.AUTHORITY)
        if there is None or not there.content:
            continue
        for file in (r for r in reading.plan.desired if isinstance(r, File) and r.path == roles.AUTHORITY):
            if certificates.fingerprint(file.content) != certificates.fingerprint(there.content):
                yield host, file.content, there.content


def _behind(host: HostName, ours: bytes, there: bytes) -> Problem:
    return Problem(
        code="certificate/authority-behind",
        what=f"the certificate of `{host}` is of the authority before the one that this box has",
        at=f"{host}  {roles.AUTHORITY}",
        saw=_both(ours, there),
        now=f"nothing was changed: {FOLLOWS}",
        hint="./mesh provision    and if another authority is wanted then: ./mesh renew --ca",
    )


def _both(ours: bytes, there: bytes) -> tuple[str, str]:
    return f"there: {certificates.fingerprint(there)}", f"here:  {certificates.fingerprint(ours)}"


def _other(host: HostName, ours: bytes, there: bytes) -> Problem:
    return Problem(
        code="certificate/other-authority",
        what=f"the certificate of `{host}` is of another authority than this box has",
        at=f"{host}  {roles.AUTHORITY}",
        saw=_both(ours, there),
        now="nothing was changed; the front serves with the certificate that it has",
        hint="put ca.pem and ca-key.pem of whoever has provisioned it into .envoymesh/\n"
        f"if they are lost, and clients get the new ca.pem: ./mesh exec {host} 'rm {roles.AUTHORITY}'",
    )
