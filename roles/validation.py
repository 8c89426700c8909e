"""What `envoy --mode validate` is given: it does not read xDS files, so their resources become static ones.

All functions are pure and work on parsed YAML; none changes its arguments.
"""

from collections.abc import Mapping
from typing import Any

Data = dict[str, Any]


def static_bootstrap(bootstrap: Data, files: Mapping[str, Data]) -> Data:
    """Return `bootstrap` with everything in it that it would read from `files`.

    Args:
        bootstrap: with `dynamic_resources` that name files for LDS and CDS.
        files: the xDS files, by the path under which the bootstrap and they themselves refer to them.

    Raises:
        KeyError: a file is referred to that is not among `files`.
    """
    dynamic = bootstrap["dynamic_resources"]
    listeners = _resources(dynamic["lds_config"], files)
    clusters = _resources(dynamic["cds_config"], files)
    static = {
        "listeners": [_inlined(listener, files) for listener in listeners],
        "clusters": [_inlined(cluster, files) for cluster in clusters],
    }
    return {k: v for k, v in bootstrap.items() if k != "dynamic_resources"} | {"static_resources": static}


def _resources(config_source: Data, files: Mapping[str, Data]) -> list[Data]:
    """Return the resources of the file that `config_source` names; static ones have no type of their own."""
    resources: list[Data] = files[config_source["path_config_source"]["path"]]["resources"]
    return [{k: v for k, v in r.items() if k != "@type"} for r in resources]


def _inlined(value: Any, files: Mapping[str, Data]) -> Any:
    """Return `value` with every reference to a route, endpoint or secret file replaced by what is in it."""
    if isinstance(value, list):
        return [_inlined(item, files) for item in value]
    if not isinstance(value, dict):
        return value
    result: Data = {}
    for key, item in value.items():
        result |= _entry(key, item, files)
    return result


def _entry(key: str, item: Any, files: Mapping[str, Data]) -> Data:
    """Return what stands for `key: item`."""
    if key == "rds":
        (routes,) = _resources(item["config_source"], files)
        return {"route_config": routes}
    if key == "eds_cluster_config":
        (endpoints,) = _resources(item["eds_config"], files)
        return {"load_assignment": endpoints}
    if key == "tls_certificate_sds_secret_configs":
        secrets = [s for config in item for s in _resources(config["sds_config"], files)]
        return {"tls_certificates": [secret["tls_certificate"] for secret in secrets]}
    if key == "type" and item == "EDS":
        return {"type": "STATIC"}
    return {key: _inlined(item, files)}
