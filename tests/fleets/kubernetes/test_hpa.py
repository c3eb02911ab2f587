"""A real HPA that follows the published count as an external metric, with the metrics of the chart's example.

The external metrics API is served here in prometheus-adapter's place; all else is the control plane's own.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.fleets.kubernetes.call import Call
from tests.fleets.kubernetes.cluster import Cluster, eventually
from tests.fleets.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.kubernetes

EXAMPLE = Path("infra/helm/triton-placement/examples/hpa.yaml")
GROUP = "external.metrics.k8s.io"
METRIC = "triton_placement_replicas_wanted"
SYNCS_S = 4.0
"""Several looks of the HPA: it looks every second here."""


@dataclass
class Metrics:
    """What the API answers; a pool without a value is one whose value is old."""

    wanted: dict[str, int] = field(default_factory=dict)

    def answer(self, path: str, query: str) -> dict[str, Any]:
        version = f"{GROUP}/v1beta1"
        if not path.endswith(METRIC):
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": []}
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        items = [
            {"metricName": METRIC, "metricLabels": {"pool": pool}, "timestamp": now, "value": str(count)}
            for pool, count in self.wanted.items()
            if query.endswith(f"pool%3D{pool}")
        ]
        return {"kind": "ExternalMetricValueList", "apiVersion": version, "metadata": {}, "items": items}


@contextmanager
def served(metrics: Metrics, certificate: Path) -> Iterator[int]:
    """The port of an HTTPS server that answers as ``metrics`` has it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            body = json.dumps(metrics.answer(path, query)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("server.key"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.fixture
def metrics(plane: ControlPlane, cluster: Cluster) -> Iterator[Metrics]:
    """Registered with the API server, which asks it through a Service."""
    found = Metrics()
    services = "/apis/apiregistration.k8s.io/v1/apiservices"
    with served(found, plane.certificate) as port:
        cluster.create(
            "v1",
            "services",
            {"metadata": {"name": "metrics"}, "spec": {"type": "ExternalName", "externalName": "localhost"}},
        )
        spec = {
            "group": GROUP,
            "version": "v1beta1",
            "insecureSkipTLSVerify": True,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"name": "metrics", "namespace": cluster.namespace, "port": port},
        }
        let_the_hpa_read(cluster)
        body = {"metadata": {"name": f"v1beta1.{GROUP}"}, "spec": spec}
        cluster.api.call(Call("POST", services, body=body))
        try:
            eventually(lambda: plane.get(f"/apis/{GROUP}/v1beta1").ok, 30)
            yield found
        finally:
            cluster.api.call(Call("DELETE", f"{services}/v1beta1.{GROUP}"))


def let_the_hpa_read(cluster: Cluster) -> None:
    """As prometheus-adapter's chart does."""
    name, root = f"{cluster.namespace}-metrics", "/apis/rbac.authorization.k8s.io/v1"
    rules = [{"apiGroups": [GROUP], "resources": ["*"], "verbs": ["get", "list"]}]
    cluster.api.call(Call("POST", f"{root}/clusterroles", body={"metadata": {"name": name}, "rules": rules}))
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "horizontal-pod-autoscaler", "namespace": "kube-system"}],
    }
    cluster.api.call(Call("POST", f"{root}/clusterrolebindings", body=binding))


def example(cluster: Cluster, pool: str) -> None:
    """The example's HPA for a pool of this cluster, with the tolerance that every version of Kubernetes has."""
    spec = yaml.safe_load(EXAMPLE.read_text())["spec"]
    spec["scaleTargetRef"]["name"] = f"triton-{pool}"
    spec["metrics"][0]["external"]["metric"]["selector"]["matchLabels"]["pool"] = pool
    spec["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    version = cluster.api.served("autoscaling/v2", "autoscaling/v2beta2") or ""
    cluster.create(version, "horizontalpodautoscalers", {"metadata": {"name": pool}, "spec": spec})


def settles(cluster: Cluster, pool: str, count: int) -> None:
    """It gets there, and stays."""
    deadline = time.monotonic() + 30
    while cluster.scale_of(pool) != count and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(SYNCS_S)
    assert cluster.scale_of(pool) == count, said(cluster)


def said(cluster: Cluster) -> list[str]:
    """What the HPA says about itself."""
    events = cluster.api.items(cluster.api.path("v1", "events"))
    return [f"{e['reason']}: {e['message']}" for e in events if e["involvedObject"]["kind"].endswith("Autoscaler")]


def test_it_goes_where_the_tick_wants_it_and_an_old_value_changes_nothing(cluster: Cluster, metrics: Metrics) -> None:
    cluster.pool("small", 1)
    metrics.wanted["small"] = 2
    example(cluster, "small")
    settles(cluster, "small", 2)
    assert not cluster.fleet().pools()[0].is_scaled_by_us
    metrics.wanted["small"] = 5
    settles(cluster, "small", 5)
    del metrics.wanted["small"]
    settles(cluster, "small", 5)
    metrics.wanted["small"] = 3
    settles(cluster, "small", 3)


def test_a_change_of_less_than_a_tenth_is_ignored(cluster: Cluster, metrics: Metrics) -> None:
    """11 wanted of 9 is 22 % off, 12 of 11 is 9 %, 13 of 11 is 18 %, 12 of 13 is 8 %."""
    cluster.pool("small", 9)
    metrics.wanted["small"] = 11
    example(cluster, "small")
    settles(cluster, "small", 11)
    metrics.wanted["small"] = 12
    settles(cluster, "small", 11)
    metrics.wanted["small"] = 13
    settles(cluster, "small", 13)
    metrics.wanted["small"] = 12
    settles(cluster, "small", 13)
