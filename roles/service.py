"""A service host's application: its code, its packages and its unit."""

import hashlib
from functools import lru_cache
from pathlib import Path

from envoymesh.model.mesh import Host, Service
from envoymesh.model.ports import APP_PORT, HEALTH_PATH
from envoymesh.resources import Artifact, Directory, Probe, PythonPackages, Resource, Tree, User
from envoymesh.resources.artifact import tree_digest
from roles.common import OPEN_FILES, PROGRAMS, unit_resources

UNIT = "envoymesh-app.service"
CODE = Path(__file__).parent.parent / "service"


def resources(host: Host, service: Service) -> list[Resource]:
    """Return the application of `service` on `host`; it listens on the loopback, so all traffic takes the sidecar."""
    code, requirements = _code(), _requirements()
    app = f"{PROGRAMS}/app/{tree_digest(code)[:16]}"
    site = f"{PROGRAMS}/site/{hashlib.sha256(requirements.encode()).hexdigest()[:16]}"
    values = {
        "service": service,
        "address": host.address,
        "app": app,
        "site": site,
        "port": APP_PORT,
        "health_path": HEALTH_PATH,
        "open_files": OPEN_FILES,
        "capabilities": "",
    }
    return [
        User("envoymesh-app"),
        *(Directory(f"{PROGRAMS}/{name}") for name in ("app", "site")),
        Artifact(app, Tree(code)),
        Artifact(site, PythonPackages(requirements)),
        *unit_resources(UNIT, "units/app.service.j2", values, "", Probe(APP_PORT, HEALTH_PATH)),
    ]


@lru_cache(maxsize=1)
def _code() -> dict[str, bytes]:
    """Return the application's modules, as a package below the artifact's folder."""
    return {f"service/{path.name}": path.read_bytes() for path in sorted(CODE.glob("*.py"))}


@lru_cache(maxsize=1)
def _requirements() -> str:
    return (CODE / "requirements.txt").read_text(encoding="utf-8")
