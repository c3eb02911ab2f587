"""A node that is lost, with real Tritons on it that go on as if nothing were, and one that comes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tasks.config import Config
from tasks.decision import Tick
from tasks.world import ReplicaState
from tests.fleets.kubernetes.cluster import eventually
from tests.fleets.kubernetes.kubelet import NODES
from tests.fleets.kubernetes.stage import Stage, failed

pytestmark = pytest.mark.kubernetes


def serving(tick: Tick) -> set[str]:
    return {copy.replica for copy in tick.observation.fleet.copies_of("echo") if copy.is_serving}


def endpoints(stage: Stage) -> set[str]:
    return stage.cluster.fleet()._routing._endpoints("echo")


@pytest.fixture
def spread(stage: Stage) -> Iterator[Config]:
    """Two copies of ``echo``, each on a node of its own."""
    stage.cluster.pool("small", 2)
    config = stage.config(echo={"min_copies": 2})
    stage.ticks_until(config, lambda: len(stage.serving("echo")) == 2)
    yield config
    for node in NODES:
        stage.kubelet.find(node)


@pytest.mark.parametrize("status", ["Unknown", "False"])
def test_what_a_lost_node_held_is_replaced_and_is_welcome_when_it_comes_back(
    stage: Stage, spread: Config, status: str
) -> None:
    pods = stage.cluster.fleet(spread).replicas()
    assert {pod.node for pod in pods} == set(NODES)
    kept, lost = (pod.name for pod in sorted(pods, key=lambda pod: pod.node))
    stage.kubelet.lose("node-b", status)
    eventually(lambda: endpoints(stage) == {kept})

    ticks = stage.ticks_until(spread, lambda: len(endpoints(stage)) == 2)
    assert (serving(ticks[0]), [u.subject for u in ticks[0].observation.unknown]) == ({kept}, [f"replica:{lost}"])
    (hold,) = (hold for hold in ticks[0].plan.holds if hold.subject == f"replica:{lost}")
    said = {"Unknown": "Unknown", "False": "NotReady"}[status]
    assert f"node node-b is {said}, NodeStatusUnknown: Kubelet stopped" in hold.reason.text
    assert lost not in {outcome.step.replica for tick in ticks for outcome in tick.outcomes}
    assert [line for tick in ticks for line in failed(tick)] == []
    settled = stage.tick(spread)
    assert (settled.plan.steps, len(serving(settled))) == ((), 2)

    stage.kubelet.find("node-b")
    eventually(lambda: len(endpoints(stage)) == 3)
    back = stage.ticks_until(spread, lambda: stage.count() == len(endpoints(stage)) == 2)
    assert [line for tick in back for line in failed(tick)] == []
    settled = stage.tick(spread)
    assert (settled.plan.steps, len(serving(settled)), settled.observation.unknown) == ((), 2, ())


def test_a_pod_that_only_lost_its_readiness_is_replaced_too(stage: Stage, spread: Config) -> None:
    """Its node reports, its server answers: somebody else's readiness gate says no."""
    lost, kept = sorted(stage.serving("echo"))
    held = stage.kubelet.held.pop(lost)  # so the kubelet says nothing of it
    try:
        stage.kubelet.call_unready(lost)
        eventually(lambda: endpoints(stage) == {kept})
        ticks = stage.ticks_until(spread, lambda: len(endpoints(stage)) == 2)
    finally:
        stage.kubelet.held[lost] = held
    assert ticks[0].observation.fleet.replica_by_name[lost].state is ReplicaState.UNREACHABLE
    assert [line for tick in ticks for line in failed(tick)] == []
    eventually(lambda: len(endpoints(stage)) == 3)
