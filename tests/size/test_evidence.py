"""What a sizing rests on: which copies count, which queue times do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.decision import Forecast
from tasks.size.evidence import Evidence, gather
from tasks.world import CopyState, Observation, Pool, ReplicaState
from tests.size.fleets import LIMITS, POOL, Row, seen

READY, LOADING, UNLOADING, ABSENT, UNKNOWN = (
    CopyState.READY,
    CopyState.LOADING,
    CopyState.UNLOADING,
    CopyState.ABSENT,
    CopyState.UNKNOWN,
)


def evidence(observation: Observation) -> Evidence:
    found = gather(observation, {"m": Forecast("m", 1.0, 2.0, 90.0, "level")}, LIMITS)["m"]
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "states", "current", "serving"),
    [
        ("ready", [READY, READY], 2, 2),
        ("one still loads", [READY, LOADING], 2, 1),
        ("one is on its way out", [READY, UNLOADING], 1, 1),
        ("one was lost: a crash is no wish for fewer", [READY, ABSENT], 2, 1),
        ("one cannot be read", [READY, UNKNOWN], 2, 1),
        ("none", [], 0, 0),
    ],
)
def test_copies_that_count(name: str, states: list[CopyState], current: int, serving: int) -> None:
    found = evidence(seen(0, states=states))
    assert (found.current, found.serving) == (current, serving)


def test_a_copy_that_is_not_routed_or_fails_does_not_serve() -> None:
    observation = seen(2)
    one, two = observation.fleet.copies
    for broken in (replace(two, is_routed=False), replace(two, is_failing=True)):
        fleet = replace(observation.fleet, copies=(one, broken))
        found = evidence(replace(observation, fleet=fleet))
        assert (found.current, found.serving) == (2, 1)


@pytest.mark.parametrize(
    ("name", "traffic", "age_s", "queue_ms", "by_copy"),
    [
        # 1 req/s over an interval of 30 s are 30 requests
        ("one copy", [(1.0, 40.0, 50.0)], 0.0, 40.0, (("small", 40.0),)),
        (
            "weighted by requests: (3 * 10 + 1 * 50) / 4",
            [(3.0, 10.0, 50.0), (1.0, 50.0, 50.0)],
            0.0,
            20.0,
            (("small", 10.0), ("small", 50.0)),
        ),
        ("0.6 * 30 = 18 requests are too few", [(0.6, 40.0, 50.0)], 0.0, None, (("small", 40.0),)),
        (
            "idle copies wait for nothing",
            [(1.0, 40.0, 50.0), (0.0, float("nan"), float("nan"))],
            0.0,
            40.0,
            (("small", 40.0),),
        ),
        ("stale", [(1.0, 40.0, 50.0)], 61.0, None, ()),
        ("of unknown age", [(1.0, 40.0, 50.0)], None, None, ()),
        ("not observed", [], 0.0, None, ()),
    ],
)
def test_queue_times_that_count(
    name: str, traffic: list[Row], age_s: float | None, queue_ms: float | None, by_copy: tuple[tuple[str, float], ...]
) -> None:
    found = evidence(seen(2, traffic=traffic, age_s=age_s))
    assert (found.queue_ms, found.queue_ms_by_copy) == (queue_ms, by_copy)


def test_the_queue_of_what_does_not_serve_counts_for_nothing() -> None:
    observation = seen(2, traffic=[(1.0, 40.0, 50.0), (1.0, 900.0, 50.0)])
    fleet = observation.fleet
    lost = replace(fleet.replicas[1], state=ReplicaState.UNREACHABLE)
    unrouted = replace(fleet.copies[1], is_routed=False)
    for changed in (
        replace(fleet, replicas=(fleet.replicas[0], lost)),
        replace(fleet, copies=(fleet.copies[0], unrouted)),
    ):
        assert evidence(replace(observation, fleet=changed)).queue_ms == 40.0


@pytest.mark.parametrize(
    ("name", "pools", "room"),
    [
        ("as many as the pool may have", [replace(POOL, max_replicas=5, replicas=2)], 5),
        ("it has more than it may", [replace(POOL, max_replicas=2, replicas=3)], 3),
        ("another autoscaler's: it is told of more", [replace(POOL, max_replicas=5, is_scaled_by_us=False)], 5),
        ("two pools", [replace(POOL, max_replicas=3), Pool("large", "large", 10**9, max_replicas=2)], 5),
    ],
)
def test_room(name: str, pools: list[Pool], room: int) -> None:
    assert evidence(seen(2, pools=pools)).room == room


def test_a_pool_that_the_model_may_not_live_in_is_no_room() -> None:
    pools = [replace(POOL, max_replicas=3), Pool("large", "large", 10**9, max_replicas=2)]
    assert evidence(seen(1, pools=pools, pools_allowed=frozenset({"large"}))).room == 2


@pytest.mark.parametrize(
    ("name", "large", "service_ms", "at_home"),
    [
        ("as dear, half as fast", Pool("large", "large", 10**9), 100.0, "small"),
        ("a third of the cost, half as fast", Pool("large", "large", 10**9, cost_per_hour=0.33), 100.0, "large"),
        (
            "cheapest, but it can have no replica",
            Pool("large", "large", 10**9, 1.0, 0, 0, cost_per_hour=0.1),
            50.0,
            "small",
        ),
        ("cheapest, but too small", Pool("large", "large", 10**6, cost_per_hour=0.1), 50.0, "small"),
    ],
)
def test_a_model_is_at_home_where_its_requests_cost_least(
    name: str, large: Pool, service_ms: float, at_home: str
) -> None:
    observation = seen(1, pools=[POOL, large])
    (model,) = observation.fleet.models
    needs = {**model.need_by_gpu_type, "large": replace(model.need_by_gpu_type["small"], service_ms=service_ms)}
    fleet = replace(observation.fleet, models=(replace(model, need_by_gpu_type=needs),))
    assert evidence(replace(observation, fleet=fleet)).home_gpu_type == at_home
