"""A mistake in any file that Envoy reads is refused by the very Envoy that would read it."""

import json
from typing import Any

import pytest

from envoymesh.model.mesh import HostName
from roles.render import parsed
from roles.validation import static_bootstrap
from tests.golden.conftest import Validate
from tests.rendering import desired_of, files_of

VERSION = "1.40.0"


def listener(data: Any) -> None:
    data["resources"][0]["filter_chains"][0]["filters"][0]["typed_config"]["codec_type"] = "MORSE"


def unknown_field(data: Any) -> None:
    data["resources"][0]["adress"] = {}


def cluster(data: Any) -> None:
    data["resources"][0]["connect_timeout"] = "soon"


def health_check(data: Any) -> None:
    del data["resources"][0]["health_checks"][0]["interval"]


def route(data: Any) -> None:
    data["resources"][0]["virtual_hosts"][0]["routes"][0]["match"]["path_separated_prefix"] = "/ends/in/slash/"


def route_to_no_cluster(data: Any) -> None:
    data["resources"][0]["virtual_hosts"][0]["routes"][0]["route"]["cluster"] = "nobody"


def endpoint(data: Any) -> None:
    address = data["resources"][0]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
    address["socket_address"]["address"] = "by-name.example.org"


def key(data: Any) -> None:
    data["resources"][0]["tls_certificate"]["private_key"]["inline_string"] = "no key"


def admin(data: Any) -> None:
    data["admin"]["address"]["socket_address"]["port_value"] = 100000


def heap(data: Any) -> None:
    data["overload_manager"]["resource_monitors"][0]["name"] = "envoy.resource_monitors.none"


MISTAKES = [
    ("front/lds.yaml", listener),
    ("front/lds.yaml", unknown_field),
    ("front/cds.yaml", cluster),
    ("front/cds.yaml", health_check),
    ("front/rds.yaml", route),
    ("front/rds.yaml", route_to_no_cluster),
    ("front/eds/service1.yaml", endpoint),
    ("front/sds.yaml", key),
    ("front/bootstrap.yaml", admin),
    ("front/bootstrap.yaml", heap),
    ("sidecar/lds.yaml", listener),
    ("sidecar/cds.yaml", cluster),
    ("sidecar/bootstrap.yaml", admin),
]


@pytest.mark.parametrize(("name", "mistake"), MISTAKES, ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_a_mistake_is_refused(name: str, mistake: Any, validate: Validate) -> None:
    process = name.split("/", maxsplit=1)[0]
    host = HostName("front-envoy" if process == "front" else "service1-1")
    folder = f"/etc/envoymesh/{process}/"
    files = {p: parsed(f.content.decode()) for p, f in files_of(desired_of()[host]).items() if p.startswith(folder)}
    mistake(files[f"/etc/envoymesh/{name}"])
    bootstrap = files.pop(f"{folder}bootstrap.yaml")
    judged = validate(json.dumps(static_bootstrap(bootstrap, files)).encode(), VERSION)
    assert judged.returncode == 1, "Envoy takes it"
    assert judged.stderr.strip()
