"""A real Envoy with the clusters of an Envoy Gateway, scraped by a real Prometheus as the chart's PodMonitor says."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tasks.clients.prometheus import Prometheus
from tasks.config import Config
from tasks.fleets.kubernetes.names import service_name
from tasks.observe.series import covered
from tasks.watch.unserved import from_prometheus
from tests.infra.chart.rendering import CHART, example, release, values
from tests.prometheus_server import prometheus_server
from tests.triton_server import free_ports

pytestmark = pytest.mark.servers

ENVOY = Path(sys.executable).parent / "envoy"
WINDOW_S = 6.0
SERVED, EMPTY, ANSWERED = "vad", "ocr_det", "embed"
"""A model with an endpoint; one whose cluster has none; one that the gateway answers for, as Envoy Gateway does with
no endpoint left: there is no cluster then."""
GRPC_RPS = 25.0
"""Of the last, served by a replica to clients that ask it over gRPC."""
METRICS = Config.model_fields["metrics"].default


class Replica(BaseHTTPRequestHandler):
    """Answers inference, and counts what it served over gRPC as a Triton does."""

    def do_GET(self) -> None:
        labels = f'model="{ANSWERED}",version="1"'
        body = f"nv_inference_request_success{{{labels}}} {GRPC_RPS * time.monotonic():.0f}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Not to the test's output."""


def cluster_name(model: str) -> str:
    return f"httproute/triton/{service_name(model)}/rule/0"


def envoy_configuration(admin: int, listener: int, replica: int) -> dict[str, Any]:
    def address(port: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    def cluster(model: str, endpoints: list[int]) -> dict[str, Any]:
        own = [{"endpoint": {"address": address(port)}} for port in endpoints]
        assignment = {"cluster_name": cluster_name(model), "endpoints": [{"lb_endpoints": own}]}
        return {"name": cluster_name(model), "type": "STATIC", "load_assignment": assignment}

    def route(model: str, action: dict[str, Any]) -> dict[str, Any]:
        return {"match": {"path_separated_prefix": f"/v2/models/{model}"}} | action

    routes = [
        *(route(model, {"route": {"cluster": cluster_name(model)}}) for model in (SERVED, EMPTY)),
        route(ANSWERED, {"direct_response": {"status": 503}}),
    ]
    kind = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http-10080",
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{kind}.http.router.v3.Router"}}
        ],
        "route_config": {"virtual_hosts": [{"name": "models", "domains": ["*"], "routes": routes}]},
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {
        "admin": {"address": address(admin)},
        "static_resources": {
            "listeners": [{"name": "models", "address": address(listener), "filter_chains": [chain]}],
            "clusters": [cluster(SERVED, [replica]), cluster(EMPTY, [])],
        },
    }


@contextmanager
def gateway(folder: Path) -> Iterator[tuple[str, int, int]]:
    """The URL of the gateway, and the ports of its metrics and of the replica's."""
    admin, listener = free_ports(2)
    with ThreadingHTTPServer(("127.0.0.1", 0), Replica) as replica:
        threading.Thread(target=replica.serve_forever, daemon=True).start()
        path = folder / "envoy.yaml"
        path.write_text(yaml.safe_dump(envoy_configuration(admin, listener, replica.server_port)))
        command = [str(ENVOY), "-c", str(path), "--disable-hot-restart", "--concurrency", "1"]
        with (folder / "envoy.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            eventually(lambda: status(f"http://127.0.0.1:{listener}", SERVED) == 200, 15)
            yield f"http://127.0.0.1:{listener}", admin, replica.server_port
        finally:
            process.terminate()
            process.wait(15)
            replica.shutdown()


def scrapes(proxies: int, replicas: int) -> str:
    """The proxies as the PodMonitor says; the replicas as the example for a Prometheus without the Operator says, with
    what Kubernetes would tell about a pod."""
    endpoint = release("kind-cpu").endpoint("demo-gateway")
    gateway = {"metrics_path": endpoint["path"], "metric_relabel_configs": endpoint["metricRelabelings"]}
    (triton,) = (job for job in example("scrape-config")["scrape_configs"] if job["job_name"] == "triton")
    (kubernetes,) = triton.pop("kubernetes_sd_configs")
    assert kubernetes["role"] == "pod"
    pod = {
        "name": "triton-small-0",
        "container_port_name": "metrics",
        "label_app_kubernetes_io_name": "triton-placement",
        "label_app_kubernetes_io_component": "triton",
        "label_triton_placement_pool": "small",
    }
    told = {f"__meta_kubernetes_pod_{key}": value for key, value in pod.items()}
    static = {"gateway": (proxies, gateway, {}), "triton": (replicas, triton, told)}
    configs = [
        job
        | {"job_name": name, "scrape_interval": "1s"}
        | {"static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": labels}]}
        for name, (port, job, labels) in static.items()
    ]
    return yaml.safe_dump({"scrape_configs": configs})


