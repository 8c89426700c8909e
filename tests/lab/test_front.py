"""The front at its edge: what it lets through, and what clients notice when something behind it goes."""

import http.client
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from functools import partial

import pytest

from envoymesh.model.mesh import HostName
from tests.labs import run
from tests.meshes import TestMesh


def curl(lab: TestMesh, path: str, *words: str, show: str = "%{http_code}") -> str:
    command = ["curl", "-s", "--path-as-is", "-o", "/dev/null", "-w", show, *words, f"localhost:{lab.http}{path}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout


@pytest.mark.parametrize("path", ["/service//1", "/x/../service/1", "/./service/1"])
def test_a_path_is_matched_as_services_will_see_it(running: TestMesh, path: str) -> None:
    assert curl(running, path) == "200"


def test_an_escaped_slash_is_sent_back_as_a_plain_one(running: TestMesh) -> None:
    answer = curl(running, "/service%2F1", show="%{http_code} %{redirect_url}")
    assert answer == f"307 http://localhost:{running.http}/service/1"


def test_a_header_with_an_underscore_is_refused(running: TestMesh) -> None:
    assert curl(running, "/service/1", "-H", "x_forged: 1") == "400"
    assert curl(running, "/service/1", "-H", "x-honest: 1") == "200"


def test_nobody_outside_is_heard_on_what_only_a_proxy_may_say(running: TestMesh) -> None:
    assert curl(running, "/service/1", "-H", "x-envoy-upstream-alt-stat-name: forged") == "200"
    stats = running.on("front-envoy", "curl -s localhost:8001/stats?usedonly")
    assert "forged" not in stats
    assert "cluster.service1.external.upstream_rq_200: " in stats
    assert "cluster.service1.internal.upstream_rq_200: " not in stats


def test_a_sidecar_lets_through_its_own_service_and_the_health_check_alone(running: TestMesh) -> None:
    sidecar = "http://{}:8000".format(running.workspace.mesh.hosts[HostName("service1-1")].address)
    for path, code in (("/service/1", 200), ("/healthz", 200), ("/service/2", 404), ("/", 404)):
        asked = f"curl -s -o /dev/null -w '%{{http_code}}' {sidecar}{path}"
        assert running.on("front-envoy", asked).strip() == str(code)


def test_a_member_that_goes_answers_first_what_it_was_asked(lab: TestMesh) -> None:
    lab.run("scale", "service1=2")
    leaving = partial(run, lab.workspace.provider, lab.workspace.mesh.hosts[HostName("service1-2")])
    with ThreadPoolExecutor(8) as pool:
        leaving("systemctl kill --signal=STOP 'envoymesh-app-*'")
        asked = [pool.submit(post, lab) for _ in range(8)]
        assert wait(asked, timeout=1).not_done, "some of them must have come to the host that goes"
        with lab.start("scale", "service1=1") as process:
            assert process.stderr is not None
            for line in process.stderr:
                if re.search("front-envoy +done", line):
                    leaving("systemctl kill --signal=CONT 'envoymesh-app-*'")
    assert process.returncode == 0
    assert {future.result() for future in asked} == {405}


def post(lab: TestMesh) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", lab.http, timeout=20)) as connection:
        connection.request("POST", "/service/1")
        return connection.getresponse().status
