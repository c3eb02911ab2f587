"""Whole fleets near the bound, against what HiGHS proved."""

from __future__ import annotations

from tasks.place import cost, place
from tests.benchmarks.bench_placement import LIMITS, SIZES, World, instance, sizings
from tests.place.checker import broken

PROVEN = 11.70
"""Cost an hour of the cheapest fleet for 50 models, whatever the weights of the routing;
``python -m tests.benchmarks.bench_placement`` finds and proves it."""


def test_fifty_models_on_four_gpu_types_cost_little_more_than_the_proven_optimum() -> None:
    pools, models, share = instance(50, 12)
    seen, sized = World(pools, models, splits_by_weight=False).seen(), sizings(pools, models, share * SIZES[50, 12])
    placed = place(seen, sized, LIMITS)
    assert broken(seen, sized, placed) == []
    assert PROVEN <= cost(seen, placed, sized, LIMITS).per_hour <= 1.06 * PROVEN
