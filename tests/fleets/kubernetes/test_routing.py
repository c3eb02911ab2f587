"""Routes on a real API server: labels, gates, Services, EndpointSlices, HTTPRoutes."""

from __future__ import annotations

import pytest

from tasks.fleets.kubernetes.api import ApiError
from tasks.fleets.kubernetes.call import Json
from tasks.world import ReplicaState
from tests.fleets.kubernetes.cluster import Cluster, eventually

pytestmark = pytest.mark.kubernetes


@pytest.fixture
def pods(cluster: Cluster) -> list[str]:
    """Two ready replicas of a pool ``small``, and the Services of its models."""
    cluster.kubelet()
    cluster.pool("small", 2)
    fleet = cluster.fleet()
    fleet.declare(cluster.config("small").domain_models())
    eventually(lambda: [r.state for r in cluster.fleet().replicas()] == [ReplicaState.READY] * 2)
    return sorted(cluster.pods())


def endpoints(cluster: Cluster, service: str) -> set[str]:
    """Pods that the control plane's own controller sends the Service's requests to."""
    version = cluster.api.served("discovery.k8s.io/v1", "discovery.k8s.io/v1beta1") or ""
    slices = cluster.api.items(
        cluster.api.path(version, "endpointslices"), labelSelector=f"kubernetes.io/service-name={service}"
    )
    return {e["targetRef"]["name"] for s in slices for e in s["endpoints"] or [] if e["conditions"]["ready"]}


def condition(pod: Json, kind: str) -> str | None:
    return {c["type"]: c["status"] for c in pod["status"]["conditions"]}.get(kind)


def services(cluster: Cluster) -> dict[str, Json]:
    return {s["metadata"]["name"]: s for s in cluster.api.items(cluster.api.path("v1", "services"))}


def test_a_replica_is_what_its_pod_and_node_say(cluster: Cluster, pods: list[str]) -> None:
    one, two = cluster.fleet().replicas()
    assert [one.name, two.name] == pods
    assert (one.pool, one.gpu_type, one.memory_bytes) == ("small", "small", 10**9)
    assert {(r.node, r.zone) for r in (one, two)} == {("node-a", "zone-1"), ("node-b", "zone-2")}
    address = cluster.pods()[one.name]["status"]["podIP"]
    assert (one.http, one.grpc, one.metrics) == (f"{address}:8000", f"{address}:8001", f"{address}:8002")


def test_an_empty_replica_is_ready_for_a_load_though_its_pod_is_not_ready(cluster: Cluster, pods: list[str]) -> None:
    assert {condition(pod, "Ready") for pod in cluster.pods().values()} == {"False"}
    assert {condition(pod, "ContainersReady") for pod in cluster.pods().values()} == {"True"}


def test_a_route_returns_once_the_endpoint_is_there(cluster: Cluster, pods: list[str]) -> None:
    fleet = cluster.fleet()
    fleet.route("echo", pods[0])
    assert endpoints(cluster, "model-echo") == {pods[0]}
    assert endpoints(cluster, "model-other") == set()
    assert fleet.routes() == cluster.fleet().routes() == {"echo": frozenset({pods[0]})}
    pod = cluster.pods()[pods[0]]
    assert pod["metadata"]["labels"]["model.triton-placement/echo"] == "ready"
    assert condition(pod, "triton-placement/carrying") == "True"


def test_an_unroute_returns_once_the_endpoint_is_gone(cluster: Cluster, pods: list[str]) -> None:
    fleet = cluster.fleet()
    for pod in pods:
        fleet.route("echo", pod)
    fleet.route("other", pods[0])
    fleet.unroute("echo", pods[0])
    assert endpoints(cluster, "model-echo") == {pods[1]}
    assert condition(cluster.pods()[pods[0]], "triton-placement/carrying") == "True"  # it has other still
    fleet.unroute("other", pods[0])
    assert condition(cluster.pods()[pods[0]], "triton-placement/carrying") == "True"  # it may be drained still
    fleet.declare(cluster.config("small").domain_models())
    assert condition(cluster.pods()[pods[0]], "triton-placement/carrying") == "False"
    assert fleet.routes() == {"echo": frozenset({pods[1]})}
    fleet.unroute("other", pods[0])  # again: nothing happens
    fleet.unroute("other", "small-gone")


