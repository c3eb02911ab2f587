"""A copy goes where it costs least. Replicas x-0 and y-0 of 100 GB and one device, at 1 an hour each; copies of 1 GB,
so that compute alone has a price, 1 an hour for a replica's; the shares are what a model takes of it in either."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tasks.decision import Sizing
from tasks.place import place
from tasks.world import Copy, CopyState, Fleet, Limits, Model, Need, Objective, Observation, Pool, Replica
from tests.plan import WHY
from tests.worlds import NOW

GB = 10**9
POOLS = tuple(Pool(p, p, 100 * GB, 1.0, 0, 2, 1, cost_per_hour=1.0, headroom=0.0) for p in "xy")
CASES: Mapping[str, tuple[Mapping[str, tuple[float, float]], str, str]] = {
    "0.2 of x beside 0.5 is cheaper than 0.3 of the empty y": ({"a": (0.2, 0.3), "b": (0.5, 0.9)}, "b", "a b/"),
    "of equal cost, the emptier": ({"a": (0.2, 0.2), "b": (0.5, 0.9)}, "b", "b/a"),
    "1.2 > 1: a would cost 0.3 more in y, b 0.3 less": ({"a": (0.6, 0.9), "b": (0.6, 0.3)}, "a b", "a/b"),
    "1.1 > 1: both cost as much in y, the smaller leaves the smaller hole": (
        {"a": (0.6, 0.6), "b": (0.5, 0.5)},
        "a b",
        "a/b",
    ),
    "1.2 > 1: b costs 0.1 more in y, and a, which costs as much, leaves a hole of 0.1 x (0.8 - 0.4) = 0.04 more": (
        {"a": (0.8, 0.8), "b": (0.4, 0.5)},
        "a b",
        "b/a",
    ),
}


@pytest.mark.parametrize(("shares", "in_x", "placed"), list(CASES.values()), ids=list(CASES))
def test_where_it_costs_least(shares: Mapping[str, tuple[float, float]], in_x: str, placed: str) -> None:
    models = tuple(
        Model(m, {gpu: Need(GB, 10 * s) for gpu, s in zip("xy", both, strict=True)}, Objective(50.0))
        for m, both in shares.items()
    )
    sized = tuple(Sizing(m, 1, 100.0, {"x": 200.0, "y": 200.0}, WHY) for m in shares)
    replicas = tuple(Replica(f"{p}-0", p, p, 100 * GB, 1.0) for p in "xy")
    copies = tuple(Copy(m, "x-0", CopyState.READY, is_routed=True) for m in in_x.split())
    found = place(Observation(NOW, Fleet(models, POOLS, replicas, copies)), sized, Limits())
    rows = [[a.model for a in found.assignments if a.replica == replica.name] for replica in replicas]
    assert "/".join(map(" ".join, rows)) == placed
