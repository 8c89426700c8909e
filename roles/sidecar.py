"""A service host's sidecar: the Envoy through which all traffic to the application goes."""

from functools import lru_cache

from envoymesh.model.mesh import Host, Mesh, Service
from envoymesh.model.ports import APP_PORT, HEALTH_PATH, SIDECAR_PORT
from envoymesh.resources import Effect, Resource
from roles.common import Process, Xds, process_resources
from roles.render import render
from roles.service import Application


def resources(host: Host, mesh: Mesh, service: Service, application: Application) -> list[Resource]:
    """Return the sidecar of `host`, which runs this `application` of `service`."""
    process = sidecar(mesh, service)
    listeners = render(
        "sidecar/lds.yaml.j2",
        folder=process.folder,
        address=host.address,
        sidecar_port=SIDECAR_PORT,
        health_path=HEALTH_PATH,
    )
    endpoint = render("sidecar/eds.yaml.j2", listen=application.listen, app_port=APP_PORT)
    files = [
        Xds("eds/local_service.yaml", endpoint, "cluster.local_service.version_text"),
        *_of_all_hosts(service, process.folder),
        Xds("lds.yaml", listeners, "listener_manager.lds.version_text", effect=Effect.DRAIN),
    ]
    return process_resources(process, host, mesh, files)


@lru_cache
def _of_all_hosts(service: Service, folder: str) -> tuple[Xds, ...]:
    """Return the files that are the same on every host of a service."""
    clusters = render("sidecar/cds.yaml.j2", folder=folder)
    routes = render("sidecar/rds.yaml.j2", service=service, health_path=HEALTH_PATH)
    return (
        Xds("cds.yaml", clusters, "cluster_manager.cds.version_text"),
        Xds("rds.yaml", routes, "http.ingress_http.rds.local_route.version_text"),
    )


def sidecar(mesh: Mesh, service: Service) -> Process:
    """Return the sidecar's process: one worker and a quarter of the memory, the rest is the application's."""
    return Process(
        name="sidecar",
        cluster=service.name,
        base_id=2,
        workers=1,
        heap_bytes=mesh.machines.memory_mib * 2**20 // 4,
    )
