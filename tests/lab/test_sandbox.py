"""The sandbox's guide, step by step, on hosts with real sshd, systemd and Envoy."""

import resource
import subprocess
from functools import partial
from ipaddress import ip_address

import pytest

from tests.labs import eventually, free_ports
from tests.meshes import TestMesh, document


def curl(*words: str) -> str:
    return subprocess.run(["curl", "-s", "-S", *words], capture_output=True, text=True, timeout=20, check=True).stdout


def test_the_front_answers_for_both_services_over_http(running: TestMesh) -> None:
    for n, address in (("1", "10.81.0.21"), ("2", "10.81.0.31")):
        answer = curl("-i", f"localhost:{running.http}/service/{n}").replace("\r", "")
        head, body = answer.split("\n\n", 1)
        assert head.startswith("HTTP/1.1 200 OK")
        assert "content-type: text/html; charset=utf-8" in head
        assert "server: envoy" in head
        assert "x-envoy-upstream-service-time: " in head
        assert body == (f"Hello from behind Envoy (service {n})! hostname: service{n}-1 resolvedhostname: {address}\n")


def test_https_is_verified_by_the_authority_and_speaks_h2_and_http_1_1(running: TestMesh) -> None:
    authority = ["--cacert", str(running.folder / ".envoymesh/ca.pem")]
    for name in ("localhost", "127.0.0.1"):
        assert "service 1" in curl(*authority, f"https://{name}:{running.https}/service/1")
    for asked, version in (("--http1.1", "1.1"), ("--http2", "2")):
        url = f"https://localhost:{running.https}/service/2"
        assert curl(*authority, asked, "-o", "/dev/null", "-w", "%{http_version}", url) == version
    assert "service 1" in curl("-k", f"https://localhost:{running.https}/service/1")
    refused = subprocess.run(["curl", "-s", f"https://localhost:{running.https}/service/1"], check=False, timeout=20)
    assert refused.returncode == 60, "curl must not trust it without the authority"


