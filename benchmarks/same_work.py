"""The peers' 14 resources, made by envoymesh's engine. A program; prints what `provision` prints.

As in benchmarks/ansible/playbook.yaml and benchmarks/pyinfra/deploy.py. It waits, besides, until both units answer.
"""

import sys
from pathlib import Path

from envoymesh.events import exit_code_of
from envoymesh.model.releases import RELEASES
from envoymesh.report.plan import outcome_lines, outcomes_document
from envoymesh.report.terminal import Terminal
from envoymesh.resources import Artifact, Directory, EnvoyBinary, File, Probe, Resource, Unit, User
from envoymesh.run.provision import converge
from envoymesh.run.workspace import open_workspace

PAYLOAD = Path(__file__).parent / "payload"
FILES = {
    "bootstrap.yaml": "/etc/bench/envoy/bootstrap.yaml",
    "cds.yaml": "/etc/bench/envoy/cds.yaml",
    "lds.yaml": "/etc/bench/envoy/lds.yaml",
    "app.py": "/opt/bench/app.py",
    "bench-app.service": "/etc/systemd/system/bench-app.service",
    "bench-envoy.service": "/etc/systemd/system/bench-envoy.service",
}


def resources() -> list[Resource]:
    """Return what every host is to have."""
    version, builds = next(iter(RELEASES.items()))
    envoy = EnvoyBinary(version, {machine: build.binary for machine, build in builds.items()})
    return [
        User("bench"),
        *(Directory(path) for path in ("/etc/bench", "/etc/bench/envoy", "/opt/bench", "/opt/bench/bin")),
        Artifact("/opt/bench/bin/envoy", envoy),
        *(File(path, (PAYLOAD / name).read_bytes()) for name, path in FILES.items()),
        Unit("bench-app.service", "", Probe(9080, "/")),
        Unit("bench-envoy.service", "", Probe(9001, "/ready")),
    ]


def main() -> int:
    """Make them on all the hosts of the inventory that the command line names."""
    terminal = Terminal()
    workspace = open_workspace(Path(sys.argv[1]))
    hosts, wanted = list(workspace.mesh.hosts.values()), resources()
    with workspace.fleet(hosts) as fleet:
        outcomes = converge(workspace, fleet, {host.name: wanted for host in hosts}, terminal.notify)
    code = exit_code_of(list(outcomes.values()))
    terminal.lines(outcome_lines(outcomes_document(list(outcomes.values()), code, "")))
    return code


if __name__ == "__main__":
    sys.exit(main())