def test_the_deletion_cost_is_how_many_models_a_pod_carries(cluster: Cluster, pods: list[str]) -> None:
    fleet = cluster.fleet()
    fleet.route("echo", pods[0])
    fleet.route("other", pods[0])
    fleet.route("echo", pods[1])
    cost = "controller.kubernetes.io/pod-deletion-cost"
    assert [cluster.pods()[pod]["metadata"]["annotations"][cost] for pod in pods] == ["2", "1"]


def test_routing_to_a_pod_that_is_gone_says_so(cluster: Cluster, pods: list[str]) -> None:
    with pytest.raises(ApiError, match="pod small-gone is gone"):
        cluster.fleet().route("echo", "small-gone")


def test_names_that_are_no_labels_are_routed_too(cluster: Cluster, pods: list[str]) -> None:
    model = "Some_Model.v2-" + "x" * 80
    config = cluster.config("small", models={model: {"footprint": "1MB", "service_ms": 1}})
    fleet = cluster.fleet(config=config)
    fleet.declare(config.domain_models())
    fleet.route(model, pods[0])
    assert fleet.routes() == {model: frozenset({pods[0]})}
    (service,) = services(cluster)
    assert endpoints(cluster, service) == {pods[0]}


def test_the_only_endpoint_stays_while_another_is_yet_to_be_one(
    cluster: Cluster, pods: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint controller is behind: both are labelled and ready, and requests get to one of them."""
    fleet = cluster.fleet()
    fleet.route("echo", pods[0])
    fleet.route("echo", pods[1])
    monkeypatch.setattr(fleet._routing, "_endpoints", lambda _: {pods[0]})
    with pytest.raises(ApiError, match=f"{pods[0]} is the only endpoint of Service model-echo, {pods[1]} is yet to be"):
        fleet.unroute("echo", pods[0])
    assert endpoints(cluster, "model-echo") == {pods[0], pods[1]}
    monkeypatch.undo()
    fleet.unroute("echo", pods[0])
    fleet.unroute("echo", pods[1])  # the last of a model that nobody asks
    assert endpoints(cluster, "model-echo") == set()


# --- what somebody else did


def test_a_label_taken_off_by_hand_is_a_route_that_is_missing(cluster: Cluster, pods: list[str]) -> None:
    cluster.fleet().route("echo", pods[0])
    cluster.label(pods[0], "model.triton-placement/echo", None)
    fleet = cluster.fleet()
    assert fleet.routes() == {}
    fleet.route("echo", pods[0])
    assert endpoints(cluster, "model-echo") == {pods[0]}


def test_a_label_changed_by_hand_is_no_route_and_is_put_right(cluster: Cluster, pods: list[str]) -> None:
    cluster.fleet().route("echo", pods[0])
    cluster.label(pods[0], "model.triton-placement/echo", "edited")
    fleet = cluster.fleet()
    assert fleet.routes() == {}
    fleet.route("echo", pods[0])
    assert endpoints(cluster, "model-echo") == {pods[0]}


def test_a_label_set_by_hand_is_a_route_once_its_gate_is_open(cluster: Cluster, pods: list[str]) -> None:
    """It reaches no endpoint before: the pod is not ready."""
    cluster.label(pods[0], "model.triton-placement/echo", "ready")
    fleet = cluster.fleet()
    assert fleet.routes() == {}
    fleet.unroute("echo", pods[0])
    assert "model.triton-placement/echo" not in cluster.pods()[pods[0]]["metadata"]["labels"]


def test_a_restarted_container_keeps_its_routes(cluster: Cluster) -> None:
    """So the tick finds them routed and not ready, and takes the routes away first."""
    kubelet = cluster.kubelet()
    cluster.pool("small", 1)
    cluster.fleet().declare(cluster.config("small").domain_models())
    eventually(lambda: [r.state for r in cluster.fleet().replicas()] == [ReplicaState.READY])
    (pod,) = cluster.pods()
    cluster.fleet().route("echo", pod)
    kubelet.crash(pod)
    eventually(lambda: endpoints(cluster, "model-echo") == set())
    (replica,) = cluster.fleet().replicas()
    assert replica.state is ReplicaState.STARTING
    assert replica.detail == "CrashLoopBackOff: back-off restarting failed container"
    assert cluster.fleet().routes() == {"echo": frozenset({pod})}
    kubelet.restart(pod)
    eventually(lambda: endpoints(cluster, "model-echo") == {pod})


def test_nothing_is_written_when_all_is_as_it_should_be(cluster: Cluster, pods: list[str]) -> None:
    cluster.fleet().route("echo", pods[0])
    before = cluster.versions()
    cluster.fleet().declare(cluster.config("small").domain_models())
    assert cluster.versions() == before