def test_https_refuses_tls_1_1_of_a_client_that_speaks_it(running: TestMesh) -> None:
    certificate, key = running.folder / ".envoymesh/ca.pem", running.folder / ".envoymesh/ca-key.pem"
    (port,) = free_ports(1)
    server = ["openssl", "s_server", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-www", "-accept", f"127.0.0.1:{port}"]
    with subprocess.Popen([*server, "-cert", certificate, "-key", key], stdout=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: tls_1_1(port) == 0, what="a server of TLS 1.1")
            assert tls_1_1(running.https) == 35, "the handshake must fail"
        finally:
            process.kill()


def tls_1_1(port: int) -> int:
    """Return the exit code of curl when it offers TLS 1.0 and 1.1 with any cipher."""
    old = ["--tlsv1.0", "--tls-max", "1.1", "--ciphers", "ALL:@SECLEVEL=0"]
    command = ["curl", "-s", "-k", "-o", "/dev/null", *old, f"https://127.0.0.1:{port}/service/1"]
    return subprocess.run(command, check=False, timeout=20).returncode


@pytest.mark.parametrize("path", ["/service/10", "/service/1x", "/service", "/", "/service/3"])
def test_anything_else_is_not_found_and_envoy_says_so(running: TestMesh, path: str) -> None:
    assert running.get(path) == (404, "")


def test_scaling_up_is_round_robin_and_down_again_leaves_the_inventory_as_it_was(lab: TestMesh) -> None:
    before = lab.inventory.read_text()
    lab.run("scale", "service1=3")
    added = set(lab.inventory.read_text().splitlines()) - set(before.splitlines())
    assert added == {
        "  service1-2: {service: service1, address: 10.81.0.22}",
        "  service1-3: {service: service1, address: 10.81.0.23}",
    }
    assert lab.hostnames("service1") == {"service1-1", "service1-2", "service1-3"}
    stats = lab.run("admin", "front-envoy", "/stats").stdout
    assert "cluster.service1.membership_total: 3\n" in stats
    lab.run("check")
    lab.run("scale", "service1=1")
    assert lab.inventory.read_text() == before
    assert lab.hostnames("service1") == {"service1-1"}
    assert "cluster.service1.membership_total: 1\n" in lab.run("admin", "front-envoy", "/stats").stdout
    lab.run("check")


def test_curl_on_a_host_and_the_admin_interface(running: TestMesh) -> None:
    assert "service 1" in running.on("front-envoy", "curl -s localhost:8080/service/1")
    info = document(running.run("admin", "front-envoy", "/server_info").stdout)
    assert info["state"] == "LIVE"
    assert "/1.40.0/" in info["version"]
    assert info["node"]["cluster"] == "front-proxy"
    stats = running.run("admin", "front-envoy", "/stats").stdout
    assert "cluster.service2.membership_total: 1\n" in stats
    http2 = next(line for line in stats.splitlines() if line.startswith("cluster.service1.upstream_cx_http2_total"))
    assert int(http2.split(": ")[1]) > 0
    assert document(curl(f"localhost:{running.admin}/server_info"))["state"] == "LIVE"


def test_application_and_admin_are_on_loopback_and_nothing_else_is_open(running: TestMesh) -> None:
    listening = "ss -Hltn | awk '{print $4}' | sort -u"
    assert set(running.on("front-envoy", listening).split()) == {
        "0.0.0.0:22",
        "[::]:22",
        "127.0.0.1:8001",
        "0.0.0.0:8080",
        "0.0.0.0:8443",
    }
    assert set(running.on("service1-1", listening).split()) - {"0.0.0.0:8000", "10.81.0.21:8000"} == {
        "0.0.0.0:22",
        "[::]:22",
        "127.0.0.1:8001",
        f"{listening_address(running)}:8080",
    }


def listening_address(lab: TestMesh) -> str:
    """Return the address of the release on service1-1, which is of the loopback."""
    address = lab.on("service1-1", "grep -o 'listen [^ ]*' /etc/systemd/system/envoymesh-app-*.service").split()[-1]
    assert ip_address(address).is_loopback
    return address


def test_processes_run_as_users_of_their_own_within_their_limits(running: TestMesh) -> None:
    application = running.application("service1-1")
    units = {
        "front-envoy": {"envoymesh-front.service": "envoymesh-front"},
        "service1-1": {"envoymesh-sidecar.service": "envoymesh-sidecar", application: "envoymesh-app"},
    }
    for host, expected in units.items():
        for unit, user in expected.items():
            pid = running.on(host, f"systemctl show -p MainPID --value {unit}").strip()
            assert running.on(host, f"ps -o user:32= -p {pid}").strip() == user
            assert running.on(host, f"systemctl show -p LimitNOFILE --value {unit}").strip() == "65536"
            assert running.on(host, f"grep '^Max open files' /proc/{pid}/limits").split()[-2] == open_files()
            assert running.on(host, f"systemctl is-enabled {unit}").strip() == "enabled"
    assert "running" in running.on("front-envoy", "systemctl is-system-running")


def open_files() -> str:
    """Return the hard limit that a unit gets: 65536, unless this box lets not even root have so many."""
    raised = subprocess.run(["prlimit", "--nofile=65536:65536", "true"], capture_output=True, check=False)
    return "65536" if raised.returncode == 0 else str(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def test_access_lines_are_json_in_the_journal(running: TestMesh) -> None:
    running.get("/service/1?looked-for")

    def line() -> str:
        return running.on("front-envoy", "journalctl -u envoymesh-front -o cat --no-pager | grep looked-for || true")

    text = eventually(line, within_s=20, what="an access line")
    assert document(text.splitlines()[0])["response_code"] == 200


def test_nothing_to_do_is_one_execution_for_a_host_and_a_change_is_two(lab: TestMesh) -> None:
    hosts = ("front-envoy", "service1-1", "service2-1")
    before = {host: lab.executions(host) for host in hosts}
    done = lab.run("provision")
    assert "3 unchanged" in done.stdout
    after = {host: lab.executions(host) for host in hosts}
    assert {host: after[host] - before[host] - 1 for host in hosts} == dict.fromkeys(hosts, 1)
    lab.run("plan")
    lab.on("service1-1", "chmod 0600 /etc/systemd/system/envoymesh-app-*.service")
    earlier = lab.executions("service1-1")
    assert "2 unchanged, 1 changed" in lab.run("provision").stdout
    assert lab.executions("service1-1") - earlier - 1 == 2


def managed(lab: TestMesh, host: str) -> list[str]:
    return [address.removeprefix("file:") for address in addresses(lab, host) if address.startswith("file:")]


def addresses(lab: TestMesh, host: str) -> list[str]:
    return lab.on(host, "tr '\\0' '\\n' < /var/lib/envoymesh/manifest").splitlines()


@pytest.mark.parametrize("host", ["front-envoy", "service1-1"])
def test_any_managed_file_edited_by_hand_is_shown_and_repaired(lab: TestMesh, host: str) -> None:
    files = managed(lab, host)
    assert len(files) > 3
    for path in files:
        lab.on(host, f"echo '# by hand' >> {path}")
    plan = lab.run("plan", code=2).stdout
    for path in files:
        assert f"file:{path}" in plan
    assert "-# by hand" in plan
    assert "PRIVATE KEY" not in plan
    lab.run("check", code=2)
    lab.run("provision")
    lab.run("plan")
    lab.run("check")


def test_an_edited_binary_is_noticed_and_replaced(lab: TestMesh) -> None:
    path = next(
        address.removeprefix("artifact:")
        for address in addresses(lab, "service2-1")
        if address.startswith("artifact:") and address.endswith("/envoy")
    )
    lab.on("service2-1", f"cp {path} {path}.new && echo >> {path}.new && mv {path}.new {path}")
    assert f"artifact:{path}" in lab.run("plan", code=2).stdout
    lab.run("provision")
    lab.run("plan")


def test_a_stopped_unit_is_started_and_a_disabled_one_enabled(lab: TestMesh) -> None:
    application = lab.application("service1-1")
    lab.on("service1-1", f"systemctl stop envoymesh-sidecar && systemctl disable {application}")
    plan = lab.run("plan", code=2).stdout
    assert "unit:envoymesh-sidecar.service" in plan
    assert f"unit:{application}" in plan
    lab.run("provision")
    lab.run("check")


def test_all_hosts_rebooted_at_once_serve_again_with_no_command_given(lab: TestMesh) -> None:
    started = {host: booted_at(lab, host) for host in lab.workspace.mesh.hosts}
    for host in started:
        lab.on(host, "systemd-run --quiet --on-active=1 systemctl reboot")
    eventually(lambda: stops(lab), within_s=60, what="the front going away")
    for n in ("1", "2"):
        eventually(partial(answers, lab, f"/service/{n}"), within_s=90, what=f"service {n} after the reboot")
    eventually(lambda: lab.run("check", code=None).returncode == 0, within_s=60, what="a clean check")
    assert all(booted_at(lab, host) != started[host] for host in started)


def answers(lab: TestMesh, path: str) -> bool:
    return lab.get(path)[0] == 200


def booted_at(lab: TestMesh, host: str) -> str:
    return lab.on(host, "systemctl show -p UserspaceTimestamp")


def stops(lab: TestMesh) -> bool:
    try:
        return lab.get("/service/1")[0] != 200
    except OSError:
        return True


def test_status_tells_every_host_within_100_columns(running: TestMesh) -> None:
    text = running.run("status").stdout
    for name, host in running.workspace.mesh.hosts.items():
        assert name in text
        assert str(host.address) in text
    assert running.width(text) <= 100
    rows = document(running.run("status", "--json").stdout)
    assert {row["host"] for row in rows["hosts"]} == set(running.workspace.mesh.hosts)


def test_down_leaves_nothing_behind_and_up_makes_it_again(lab: TestMesh) -> None:
    identifier = lab.workspace.mesh.identifier
    lab.run("down")
    for command in (["ip", "netns", "list"], ["ps", "-eo", "args"], ["cat", "/proc/self/mounts"], ["ss", "-Hltn"]):
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert identifier not in text
        assert str(lab.folder) not in text
        assert f"127.0.0.1:{lab.http} " not in text
    done = lab.run("status", code=4)
    assert "front-envoy" in done.stdout
    lab.run("up")
