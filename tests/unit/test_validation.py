"""The synthetic bootstrap that Envoy validates: everything that is in a file must be in it."""

import copy
import json
from typing import Any

import pytest

from roles.render import parsed
from roles.validation import static_bootstrap
from tests.rendering import desired_of, files_of, validation_of


def source(path: str) -> dict[str, Any]:
    return {"path_config_source": {"path": path}}


BOOTSTRAP = {"admin": 1, "dynamic_resources": {"lds_config": source("lds"), "cds_config": source("cds")}}
FILES: dict[str, dict[str, Any]] = {
    "lds": {
        "resources": [
            {
                "@type": "Listener",
                "chains": [
                    {"rds": {"route_config_name": "r", "config_source": source("rds")}},
                    {"tls_certificate_sds_secret_configs": [{"name": "s", "sds_config": source("sds")}]},
                ],
            }
        ]
    },
    "cds": {"resources": [{"@type": "Cluster", "type": "EDS", "eds_cluster_config": {"eds_config": source("eds")}}]},
    "rds": {"resources": [{"@type": "Routes", "name": "r"}]},
    "eds": {"resources": [{"@type": "Members", "cluster_name": "c"}]},
    "sds": {"resources": [{"@type": "Secret", "tls_certificate": {"private_key": "k"}}]},
}


def test_everything_in_a_file_becomes_static() -> None:
    before = copy.deepcopy((BOOTSTRAP, FILES))
    assert static_bootstrap(BOOTSTRAP, FILES) == {
        "admin": 1,
        "static_resources": {
            "listeners": [{"chains": [{"route_config": {"name": "r"}}, {"tls_certificates": [{"private_key": "k"}]}]}],
            "clusters": [{"type": "STATIC", "load_assignment": {"cluster_name": "c"}}],
        },
    }
    assert before == (BOOTSTRAP, FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_reference_to_no_file_is_an_error(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        static_bootstrap(BOOTSTRAP, {k: v for k, v in FILES.items() if k != name})


def test_nothing_that_is_rendered_is_left_out() -> None:
    """Each string of each file must be in what is validated, but for those that name the file or its kind."""
    for resources in desired_of().values():
        content = json.loads(validation_of(resources).content())
        validated = set(strings(content))
        guarded = {
            f.path: parsed(f.content.decode())
            for f in files_of(resources).values()
            if f.path.startswith("/etc/envoymesh/") and f.path.endswith(".yaml")
        }
        for document in guarded.values():
            document.pop("version_info", None)
        lost = {s for document in guarded.values() for s in strings(document)} - validated
        types = {s for s in lost if s.startswith("type.googleapis.com/")}
        assert lost - types <= {*guarded, "V3", "EDS", "front-certificate"}
        assert "dynamic_resources" not in content
        assert not any("path_config_source" in s for s in keys(content))


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [s for item in value.values() for s in strings(item)]
    if isinstance(value, list):
        return [s for item in value for s in strings(item)]
    return [value] if isinstance(value, str) else []


def keys(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(k for item in value.values() for k in keys(item))]
    return [k for item in value for k in keys(item)] if isinstance(value, list) else []
