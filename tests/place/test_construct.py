"""Many copies at once, and the bound: small arithmetic on two pools of different GPU types."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.decision import Sizing
from tasks.place import place
from tasks.place.bound import prices
from tasks.place.read import read
from tasks.world import Fleet, Limits, Model, Need, Objective, Observation, Pool
from tests.place.checker import broken
from tests.plan import WHY
from tests.worlds import NOW

GB = 10**9
POOLS = (
    Pool("slow", "x", 10 * GB, min_replicas=0, max_replicas=40, cost_per_hour=1.0, headroom=0.0),
    Pool("fast", "y", 10 * GB, min_replicas=0, max_replicas=40, cost_per_hour=1.5, headroom=0.0),
)


def world(only_slow: bool) -> tuple[Observation, tuple[Sizing, ...]]:
    """20 models of 1 GB that take half of a slow replica's compute each, or a quarter of a fast one's."""
    gpus = {"x": Need(GB, 50.0)} | ({} if only_slow else {"y": Need(GB, 25.0)})
    models = tuple(Model(f"m{n:02d}", gpus, Objective(50.0)) for n in range(20))
    sizings = tuple(Sizing(m.name, 1, 10.0, dict.fromkeys(gpus, 15.0), WHY) for m in models)
    return Observation(NOW, Fleet(models, POOLS, (), ())), sizings


@pytest.mark.parametrize(
    ("only_slow", "bound", "counts"),
    [
        (True, 10.0, {"slow": 10, "fast": 0}),  # 20 x 0.5 = 10 replicas at 1
        (False, 7.5, {"slow": 0, "fast": 5}),  # 20 x 0.25 = 5 replicas at 1.5
    ],
)
def test_the_cheapest_fleet_is_found_and_bounded(only_slow: bool, bound: float, counts: dict[str, int]) -> None:
    seen, sizings = world(only_slow)
    placed = place(seen, sizings, Limits())
    assert placed.replicas_by_pool == counts
    assert broken(seen, sizings, placed) == []
    assert prices(read(seen, sizings, Limits())).bound_per_hour == pytest.approx(bound, rel=0.02)


@pytest.mark.filterwarnings("error")
def test_a_model_larger_than_every_replica_is_left_out_and_the_others_are_placed() -> None:
    """Many are missing, so all are placed at once: 11 GB fits in no replica of 10 GB."""
    seen, sizings = world(only_slow=True)
    too_large = replace(seen.fleet.models[3], need_by_gpu_type={"x": Need(11 * GB, 50.0)})
    models = (*seen.fleet.models[:3], too_large, *seen.fleet.models[4:])
    seen = replace(seen, fleet=replace(seen.fleet, models=models))
    placed = place(seen, sizings, Limits())
    assert placed.replicas_by_pool["slow"] == 10, "19 x 0.5 = 9.5"
    assert [(hold.subject, hold.reason.code) for hold in placed.holds] == [("model:m03", "no_room")]
