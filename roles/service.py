"""A service host's application: its release's code and packages, and the unit that runs it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from envoymesh.model.mesh import Host, Service
from envoymesh.model.ports import APP_PORT, HEALTH_PATH
from envoymesh.resources import Artifact, Directory, Probe, PythonPackages, Resource, Tree, User
from envoymesh.resources.artifact import tree_digest
from roles.common import OPEN_FILES, PROGRAMS, unit_resources
from roles.render import render

USER = "envoymesh-app"
"""The system user that it runs as, and what the names of its units begin with."""

TEMPLATE = "units/app.service.j2"


class Code:
    """A release: the files of the package `service` by their path in it, `requirements.txt` among them."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = {f"service/{path}": content for path, content in files.items()}
        self.requirements = files["requirements.txt"].decode()
        self.app = f"{PROGRAMS}/app/{tree_digest(self.files)[:16]}"
        self.site = f"{PROGRAMS}/site/{hashlib.sha256(self.requirements.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Application:
    """A release of a service on a host.

    `identity` is a digest of all that its process is started from. Its unit's name and the address that it listens on
    follow from that, so that two of them never meet on a host, and none needs to know of another.
    """

    code: Code
    values: Mapping[str, object]
    identity: str

    @property
    def unit(self) -> str:
        """The unit that runs it."""
        return f"{USER}-{self.identity}.service"

    @property
    def listen(self) -> str:
        """Its address: one of the 16 million of the loopback that are neither 127.0.x.x nor 127.255.x.x."""
        first, second, third = bytes.fromhex(self.identity[:6])
        return f"127.{1 + first % 254}.{second}.{third}"


def application(host: Host, service: Service, code: Code) -> Application:
    """Return the release `code` of `service` as it runs on `host`."""
    values = {
        "service": service,
        "address": host.address,
        "app": code.app,
        "site": code.site,
        "port": APP_PORT,
        "health_path": HEALTH_PATH,
        "open_files": OPEN_FILES,
        "capabilities": "",
        "before": "envoymesh-sidecar.service",
    }
    started_from = render(TEMPLATE, stamp="", listen="", **values)
    return Application(code, values, hashlib.sha256(started_from.encode()).hexdigest()[:12])


def resources(application: Application) -> list[Resource]:
    """Return what an application needs; it listens on the loopback, so all traffic takes the sidecar."""
    code, probe = application.code, Probe(APP_PORT, HEALTH_PATH, address=application.listen)
    values = {**application.values, "listen": application.listen}
    file, unit = unit_resources(application.unit, TEMPLATE, values, "", probe)
    return [
        User(USER),
        *(Directory(f"{PROGRAMS}/{name}") for name in ("app", "site")),
        Artifact(code.app, Tree(code.files)),
        Artifact(code.site, PythonPackages(code.requirements)),
        file,
        replace(unit, replaces=USER),
    ]
