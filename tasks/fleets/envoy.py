"""Envoy's dynamic configuration as files: a cluster, a route and an endpoint file per model.

Each file is replaced by rename, carries a version, and counts as applied once Envoy's own statistics show that version:
nothing here sleeps and hopes. Field names are those of Envoy's v3 API.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tasks.fleets.state import HOST, State, write_atomically

TYPE = "type.googleapis.com/envoy"
APPLY_S = 5.0
"""Envoy applies a file in milliseconds and a health check takes half a second: later is wrong."""
POLL_S = 0.01
CHECK_S = 0.5
"""Between two health checks of an endpoint, and the time one may take."""
TIMEOUT_S = 120.0
"""Of a request, its queue time included; the client's own timeout is what should end it."""
PLENTY = 100_000
"""Circuit breakers: the defaults (1,024) would fail requests of their own."""
RETRY_BODY_BYTES = 16 * 2**20
"""Requests up to this size are kept so that they can be sent again when a connection fails."""


class Gateway:
    """The endpoints that Envoy sends each model's requests to. Its files are the truth; it keeps nothing else.

    Every call raises ``OSError`` when Envoy does not answer or does not apply what was written.
    """

    def __init__(self, state: State) -> None:
        self._folder = state.folder / "envoy"
        self._admin = state.address("gateway_admin")
        self._gateway_port = state.port_by_service["gateway"]

    def endpoints(self) -> dict[str, frozenset[int]]:
        """Ports by model, as written."""
        return {path.stem: _ports(path) for path in sorted((self._folder / "endpoints").glob("*.json"))}

    def write(self, zero_by_policy_by_model: Mapping[str, bool]) -> None:
        """Write every file, as Envoy needs them when it starts, and wait for nothing."""
        with self._locked():
            self._write_clusters(zero_by_policy_by_model)
            self._write_routes(zero_by_policy_by_model)
            listeners = [listener(self._gateway_port, self._folder / "routes.json")]
            self._write(self._folder / "listeners.json", listeners)

    def declare(self, zero_by_policy_by_model: Mapping[str, bool]) -> None:
        """Make exactly these models known; one that may have no copy answers as cold while it has none."""
        with self._locked():
            # a route to a cluster that is not there yet would answer 503
            version = self._write_clusters(zero_by_policy_by_model)
            self._await(lambda: self._version("cluster_manager.cds"), version, "the models")
            self._apply_routes(zero_by_policy_by_model)

    def change(self, model: str, port: int, is_added: bool, zero_by_policy_by_model: Mapping[str, bool]) -> None:
        """Add or remove one endpoint; return once Envoy has applied it and, if added, found it healthy."""
        path = self._endpoint_file(model)
        with self._locked():
            ports = _ports(path) | {port} if is_added else _ports(path) - {port}
            version = self._write(path, [_assignment(model, sorted(ports))])
            self._await(lambda: self._version(f"cluster.{model}"), version, f"the endpoints of {model}")
            self._apply_routes(zero_by_policy_by_model)
        if is_added:
            self._await(lambda: self._health(model, port), "HEALTHY", f"{model} at {HOST}:{port} as healthy")

    def forget(self, port: int) -> None:
        """Remove an endpoint from every model, for a replica that is gone."""
        with self._locked():
            for model, ports in self.endpoints().items():
                if port in ports:
                    self._write(self._endpoint_file(model), [_assignment(model, sorted(ports - {port}))])

    def forget_all(self) -> None:
        """No replica runs: no model has an endpoint."""
        for model in self.endpoints():
            self._write(self._endpoint_file(model), [_assignment(model, ())])

    def is_live(self) -> bool:
        try:
            return self._get("/ready").strip() == "LIVE"
        except OSError:
            return False

    def check(self) -> None:
        """Raises:
        OSError: Envoy does not answer.
        """
        self._get("/ready")

    def _write_clusters(self, models: Iterable[str]) -> str:
        for model in models:
            if not self._endpoint_file(model).exists():
                self._write(self._endpoint_file(model), [_assignment(model, ())])
        clusters = [cluster(model, self._endpoint_file(model)) for model in sorted(models)]
        return self._write(self._folder / "clusters.json", clusters)

    def _write_routes(self, zero_by_policy_by_model: Mapping[str, bool]) -> str:
        ports = self.endpoints()
        cold = {model for model, may_be_zero in zero_by_policy_by_model.items() if may_be_zero and not ports[model]}
        return self._write(self._folder / "routes.json", [routes(sorted(zero_by_policy_by_model), cold)])

    def _apply_routes(self, zero_by_policy_by_model: Mapping[str, bool]) -> None:
        version = self._write_routes(zero_by_policy_by_model)
        self._await(lambda: self._version("http.gateway.rds.models"), version, "the routes")

    def _endpoint_file(self, model: str) -> Path:
        return self._folder / "endpoints" / f"{model}.json"

    def _write(self, path: Path, resources: list[dict[str, Any]]) -> str:
        """Write resources, unless they are there already; return their version."""
        version = hashlib.sha256(json.dumps(resources, sort_keys=True).encode()).hexdigest()[:12]
        if not path.exists() or json.loads(path.read_text())["version_info"] != version:
            write_atomically(path, json.dumps({"version_info": version, "resources": resources}, indent=1))
        return version

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Reading a file and writing it again is one operation, among threads and processes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _await(self, read: Callable[[], str], wanted: str, what: str) -> None:
        """Read until it is what is wanted."""
        deadline = time.monotonic() + APPLY_S
        while (seen := read()) != wanted:
            if time.monotonic() > deadline:
                raise OSError(f"Envoy did not apply {what} within {APPLY_S:g} s (it has {seen or 'nothing'})")
            time.sleep(POLL_S)

    def _version(self, prefix: str) -> str:
        """The version that Envoy has applied, empty before the first."""
        name = f"{prefix}.version_text"
        answer = json.loads(self._get(f"/stats?format=json&type=TextReadouts&filter=^{name.replace('.', '[.]')}$"))
        return next((stat["value"] for stat in answer["stats"] if stat.get("name") == name), "")

    def _health(self, model: str, port: int) -> str:
        """HEALTHY once its first health check has passed."""
        clusters = json.loads(self._get("/clusters?format=json")).get("cluster_statuses", [])
        hosts = (host for c in clusters if c["name"] == model for host in c.get("host_statuses", []))
        status: dict[str, Any] = next(
            (h["health_status"] for h in hosts if h["address"]["socket_address"]["port_value"] == port), {}
        )
        is_failing = any(status.get(flag) for flag in ("failed_active_health_check", "pending_active_hc"))
        return "failing" if is_failing else str(status.get("eds_health_status", ""))

    def _get(self, path: str) -> str:
        with closing(http.client.HTTPConnection(self._admin, timeout=APPLY_S)) as connection:
            try:
                connection.request("GET", path)
                return connection.getresponse().read().decode()
            except (OSError, http.client.HTTPException) as error:
                raise OSError(
                    f"the gateway (Envoy) does not answer on {self._admin}: {error}; it restarts by itself, "
                    f"its log is {self._folder.parent / 'logs' / 'envoy.log'}"
                ) from error


def _ports(path: Path) -> frozenset[int]:
    resources = json.loads(path.read_text())["resources"]
    groups = (group for resource in resources for group in resource["endpoints"])
    endpoints = (one["endpoint"]["address"]["socket_address"] for group in groups for one in group["lb_endpoints"])
    return frozenset(address["port_value"] for address in endpoints)


def _assignment(model: str, ports: Iterable[int]) -> dict[str, Any]:
    endpoints = [{"endpoint": {"address": _address(port)}} for port in ports]
    return {
        "@type": f"{TYPE}.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": model,
        "endpoints": [{"lb_endpoints": endpoints}],
    }


def cluster(model: str, endpoint_file: Path) -> dict[str, Any]:
    """The replicas that serve a model: the one with the fewest requests in flight gets the next."""
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
