"""What a host must have: one pure function (host, mesh, …) → resources per role."""

from collections.abc import Mapping, Sequence

from envoymesh.model.mesh import Host, HostName, Mesh, ServiceName
from envoymesh.model.releases import RELEASES
from envoymesh.model.secrets import Secrets
from envoymesh.problems import Failed, Problem, did_you_mean
from envoymesh.resources import Resource
from roles import common, edge, service, sidecar
from roles.edge import AUTHORITY
from roles.render import keep_compiled
from roles.service import Code

Releases = Mapping[ServiceName, Mapping[str, bytes]]
"""The code of services: the files of the package by their path in it."""


def desired(
    mesh: Mesh, secrets: Secrets, releases: Releases, hosts: Sequence[Host]
) -> dict[HostName, tuple[Resource, ...]]:
    """Return what each of `hosts` must have, in the order in which it is to be made.

    Raises:
        Failed: the inventory asks for a release of Envoy that is not pinned.
    """
    if mesh.envoy_version not in RELEASES:
        raise Failed(_unknown_version(mesh.envoy_version))
    codes = {name: Code(files) for name, files in releases.items()}
    return {host.name: (*common.resources(mesh), *_of_role(host, mesh, secrets, codes)) for host in hosts}


def _of_role(host: Host, mesh: Mesh, secrets: Secrets, codes: Mapping[ServiceName, Code]) -> list[Resource]:
    if host.service is None:
        return edge.resources(host, mesh, secrets)
    its_service = mesh.services[host.service]
    application = service.application(host, its_service, codes[host.service])
    return [*service.resources(application), *sidecar.resources(host, mesh, its_service, application)]


def _unknown_version(version: str) -> Problem:
    return Problem(
        code="envoy/unknown-version",
        what=f"there is no pinned build of Envoy {version}",
        at="inventory.yaml  envoy.version",
        saw=(f"pinned: {', '.join(RELEASES)}",),
        now="nothing was changed",
        hint=did_you_mean(version, RELEASES) or f"use {next(iter(RELEASES))}",
    )


__all__ = ["AUTHORITY", "Releases", "desired", "keep_compiled"]
