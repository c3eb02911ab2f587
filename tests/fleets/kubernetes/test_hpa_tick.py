"""Whole ticks on a pool whose count a real HPA writes: what it brings is filled, what it takes is the emptiest."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.config import Config
from tasks.fleets.kubernetes.names import DELETION_COST
from tests.fleets.kubernetes.cluster import eventually, hpa
from tests.fleets.kubernetes.stage import POOLS, Stage, failed

pytestmark = pytest.mark.kubernetes

HOT = {"service_ms": 700, "max_copies": 2}
"""One request a second of 700 ms each: one copy would let the next wait, the policy allows two."""


def config(stage: Stage, **policies: Any) -> Config:
    return stage.config({"small": POOLS["small"] | {"owner": "hpa"}}, **policies)


def costs(stage: Stage) -> dict[str, int]:
    """Deletion cost by pod that stays."""
    return {
        name: int(pod["metadata"].get("annotations", {}).get(DELETION_COST, "0"))
        for name, pod in stage.cluster.pods().items()
        if "deletionTimestamp" not in pod["metadata"]
    }


def carried(stage: Stage) -> dict[str, int]:
    """Models by pod that stays."""
    serving = [stage.serving(model) for model in ("echo", "other")]
    return {pod: sum(pod in pods for pods in serving) for pod in costs(stage)}


def are_ready(stage: Stage, settings: Config, count: int) -> bool:
    return [r.state for r in stage.cluster.fleet(settings).replicas()] == ["ready"] * count


def test_a_replica_that_an_hpa_brings_gets_its_share_of_hot_models_by_the_first_tick(stage: Stage) -> None:
    stage.cluster.pool("small", 1)
    settings = config(stage, echo=HOT, other=HOT)
    *_, tick = stage.ticks_until(settings, lambda: list(carried(stage).values()) == [2])
    assert tick.placement.replicas_by_pool == {"small": 2}, "what is wanted is published"
    assert {s.model: s.copies for s in tick.sizings} == {"echo": 2, "other": 2, "slow": 0}
    assert stage.cluster.scale_of("small") == 1
    hpa(stage.cluster, at_least=2)
    eventually(lambda: are_ready(stage, settings, 2), 30)
    tick = stage.tick(settings)
    assert failed(tick) == []
    assert sorted(carried(stage).values()) == sorted(costs(stage).values()) == [2, 2]
    assert stage.tick(settings).plan.steps == ()


def bound(stage: Stage, at_most: int) -> None:
    """The HPA may not keep more."""
    path = stage.cluster.api.path("autoscaling/v1", "horizontalpodautoscalers", "small")
    stage.cluster.api.patch(path, {"spec": {"minReplicas": 1, "maxReplicas": at_most}})


@pytest.fixture
def uneven(stage: Stage) -> Config:
    """Three pods of an HPA: one carries two models, one carries one, the newest is empty."""
    stage.cluster.pool("small", 2)
    settings = config(stage, echo={"min_copies": 2}, other={"min_copies": 1})
    stage.ticks_until(settings, lambda: sorted(carried(stage).values()) == [1, 2])
    hpa(stage.cluster, at_least=3)
    eventually(lambda: are_ready(stage, settings, 3), 30)
    assert stage.tick(settings).plan.steps == ()
    return settings


def test_an_hpa_takes_the_emptiest_pod(stage: Stage, uneven: Config) -> None:
    """It is the only one that is not ready, which every version looks at first."""
    assert sorted(costs(stage).values()) == [0, 1, 2]
    assert costs(stage) == carried(stage)
    bound(stage, 2)
    eventually(lambda: sorted(costs(stage).values()) == [1, 2], 30)
    assert costs(stage) == carried(stage)
    assert stage.tick(uneven).plan.steps == ()


def test_of_pods_that_all_serve_an_hpa_takes_the_one_that_carries_least(stage: Stage, uneven: Config) -> None:
    version = stage.cluster.plane.get("/version").json()
    if (int(version["major"]), int(version["minor"].rstrip("+"))) < (1, 22):
        pytest.skip("deletion costs are looked at from Kubernetes 1.22 on: set KUBEBUILDER_ASSETS to a newer one")
    bound(stage, 1)
    eventually(lambda: list(costs(stage).values()) == [2], 30)
    assert list(carried(stage).values()) == [2]
