"""Envoy's dynamic configuration as files: a cluster, a route and an endpoint file per model.

Each file is replaced by rename, carries a version, and counts as applied once Envoy's own statistics show that version:
nothing here sleeps and hopes.
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

from tasks.fleets.envoy_resources import assignment, cluster, listener, routes, weights_in
from tasks.fleets.state import HOST, State, write_atomically

APPLY_S = 5.0
"""Envoy applies a file in milliseconds and a health check takes half a second: later is wrong."""
POLL_S = 0.01


class Gateway:
    """The endpoints that Envoy sends each model's requests to. Its files are the truth; it keeps nothing else.

    Every call raises ``OSError`` when Envoy does not answer or does not apply what was written.
    """

    def __init__(self, state: State) -> None:
        self._folder = state.folder / "envoy"
        self._admin = state.address("gateway_admin")
        self._gateway_port = state.port_by_service["gateway"]

    def endpoints(self) -> dict[str, dict[int, float]]:
        """By model, its ports and the weight of each, as written."""
        return {path.stem: weights_in(path) for path in sorted((self._folder / "endpoints").glob("*.json"))}

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
            weights = weights_in(path)
            others = {other: weight for other, weight in weights.items() if other != port}
            self._apply_endpoints(model, others | {port: weights.get(port, 1.0)} if is_added else others)
            self._apply_routes(zero_by_policy_by_model)
        if is_added:
            self._await(lambda: self._health(model, port), "HEALTHY", f"{model} at {HOST}:{port} as healthy")

    def weigh(self, model: str, weight_by_port: Mapping[int, float]) -> None:
        """Give endpoints other weights, all at once; return once Envoy has applied them. A port that is no endpoint is
        not made one."""
        with self._locked():
            weights = weights_in(self._endpoint_file(model))
            self._apply_endpoints(model, {port: weight_by_port.get(port, was) for port, was in weights.items()})

    def forget(self, port: int) -> None:
        """Remove an endpoint from every model, for a replica that is gone."""
        with self._locked():
            for model, weights in self.endpoints().items():
                if weights.pop(port, None) is not None:
                    self._write(self._endpoint_file(model), [assignment(model, weights)])

    def forget_all(self) -> None:
        """No replica runs: no model has an endpoint."""
        for model in self.endpoints():
            self._write(self._endpoint_file(model), [assignment(model, {})])

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
                self._write(self._endpoint_file(model), [assignment(model, {})])
        clusters = [cluster(model, self._endpoint_file(model)) for model in sorted(models)]
        return self._write(self._folder / "clusters.json", clusters)

    def _write_routes(self, zero_by_policy_by_model: Mapping[str, bool]) -> str:
        endpoints = self.endpoints()
        cold = {model for model, may_be_zero in zero_by_policy_by_model.items() if may_be_zero and not endpoints[model]}
        return self._write(self._folder / "routes.json", [routes(sorted(zero_by_policy_by_model), cold)])

    def _apply_routes(self, zero_by_policy_by_model: Mapping[str, bool]) -> None:
        version = self._write_routes(zero_by_policy_by_model)
        self._await(lambda: self._version("http.gateway.rds.models"), version, "the routes")

    def _apply_endpoints(self, model: str, weight_by_port: Mapping[int, float]) -> None:
        version = self._write(self._endpoint_file(model), [assignment(model, weight_by_port)])
        self._await(lambda: self._version(f"cluster.{model}"), version, f"the endpoints of {model}")

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
