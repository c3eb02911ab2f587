"""The count of replicas, and who leaves, with the real controllers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.fleets import FleetUnreadableError
from tasks.fleets.kubernetes.api import ApiError
from tasks.world import ReplicaState
from tests.fleets.kubernetes.cluster import Cluster, eventually, hpa
from tests.fleets.kubernetes.kubelet import Kubelet

pytestmark = pytest.mark.kubernetes


def filled(cluster: Cluster, count: int, *empty: int) -> tuple[Kubelet, list[str]]:
    """A pool of ready pods that all carry ``echo``, but for those at the positions ``empty``."""
    kubelet = cluster.kubelet()
    cluster.pool("small", count)
    fleet = cluster.fleet()
    fleet.declare(cluster.config("small").domain_models())
    eventually(lambda: [r.state for r in cluster.fleet().replicas()] == [ReplicaState.READY] * count)
    pods = sorted(cluster.pods())
    for position, pod in enumerate(pods):
        if position not in empty:
            fleet.route("echo", pod)
    return kubelet, pods


def alive(cluster: Cluster) -> set[str]:
    return {name for name, pod in cluster.pods().items() if "deletionTimestamp" not in pod["metadata"]}


def test_up_asks_for_more_and_never_for_fewer(cluster: Cluster) -> None:
    cluster.pool("small", 2)
    fleet = cluster.fleet()
    fleet.scale_up("small", 5)
    fleet.scale_up("small", 3)
    assert cluster.scale_of("small") == 5
    assert fleet.pools()[0].replicas == 5


def test_the_emptied_pod_goes_and_no_other(cluster: Cluster) -> None:
    _, pods = filled(cluster, 4)
    fleet = cluster.fleet()
    fleet.unroute("echo", pods[2])
    fleet.scale_down(pods[2])
    eventually(lambda: alive(cluster) == set(pods) - {pods[2]})
    assert cluster.scale_of("small") == 3
    fleet.scale_down(pods[2])  # again: nothing happens
    assert cluster.scale_of("small") == 3


def test_three_emptied_pods_go_at_the_same_time_and_no_other(cluster: Cluster) -> None:
    _, pods = filled(cluster, 5, 0, 2, 4)
    fleet = cluster.fleet()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(fleet.scale_down, (pods[0], pods[2], pods[4])))
    assert alive(cluster) == {pods[1], pods[3]}
    assert cluster.scale_of("small") == 2


def test_a_pod_that_carries_a_model_is_not_removed(cluster: Cluster) -> None:
    _, pods = filled(cluster, 2)
    with pytest.raises(ApiError, match=f"pod {pods[0]} is not empty: requests for echo are sent to it"):
        cluster.fleet().scale_down(pods[0])
    assert cluster.scale_of("small") == 2


def test_the_count_stays_while_another_pod_is_not_ready(cluster: Cluster) -> None:
    """The controller would delete that one first, with all that it carries."""
    kubelet, pods = filled(cluster, 3, 0)
    kubelet.crash(pods[1])
    eventually(lambda: not [r for r in cluster.fleet().replicas() if r.name == pods[1] and r.state == "ready"])
    with pytest.raises(ApiError, match=f"keeps its 3 replicas: {pods[1]} is not ready and would be taken first"):
        cluster.fleet().scale_down(pods[0])
    assert cluster.scale_of("small") == 3
    kubelet.restart(pods[1])
    eventually(lambda: {r.state for r in cluster.fleet().replicas()} == {ReplicaState.READY})
    cluster.fleet().scale_down(pods[0])
    assert alive(cluster) == {pods[1], pods[2]}


def test_a_tick_killed_before_the_count_went_down_is_finished_by_the_next(cluster: Cluster) -> None:
    _, pods = filled(cluster, 3, 1)
    cluster.fleet()._routing.mark(pods[1], {}, {"controller.kubernetes.io/pod-deletion-cost": "-1000"})
    cluster.fleet().scale_down(pods[1])
    assert cluster.scale_of("small") == 2
    assert alive(cluster) == {pods[0], pods[2]}


def test_a_pod_that_an_earlier_tick_marked_does_not_take_the_count_down_with_the_one_that_goes(
    cluster: Cluster,
) -> None:
    """That tick failed to remove it, and this one has other plans with it."""
    _, pods = filled(cluster, 3, 0, 1)
    fleet = cluster.fleet()
    fleet._routing.mark(pods[1], {}, {"controller.kubernetes.io/pod-deletion-cost": "-1000"})
    fleet.declare(cluster.config("small").domain_models())
    fleet.scale_down(pods[0])
    assert cluster.scale_of("small") == 2
    assert alive(cluster) == {pods[1], pods[2]}


def test_an_emptied_pod_that_is_used_again_leaves_no_more(cluster: Cluster) -> None:
    _, pods = filled(cluster, 3, 0, 1)
    fleet = cluster.fleet()
    fleet._routing.mark(pods[1], {}, {"controller.kubernetes.io/pod-deletion-cost": "-1000"})
    fleet.route("echo", pods[1])
    fleet.scale_down(pods[0])
    assert cluster.scale_of("small") == 2
    assert alive(cluster) == {pods[1], pods[2]}


# --- pools that an HPA owns


def test_a_pool_that_an_hpa_targets_is_not_scaled(cluster: Cluster) -> None:
    cluster.pool("small", 1)
    hpa(cluster, at_least=1)
    (pool,) = cluster.fleet().pools()
    assert not pool.is_scaled_by_us
    with pytest.raises(ApiError, match="pool small is scaled by somebody else"):
        cluster.fleet().scale_up("small", 2)
    assert cluster.scale_of("small") == 1


def test_a_pool_declared_as_somebody_elses_is_not_scaled(cluster: Cluster) -> None:
    cluster.pool("small", 1)
    pools = {"small": {"memory": "1GB", "owner": "hpa", "max_replicas": 4}}
    fleet = cluster.fleet(config=cluster.config(pools=pools))
    assert not fleet.pools()[0].is_scaled_by_us
    with pytest.raises(ApiError, match="scaled by somebody else"):
        fleet.scale_up("small", 2)


def test_what_an_hpa_adds_is_there_to_be_filled(cluster: Cluster) -> None:
    _, (first,) = filled(cluster, 1)
    hpa(cluster, at_least=2)
    eventually(lambda: [r.state for r in cluster.fleet().replicas()] == [ReplicaState.READY] * 2, 30)
    fleet = cluster.fleet()
    (new,) = {r.name for r in fleet.replicas()} - {first}
    fleet.route("echo", new)
    assert fleet.routes() == {"echo": frozenset({first, new})}
    rescaled = [e for e in cluster.api.items(cluster.api.path("v1", "events")) if e["reason"] == "SuccessfulRescale"]
    assert len(rescaled) == 1


# --- Deployments that are not as they should be


def test_a_pool_without_a_deployment_is_named(cluster: Cluster) -> None:
    with pytest.raises(FleetUnreadableError, match=r"pool small: no Deployment .* has the label triton-placement/pool"):
        cluster.fleet().pools()


def test_two_deployments_of_one_pool_are_named(cluster: Cluster) -> None:
    cluster.pool("small", 0)
    cluster.pool("small", 0, name="triton-again")
    with pytest.raises(FleetUnreadableError, match="triton-again and triton-small are both labelled"):
        cluster.fleet().pools()
