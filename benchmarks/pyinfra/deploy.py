"""14 resources, as in benchmarks/ansible/playbook.yaml: `payload` is the folder of the files, `envoy` the binary."""

from pyinfra import host
from pyinfra.operations import files, server, systemd

payload = host.data.payload

server.user(user="bench", system=True, create_home=False, ensure_home=False, shell="/usr/sbin/nologin")

for path in ("/etc/bench", "/etc/bench/envoy", "/opt/bench", "/opt/bench/bin"):
    files.directory(path=path, mode="755")

files.put(src=host.data.envoy, dest="/opt/bench/bin/envoy", mode="755")
for name in ("bootstrap.yaml", "cds.yaml", "lds.yaml"):
    files.put(src=f"{payload}/{name}", dest=f"/etc/bench/envoy/{name}", mode="644")
files.put(src=f"{payload}/app.py", dest="/opt/bench/app.py", mode="644")
for unit in ("bench-app.service", "bench-envoy.service"):
    files.put(src=f"{payload}/{unit}", dest=f"/etc/systemd/system/{unit}", mode="644")

for unit in ("bench-app.service", "bench-envoy.service"):
    systemd.service(service=unit, running=True, enabled=True)
