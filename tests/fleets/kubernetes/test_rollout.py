"""A rollout of a pool: one of its older pods after another is emptied into a newer one, and then goes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tasks.config import Config
from tasks.decision import StepKind
from tasks.fleets.kubernetes.api import ApiError
from tasks.fleets.kubernetes.pods import template_of
from tasks.world import ReplicaState
from tests.fleets.kubernetes.cluster import Cluster, eventually, hpa, roll
from tests.fleets.kubernetes.gateway import Gateway
from tests.fleets.kubernetes.stage import POOLS, Stage, failed, kinds

pytestmark = pytest.mark.kubernetes

DELAY_S = 1.0


def alive(cluster: Cluster) -> dict[str, str]:
    """Template by pod."""
    pods = cluster.pods().items()
    return {name: template_of(pod) for name, pod in pods if "deletionTimestamp" not in pod["metadata"]}


def rolled(stage: Stage, count: int, copies: int = 1) -> tuple[Config, dict[str, str]]:
    """A pool that keeps so many pods, of which ``copies`` carry echo, when its rollout has begun; its older pods."""
    stage.cluster.pool("small", count)
    pools = {"small": POOLS["small"] | {"min_replicas": count}}
    config = stage.config(pools, echo={"min_copies": copies, "max_copies": copies})
    stage.ticks_until(config, lambda: len(stage.serving("echo")) == copies)
    old = alive(stage.cluster)
    roll(stage.cluster)
    return config, old


@pytest.mark.parametrize("owner", ["us", "hpa"])
def test_a_rollout_replaces_every_pod_and_no_request_fails(stage: Stage, tmp_path: Path, owner: str) -> None:
    """Two pods with three models, of which each has its only copy somewhere; a third comes for each of them in turn."""
    stage.cluster.pool("small", 2)
    one = {"min_copies": 1, "max_copies": 1, "footprint": "400MB"}
    pools = {"small": POOLS["small"] | {"owner": owner, "min_replicas": 2}}
    config = stage.config(pools, DELAY_S + 1, echo=one, other=one, slow=one)
    if owner == "hpa":
        hpa(stage.cluster, at_least=2)
    models = ("echo", "other", "slow")
    stage.ticks_until(config, lambda: all(stage.serving(model) for model in models))
    old = alive(stage.cluster)
    (tmp_path / "envoy").mkdir()
    with Gateway(stage.cluster, tmp_path / "envoy", DELAY_S).running() as gateway:
        eventually(lambda: {gateway.infer(model) for model in models} == {200})
        with gateway.load(*models, every_s=0.1):
            roll(stage.cluster)
            ticks = stage.ticks_until(config, lambda: not old.keys() & alive(stage.cluster).keys(), most=40)
            eventually(lambda: len(alive(stage.cluster)) == 2)
            time.sleep(DELAY_S)
    assert gateway.wrong == set()
    assert set(gateway.statuses) == {200}
    assert [line for tick in ticks for line in failed(tick)] == []
    assert StepKind.SCALE_DOWN in kinds(*ticks)
    assert stage.cluster.scale_of("small") == 2
    assert {tick.placement.replicas_by_pool["small"] for tick in ticks} == {2}, "no other count was wanted meanwhile"
    assert len(set(alive(stage.cluster).values())) == 1
    print(f"{gateway.statuses[200]} requests through {len(ticks)} ticks, 0 failed")


def test_nothing_leaves_for_a_revision_that_does_not_start(stage: Stage) -> None:
    config, (old,) = rolled(stage, 1)
    eventually(lambda: len(alive(stage.cluster)) == 2)
    (new,) = alive(stage.cluster).keys() - {old}
    eventually(lambda: new in stage.kubelet.held)
    stage.kubelet.crash(new)
    eventually(lambda: {r.name: r.state for r in stage.cluster.fleet(config).replicas()}[new] == "starting")
    assert stage.tick(config).plan.steps == ()
    assert set(stage.serving("echo")) == {old}


def test_an_older_pod_that_is_empty_goes_at_once(stage: Stage) -> None:
    """Its pool keeps two, and one has nothing to carry: the newer one is never ready, and stays."""
    config, old = rolled(stage, 2)
    stage.ticks_until(config, lambda: not old.keys() & alive(stage.cluster).keys(), most=40)
    assert len(stage.serving("echo")) == 1
    eventually(lambda: stage.count() == 2)
    assert stage.cluster.scale_of("small") == 2


def test_a_rollout_that_somebody_paused_stands_still(stage: Stage) -> None:
    """The Deployment would make up for a pod that goes, by one of either revision."""
    config, (old,) = rolled(stage, 1)
    eventually(lambda: sorted(r.state for r in stage.cluster.fleet(config).replicas()) == ["leaving", "ready"])
    deployment = stage.cluster.api.path("apps/v1", "deployments", "triton-small")
    stage.cluster.api.patch(deployment, {"spec": {"paused": True}})
    assert [r.state for r in stage.cluster.fleet(config).replicas()] == ["ready", "ready"]
    assert stage.tick(config).plan.steps == ()
    stage.cluster.api.patch(deployment, {"spec": {"paused": False}})
    stage.ticks_until(config, lambda: old not in alive(stage.cluster))


def test_the_count_is_not_lowered_in_the_middle(stage: Stage) -> None:
    """The Deployment would share it out among the revisions, and take a loaded pod of the one that has more."""
    config, old = rolled(stage, 2, copies=2)
    eventually(lambda: [r.state for r in stage.cluster.fleet(config).replicas()].count(ReplicaState.LEAVING) == 1)
    (new,) = alive(stage.cluster).keys() - old.keys()
    with pytest.raises(ApiError, match="pool small keeps its count while a rollout is under way"):
        stage.cluster.fleet(config).scale_down(new)
    assert stage.cluster.scale_of("small") == 2
