"""Up and down: machines come to exist, and go."""

from envoymesh.events import Event, Notify
from envoymesh.model.mesh import HostName
from envoymesh.problems import Failed, Problem
from envoymesh.run.workspace import Workspace, provider_file


def make_machines(workspace: Workspace, notify: Notify) -> None:
    """Make the machines of the inventory that are missing and publish the front; nothing for existing hosts.

    Raises:
        Failed: the provider cannot work here, a name or a port is taken, a machine does not start.
    """
    maker = workspace.maker()
    if maker is None:
        return
    missing = maker.missing()
    if missing:
        raise Failed(
            Problem(
                code="machines/provider-unusable",
                what=f"{maker.name} cannot work on this box",
                at=str(workspace.inventory),
                saw=(missing,),
                now="nothing was changed",
                hint="./mesh up --provider nspawn (as root), or --provider existing for machines that you have",
            )
        )
    workspace.state_dir.mkdir(mode=0o700, exist_ok=True)
    mesh = workspace.mesh
    maker.publish(
        mesh.edges[0], {mesh.publish.http: mesh.http_port, mesh.publish.https: mesh.https_port}, mesh.publish.admin
    )
    provider_file(workspace.inventory).write_text(f"{maker.name} {mesh.identifier}\n")
    maker.create(list(mesh.hosts.values()), lambda host, text: notify(Event(host, text)))


def down(workspace: Workspace, notify: Notify) -> list[HostName]:
    """Destroy every machine that was made for this mesh; return their names.

    Raises:
        Failed: the hosts are not ours to destroy.
    """
    maker = workspace.maker()
    if maker is None:
        raise Failed(
            Problem(
                code="machines/not-ours",
                what="these machines exist without this tool, so it does not destroy them",
                at=str(workspace.inventory),
                now="nothing was changed",
                hint="remove a host from the mesh: ./mesh remove-service-host HOST",
            )
        )
    names = list(maker.machines())
    maker.destroy(names, lambda host, text: notify(Event(host, text)))
    provider_file(workspace.inventory).unlink(missing_ok=True)
    return names
