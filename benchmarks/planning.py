"""Planning without a network. A program; prints how long it took without its own start."""

import datetime
import json
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

from envoymesh.certificates import make_authority, make_leaf, names_of
from envoymesh.model.inventory import parse
from envoymesh.model.mesh import Mesh
from envoymesh.model.secrets import Secrets
from envoymesh.plan.observed import Observed
from envoymesh.plan.planner import plan_for
from envoymesh.resources import Platform
from envoymesh.run.releases import PROJECT, package_in
from roles import desired

SERVICES = 20
FIRST = IPv4Address("10.64.0.10")
STOCK = Observed(Platform("x86_64", (2, 36), (3, 11)), frozenset(), {}, {}, {}, {}, frozenset())
"""What is read of a host on which nothing was done yet."""


def inventory(hosts: int) -> str:
    """Return an inventory of one edge and service hosts, that many in all."""
    return "\n".join(_lines(hosts))


def _lines(hosts: int) -> Iterator[str]:
    yield from ("name: planning", "provider: existing", "machines: {network: 10.64.0.0/16}", "services:")
    yield from (f"  service{i}: {{path: /service/{i}}}" for i in range(1, SERVICES + 1))
    yield from ("hosts:", f"  front-envoy: {{role: edge, address: {FIRST}}}")
    for i in range(1, hosts):
        service = f"service{i % SERVICES + 1}"
        yield f"  {service}-{i}: {{service: {service}, address: {FIRST + i}}}"


def _secrets(mesh: Mesh, now: datetime.datetime) -> Secrets:
    authority = make_authority(mesh.name, now)
    leaves = {edge.name: make_leaf(authority, names_of(edge, mesh), now) for edge in mesh.edges}
    return Secrets(leaves, authority.chain)


def main() -> int:
    """Plan as many hosts as the command line says; every host must have something to do."""
    text = inventory(int(sys.argv[1]))
    began = time.monotonic()
    mesh = parse(text, "inventory.yaml", seed="planning")
    secrets = _secrets(mesh, datetime.datetime.now(datetime.UTC))
    wanted = desired(mesh, secrets, dict.fromkeys(mesh.services, package_in(PROJECT)), list(mesh.hosts.values()))
    plans = [plan_for(host, resources, STOCK) for host, resources in wanted.items()]
    print(json.dumps({"inside_s": time.monotonic() - began}))
    return 0 if all(plan.changes for plan in plans) else 1


if __name__ == "__main__":
    sys.exit(main())
