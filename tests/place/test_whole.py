"""Whole fleets near the bound, against what HiGHS proved."""

from __future__ import annotations

import math

from tasks.decision import Sizing
from tasks.place import cost, place
from tasks.size.queueing import Station
from tasks.world import Fleet, Model, Need, Objective, Observation, Pool
from tests.benchmarks.bench_placement import LIMITS, SIZES, World, instance, sizings
from tests.place.checker import broken
from tests.plan import WHY
from tests.worlds import NOW

PROVEN = 11.70
"""Cost an hour of the cheapest fleet for 50 models, whatever the weights of the routing;
``python -m tests.benchmarks.bench_placement`` finds and proves it."""


def test_fifty_models_on_four_gpu_types_cost_little_more_than_the_proven_optimum() -> None:
    pools, models, share = instance(50, 12)
    seen, sized = World(pools, models, splits_by_weight=False).seen(), sizings(pools, models, share * SIZES[50, 12])
    placed = place(seen, sized, LIMITS)
    assert broken(seen, sized, placed) == []
    assert PROVEN <= cost(seen, placed, sized, LIMITS).per_hour <= 1.06 * PROVEN


def test_the_second_model_is_split_into_what_the_hottest_leaves_free() -> None:
    """Six large models on one GPU type: one copy a replica makes 34; HiGHS proves 25, in which a copy of the hottest
    and a small one of the next share each of 17 replicas."""
    gigabytes, service_ms = (38, 26, 18, 40, 22, 60), (900.0, 600.0, 350.0, 1200.0, 500.0, 1500.0)
    slots, rates_rps = (16, 16, 16, 8, 16, 8), (237.8, 123.4, 59.4, 16.4, 17.9, 10.0)
    needs = [
        Need(size * 10**9, ms, 1.0, n, compute_ms=0.8 * ms / n)
        for size, ms, n in zip(gigabytes, service_ms, slots, strict=True)
    ]
    models = tuple(Model(f"llm{n}", {"h100": need}, Objective(500.0), max_copies=30) for n, need in enumerate(needs))
    sized = []
    for model, need, rps in zip(models, needs, rates_rps, strict=True):
        capacity = Station(need.service_ms / 1000, need.instances, need.service_cv2).capacity_rps(model.objective)
        sized.append(Sizing(model.name, math.ceil(rps / capacity), rps, {"h100": capacity}, WHY))
    seen = Observation(NOW, Fleet(models, (Pool("h100", "h100", 80 * 10**9, 1.0, 1, 60),), (), ()))
    placed = place(seen, sized, LIMITS)
    assert broken(seen, sized, placed) == []
    assert 25 <= placed.replicas_by_pool["h100"] <= 28
