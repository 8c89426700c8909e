"""Variants: the mesh's configuration with one of its settings left out or another, to see what it costs. Pure."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Edit = Callable[[str, Any], None]
"""Changes one of Envoy's files in place: its path below /etc/envoymesh, such as `front/lds.yaml`, and what it says."""

TIMES = ("request_headers_timeout", "request_timeout", "stream_idle_timeout", "timeout", "idle_timeout")
PATHS = ("normalize_path", "merge_slashes", "path_with_escaped_slashes_action", "headers_with_underscores_action")


def _without(*names: str) -> Edit:
    """Return what takes fields out of listeners and routes."""

    def edit(path: str, content: Any) -> None:
        for mapping in [] if path.endswith("cds.yaml") else _mappings(content):
            for name in names:
                mapping.pop(name, None)

    return edit


def _log_all(path: str, content: Any) -> None:
    for mapping in _mappings(content):
        for log in mapping.get("access_log", []):
            log.pop("filter")


def _http1(path: str, content: Any) -> None:
    if path == "front/cds.yaml":
        for mapping in _mappings(content):
            if "explicit_http_config" in mapping:
                mapping["explicit_http_config"] = {"http_protocol_options": {}}
            if "codec_client_type" in mapping:
                mapping["codec_client_type"] = "HTTP1"


def _few_stats(path: str, content: Any) -> None:
    for mapping in _mappings(content):
        if mapping.get("@type", "").endswith("http.router.v3.Router"):
            mapping["dynamic_stats"] = False


def _unchecked(path: str, content: Any) -> None:
    for mapping in _mappings(content):
        mapping.pop("health_checks", None)
        mapping.pop("outlier_detection", None)


def _own_windows(path: str, content: Any) -> None:
    for mapping in _mappings(content):
        for name in ("max_concurrent_streams", "initial_stream_window_size", "initial_connection_window_size"):
            mapping.pop(name, None)


def _connect_each_time(path: str, content: Any) -> None:
    for mapping in _mappings(content) if path == "sidecar/cds.yaml" else []:
        if "common_http_protocol_options" in mapping:
            mapping["common_http_protocol_options"]["max_requests_per_connection"] = 1


LESS: Mapping[str, Edit] = {
    "no access log": _without("access_log"),
    "no retries": _without("retry_policy", "hedge_policy"),
    "no limits of time": _without(*TIMES),
    "paths and headers as they come": _without(*PATHS),
    "no statistics by answer": _few_stats,
    "no health checks, no outlier detection": _unchecked,
}
"""By what is left out: the settings that every request meets, which the sandbox does without."""


def _none_of_these(path: str, content: Any) -> None:
    for edit in LESS.values():
        edit(path, content)


VARIANTS: Mapping[str, Edit] = {
    **LESS,
    "none of all these": _none_of_these,
    "each request in the sidecar's log, too": _log_all,
    "HTTP/2 with Envoy's own limits": _own_windows,
    "HTTP/1.1 between front and sidecar": _http1,
    "a new connection to the application": _connect_each_time,
}
"""By what is different: settings left out, then settings as they could be as well."""

FILES = tuple(f"{process}/{name}.yaml" for process in ("front", "sidecar") for name in ("cds", "rds", "lds"))


def _mappings(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, dict):
        yield content
        for value in list(content.values()):
            yield from _mappings(value)
    if isinstance(content, list):
        for value in content:
            yield from _mappings(value)
