"""Authority: nobody replaces the certificates of another one's by accident. Pure."""

from collections.abc import Iterator, Mapping

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


def _problems(readings: Mapping[HostName, Reading | Problem]) -> Iterator[Problem]:
    for host, reading in readings.items():
        if isinstance(reading, Problem):
            continue
        there = reading.observed.paths.get(roles.AUTHORITY)
        if there is None or not there.content:
            continue
        for file in (r for r in reading.plan.desired if isinstance(r, File) and r.path == roles.AUTHORITY):
            if not certificates.succeeds(file.content, there.content):
                yield _other(host, file.content, there.content)


def _other(host: HostName, ours: bytes, there: bytes) -> Problem:
    return Problem(
        code="certificate/other-authority",
        what=f"the certificate of `{host}` is of another authority than this box has",
        at=f"{host}  {roles.AUTHORITY}",
        saw=(f"there: {certificates.fingerprint(there)}", f"here:  {certificates.fingerprint(ours)}"),
        now="nothing was changed; the front serves with the certificate that it has",
        hint="put ca.pem and ca-key.pem of whoever has provisioned it into .envoymesh/\n"
        f"if they are lost, and clients get the new ca.pem: ./mesh exec {host} 'rm {roles.AUTHORITY}'",
    )