def status(url: str, model: str) -> int:
    try:
        return requests.get(f"{url}/v2/models/{model}/infer", timeout=5).status_code
    except requests.ConnectionError:
        return 0


def eventually(is_so: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.1)


def names_of_replicas(url: str) -> list[list[str]]:
    """(replica, pool) of each series that a replica gave."""
    with Prometheus(url) as prometheus:
        frame = prometheus.instant("nv_inference_request_success", time.time())
    names: list[list[str]] = frame[["replica", "pool"]].to_numpy().tolist()
    return names


def ask(url: str, query: str) -> dict[str, float]:
    """Demand (requests a second) by model."""
    with Prometheus(url) as prometheus:
        frame = prometheus.instant(covered(query, WINDOW_S), time.time())
    return dict(zip(frame.get("model", ()), frame["value"], strict=False))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the queries answer after 18 s of ten requests a second to each of the three: a Prometheus that has just
    started takes up to 5 s until it scrapes, and the window must lie behind that."""
    folder = tmp_path_factory.mktemp("scraped")
    grpc = yaml.safe_load((CHART / "examples" / "grpc-values.yaml").read_text())["placement"]["metrics"]
    before = {"before": {time.time() - 3600: 1.0}}
    with (
        gateway(folder) as (url, proxies, replicas),
        prometheus_server(folder, before, scrapes(proxies, replicas)) as prometheus,
    ):
        answers = {model: set[int]() for model in (SERVED, EMPTY, ANSWERED)}
        for _ in range(180):
            for model, codes in answers.items():
                codes.add(status(url, model))
            time.sleep(0.1)
        return {
            "answers": answers,
            "demand": ask(prometheus, METRICS.demand_query),
            "unserved": from_prometheus(prometheus, METRICS.unserved_query),
            "replicas": names_of_replicas(prometheus),
            "with grpc": ask(prometheus, grpc["demand_query"]),
        }


def test_the_demand_of_a_model_is_found_under_its_name(seen: dict[str, Any]) -> None:
    """About ten a second less what a loop of three takes; both the served and the one without an endpoint."""
    assert set(values("kind-cpu")["placement"]["models"]) >= {SERVED, EMPTY, ANSWERED}
    assert set(seen["demand"]) == {SERVED, EMPTY}
    assert all(4 < rps < 11 for rps in seen["demand"].values())
    assert (seen["answers"][SERVED], seen["answers"][EMPTY]) == ({200}, {503})


def test_a_request_to_an_empty_cluster_is_counted_as_unserved(seen: dict[str, Any]) -> None:
    assert seen["unserved"][EMPTY] >= 100
    assert seen["unserved"][SERVED] == 0


def test_what_the_gateway_answers_itself_is_counted_nowhere(seen: dict[str, Any]) -> None:
    """The limit of Envoy Gateway that the chart's README names: without an endpoint no query can see a request."""
    assert seen["answers"][ANSWERED] == {503}
    assert ANSWERED not in seen["demand"]
    assert ANSWERED not in seen["unserved"]


def test_what_replicas_served_over_grpc_counts_where_it_is_asked_for(seen: dict[str, Any]) -> None:
    assert set(seen["with grpc"]) == {SERVED, EMPTY, ANSWERED}
    assert seen["with grpc"][ANSWERED] == pytest.approx(GRPC_RPS, rel=0.2)
    assert seen["with grpc"][SERVED] == pytest.approx(seen["demand"][SERVED], rel=0.3)


def test_replicas_have_the_names_that_the_tick_asks_for(seen: dict[str, Any]) -> None:
    assert seen["replicas"] == [["triton-small-0", "small"]]
