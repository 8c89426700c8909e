"""An edge host: the front Envoy."""

from collections.abc import Iterator

from envoymesh.model.mesh import Host, Mesh, Service
from envoymesh.model.ports import HEALTH_PATH, SIDECAR_PORT
from envoymesh.model.secrets import KeyPair, Secrets
from envoymesh.resources import Effect, File, Resource
from roles.common import CONFIG, Process, Xds, process_resources
from roles.render import render

AUTHORITY = f"{CONFIG}/authority.pem"
"""Whose certificate a front has: another operator's box that knows another authority must not replace it."""


def resources(host: Host, mesh: Mesh, secrets: Secrets) -> list[Resource]:
    """Return what the edge `host` has besides what all have; `secrets` has its certificate."""
    process = process_resources(front(mesh), host, mesh, list(_files(mesh, secrets.front[host.name])))
    return [*process, File(AUTHORITY, secrets.authority)]


def front(mesh: Mesh) -> Process:
    """Return the front's process: half of the memory and all processors of the host are its own.

    With one worker the round robin is exact; every further one counts for itself.
    """
    low_port = min(mesh.http_port, mesh.https_port) < 1024
    return Process(
        name="front",
        cluster="front-proxy",
        base_id=1,
        workers=mesh.machines.cpus,
        heap_bytes=mesh.machines.memory_mib * 2**20 // 2,
        capabilities="CAP_NET_BIND_SERVICE" if low_port else "",
        leave_s=mesh.leave_s,
    )


def _files(mesh: Mesh, pair: KeyPair) -> Iterator[Xds]:
    folder = front(mesh).folder
    services = list(mesh.services.values())
    for service in services:
        members = render(
            "front/eds.yaml.j2", service=service, hosts=mesh.hosts_of(service.name), sidecar_port=SIDECAR_PORT
        )
        yield Xds(f"eds/{service.name}.yaml", members, f"cluster.{service.name}.version_text")
    certificate = render("front/sds.yaml.j2", pair=pair)
    yield Xds("sds.yaml", certificate, "sds.front-certificate.version_text", secret=True, about=pair.about)
    clusters = render("front/cds.yaml.j2", services=services, folder=folder, health_path=HEALTH_PATH)
    yield Xds("cds.yaml", clusters, "cluster_manager.cds.version_text")
    routes = render("front/rds.yaml.j2", services=sorted(services, key=_deepest_first))
    yield Xds("rds.yaml", routes, "http.ingress_http.rds.local_route.version_text")
    ports = {"http_port": mesh.http_port, "https_port": mesh.https_port}
    listeners = render("front/lds.yaml.j2", folder=folder, health_path=HEALTH_PATH, **ports)
    yield Xds("lds.yaml", listeners, "listener_manager.lds.version_text", effect=Effect.DRAIN)


def _deepest_first(service: Service) -> tuple[int, str]:
    """Order routes so that /a/b is tried before /a, and one inventory always gives one order."""
    return -service.path.count("/"), service.path
