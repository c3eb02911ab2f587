"""Envoy's dynamic configuration as values: clusters, routes, endpoints and a listener, by the names of its v3 API."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tasks.fleets.state import HOST

TYPE = "type.googleapis.com/envoy"
CHECK_S = 0.5
"""Between two health checks of an endpoint, and the time one may take."""
TIMEOUT_S = 120.0
"""Of a request, its queue time included; the client's own timeout is what should end it."""
PLENTY = 100_000
"""Circuit breakers: the defaults (1,024) would fail requests of their own."""
WEIGHT_UNIT = 1000
"""Envoy's weights are whole numbers: this one is the weight 1."""
RETRY_BODY_BYTES = 16 * 2**20
"""Requests up to this size are kept so that they can be sent again when a connection fails."""


def weights_in(path: Path) -> dict[int, float]:
    """The weight of each port."""
    resources = json.loads(path.read_text())["resources"]
    groups = (group for resource in resources for group in resource["endpoints"])
    return {
        one["endpoint"]["address"]["socket_address"]["port_value"]: one["load_balancing_weight"] / WEIGHT_UNIT
        for group in groups
        for one in group["lb_endpoints"]
    }


def assignment(model: str, weight_by_port: Mapping[int, float]) -> dict[str, Any]:
    endpoints = [
        {"endpoint": {"address": _address(port)}, "load_balancing_weight": max(1, round(weight * WEIGHT_UNIT))}
        for port, weight in sorted(weight_by_port.items())
    ]
    return {
        "@type": f"{TYPE}.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": model,
        "endpoints": [{"lb_endpoints": endpoints}],
    }


def cluster(model: str, endpoint_file: Path) -> dict[str, Any]:
    """The replicas that serve a model. While their weights are equal, the one with the fewest requests in flight gets
    the next. Else each gets exactly its share, in turns: with a bias by requests in flight (Envoy divides a weight by
    (their number + 1) ** bias) a copy that is to take 75 % took 66 % at 0.6 of its capacity, 64 % at 0.9."""
    most = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), PLENTY)
    return {
        "@type": f"{TYPE}.config.cluster.v3.Cluster",
        "name": model,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": file_source(endpoint_file)},
        "connect_timeout": "1s",
        "load_balancing_policy": {
            "policies": [
                _extension(
                    "envoy.load_balancing_policies.least_request",
                    "extensions.load_balancing_policies.least_request.v3.LeastRequest",
                    selection_method="FULL_SCAN",
                    active_request_bias={"default_value": 0.0, "runtime_key": "least_request.active_request_bias"},
                    key="typed_extension_config",
                )
            ]
        },
        "common_lb_config": {
            # requests for a model whose every copy fails its check are refused, never sent on trust
            "healthy_panic_threshold": {"value": 0},
            # by default the workers learn of a passed or failed health check up to a second later
            "update_merge_window": "0s",
        },
        "ignore_health_on_host_removal": True,
        "per_connection_buffer_limit_bytes": RETRY_BODY_BYTES,
        "circuit_breakers": {
            "thresholds": [most | {"retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 20}}]
        },
        # a replica that refuses a connection is left out at once: it has the fewest requests, and would be picked again
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 1,
            "base_ejection_time": "1s",
            "max_ejection_percent": 100,
            "enforcing_consecutive_5xx": 0,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
        },
        "health_checks": [
            {
                "timeout": f"{CHECK_S}s",
                "interval": f"{CHECK_S}s",
                "no_traffic_interval": f"{CHECK_S}s",
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "http_health_check": {"path": f"/v2/models/{model}/ready"},
            }
        ],
    }


def routes(models: Iterable[str], cold: Iterable[str]) -> dict[str, Any]:
    """``/v2/models/NAME/...`` to the cluster NAME; a 503 of a cold model says so."""
    return {
        "@type": f"{TYPE}.config.route.v3.RouteConfiguration",
        "name": "models",
        "virtual_hosts": [{"name": "models", "domains": ["*"], "routes": [_route(m, m in set(cold)) for m in models]}],
    }


def _route(model: str, is_cold: bool) -> dict[str, Any]:
    headers = {"x-triton-cold": model, "retry-after": "30"} if is_cold else {}
    return {
        # a whole path segment: a model ``ab`` never gets the requests of ``a``
        "match": {"path_separated_prefix": f"/v2/models/{model}"},
        "response_headers_to_add": [{"header": {"key": key, "value": text}} for key, text in headers.items()],
        "route": {
            "cluster": model,
            "timeout": f"{TIMEOUT_S:g}s",
            "retry_policy": {
                # only where nothing of the request was sent: a reset may come after the inference has run
                "retry_on": "connect-failure,reset-before-request",
                "num_retries": 3,
                "retry_host_predicate": [
                    _extension(
                        "envoy.retry_host_predicates.previous_hosts",
                        "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
                    )
                ],
                "host_selection_retry_max_attempts": 3,
            },
        },
    }


def listener(port: int, route_file: Path) -> dict[str, Any]:
    """Where clients send their requests."""
    router = _extension("envoy.filters.http.router", "extensions.filters.http.router.v3.Router")
    manager = _extension(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="gateway",
        codec_type="AUTO",
        rds={"route_config_name": "models", "config_source": file_source(route_file)},
        http_filters=[router],
        # a client that waits for its answer is not idle
        stream_idle_timeout=f"{TIMEOUT_S:g}s",
    )
    return {
        "@type": f"{TYPE}.config.listener.v3.Listener",
        "name": "gateway",
        "address": _address(port),
        "per_connection_buffer_limit_bytes": RETRY_BODY_BYTES,
        "filter_chains": [{"filters": [manager]}],
    }


def file_source(path: Path) -> dict[str, Any]:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}


def _extension(name: str, kind: str, key: str = "", **fields: Any) -> dict[str, Any]:
    extension = {"name": name, "typed_config": {"@type": f"{TYPE}.{kind}", **fields}}
    return {key: extension} if key else extension
