"""What goes wrong between a tick and the API server."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.fleets import FleetUnreadableError
from tasks.fleets.kubernetes.api import ApiError
from tasks.fleets.kubernetes.call import Call
from tests.fleets.kubernetes.cluster import Cluster, eventually
from tests.fleets.kubernetes.faults import Fault, Faulty
from tests.fleets.kubernetes.kubelet import create_node

pytestmark = pytest.mark.kubernetes

WRITES = ("PATCH", "POST", "PUT", "DELETE")


def on_first(status: int, *methods: str, **headers: str) -> Fault:
    return lambda method, _path, before: (status, headers) if method in methods and before == 0 else None


@pytest.fixture
def pod(cluster: Cluster) -> str:
    """The one ready pod of a pool ``small``."""
    cluster.kubelet()
    cluster.pool("small", 1)
    cluster.fleet().declare(cluster.config("small").domain_models())
    eventually(lambda: bool(cluster.fleet().replicas()) and cluster.fleet().replicas()[0].state == "ready")
    return cluster.fleet().replicas()[0].name


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(on_first(409, "PATCH"), id="conflict"),
        pytest.param(on_first(429, "GET", *WRITES, **{"Retry-After": "1"}), id="throttled"),
        pytest.param(on_first(500, "GET", *WRITES), id="server error"),
        pytest.param(on_first(503, "GET", *WRITES), id="unavailable"),
        pytest.param(on_first(0, "GET", "PATCH"), id="connection lost"),
        pytest.param(on_first(410, "GET"), id="list expired"),
    ],
)
def test_the_first_call_of_each_kind_fails_and_all_is_done(cluster: Cluster, pod: str, fault: Fault) -> None:
    fleet = cluster.fleet()
    lists_only = fault if fault(*("GET", "", 0)) != (410, {}) else _only_lists(fault)
    Faulty(fleet, lists_only)
    assert [pool.replicas for pool in fleet.pools()] == [1]
    fleet.route("echo", pod)
    assert cluster.fleet().routes() == {"echo": frozenset({pod})}
    fleet.unroute("echo", pod)
    fleet.scale_up("small", 3)
    assert cluster.scale_of("small") == 3


def _only_lists(fault: Fault) -> Fault:
    kinds = ("pods", "deployments", "nodes", "endpointslices", "horizontalpodautoscalers")
    return lambda method, path, before: fault(method, path, before) if path.endswith(kinds) else None


def test_a_count_that_somebody_else_changes_meanwhile_is_reckoned_again(cluster: Cluster, pod: str) -> None:
    fleet = cluster.fleet()

    def meddle(method: str, path: str, before: int) -> None:
        if method == "PATCH" and path.endswith("/scale") and before == 0:
            path = cluster.api.path("apps/v1", "deployments", "triton-small")
            cluster.api.patch(path, {"spec": {"replicas": 4}})

    Faulty(fleet, meddle)
    fleet.scale_up("small", 3)
    assert cluster.scale_of("small") == 4


def test_an_api_server_that_is_down_ends_the_tick_before_it_acts(cluster: Cluster) -> None:
    fleet = cluster.fleet(give_up_s=1.0)
    Faulty(fleet, lambda *_: (0, {}))
    began = time.monotonic()
    with pytest.raises(FleetUnreadableError, match=r"does not answer GET .*/pods: connection reset"):
        fleet.replicas()
    assert time.monotonic() - began < 3


def test_half_a_list_is_no_list(cluster: Cluster, pod: str) -> None:
    """The first page comes, the second never does."""
    fleet = cluster.fleet(give_up_s=1.0)
    Faulty(fleet, lambda _method, path, before: (500, {}) if path.endswith("/pods") and before else None)
    assert len(fleet.replicas()) == 1
    fleet._picture._read_at = 0.0
    with pytest.raises(FleetUnreadableError, match="answers 500"):
        fleet.replicas()


def test_the_api_server_restarts_while_a_route_is_set(cluster: Cluster, pod: str) -> None:
    fleet = cluster.fleet()
    cluster.plane.stop("kube-apiserver")
    with ThreadPoolExecutor(1) as pool:
        routed = pool.submit(fleet.route, "echo", pod)
        time.sleep(0.5)
        cluster.plane.start_api_server()
        routed.result()
    assert cluster.fleet().routes() == {"echo": frozenset({pod})}


def test_a_pod_deleted_between_decision_and_act(cluster: Cluster, pod: str) -> None:
    fleet = cluster.fleet()
    fleet.replicas()
    cluster.delete("v1", "pods", pod)
    eventually(lambda: pod not in cluster.pods())
    with pytest.raises(ApiError, match="not found"):
        fleet.route("echo", pod)
    fleet.unroute("echo", pod)
    fleet.scale_down(pod)
    assert cluster.scale_of("small") == 1


def test_what_is_on_a_node_that_is_gone_cannot_be_counted_on(cluster: Cluster, pod: str) -> None:
    node = cluster.pods()[pod]["spec"]["nodeName"]
    cluster.api.call(Call("DELETE", f"/api/v1/nodes/{node}"))
    try:
        (replica,) = cluster.fleet().replicas()
        assert (replica.node, replica.zone, replica.state) == (node, "", "unreachable")
        assert replica.detail == f"node {node} is gone"
    finally:
        create_node(cluster.api, node)
