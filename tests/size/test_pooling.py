"""Compute that is kept for several models together. A request takes 50 ms of a device; a tenth of it is kept free, so
that 18 req/s fill a replica."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.decision import Forecast, Reason, Sizing
from tasks.size.pooling import pooled
from tasks.world import Fleet, Model, Need, Objective, Pool

POOL = Pool("p", "x", 10**9, max_replicas=9)
WHY = Reason("demand", "for the test")
Demand = tuple[float, float, int]
"""Median and upper quantile (req/s), copies."""


def loads(*demands: Demand, seen_rps: float | None = None) -> list[float | None]:
    """Each model's load; ``seen_rps``: what the first one is sized for instead."""
    names = [f"m{n}" for n in range(len(demands))]
    models = tuple(Model(name, {"x": Need(1, 50.0)}, Objective(50.0)) for name in names)
    forecasts = {
        n: Forecast(n, median, upper, 90.0, "level") for n, (median, upper, _) in zip(names, demands, strict=True)
    }
    sizings = [Sizing(n, copies, upper, {}, WHY) for n, (_, upper, copies) in zip(names, demands, strict=True)]
    if seen_rps is not None:
        sizings[0] = replace(sizings[0], demand_rps=seen_rps)
    found = pooled(sizings, forecasts, Fleet(models, (POOL,), (), ()))
    assert [s.copies for s in found] == [copies for *_, copies in demands]
    return [s.load_rps for s in found]


@pytest.mark.parametrize(
    ("name", "demands", "expected"),
    [
        ("alone: all of it", [(8.0, 10.0, 1)], [10.0]),
        ("four of 2.5 + 2 in one replica: a margin of sqrt(4) * 2 = 4 for the 8, half of each",
         [(2.5, 4.5, 1)] * 4, [3.5] * 4),
        ("the same in twice as many copies and models: two replicas of four copies", [(5.0, 9.0, 2)] * 4, [7.0] * 4),
        ("one margin of 4 beside three of 0: nothing to share", [(5.0, 9.0, 1), *[(3.0, 3.0, 1)] * 3],
         [9.0, 3.0, 3.0, 3.0]),
        ("3 and 4 together are 5, not 7", [(4.0, 7.0, 1), (4.0, 8.0, 1)], [4 + 3 * 5 / 7, 4 + 4 * 5 / 7]),
        ("nobody asks", [(0.0, 0.0, 1)], [None]),
        ("certain", [(5.0, 5.0, 1), (6.0, 6.0, 1)], [5.0, 6.0]),
    ],
)  # fmt: skip
def test_margins_add_up_as_the_root_of_their_squares(
    name: str, demands: list[Demand], expected: list[float | None]
) -> None:
    assert loads(*demands) == pytest.approx(expected)


def test_what_is_there_already_counts_in_full() -> None:
    assert loads((2.5, 4.5, 1), *[(2.5, 4.5, 1)] * 4, seen_rps=6.0) == pytest.approx([None, 3.5, 3.5, 3.5, 3.5])


def test_a_request_keeps_its_part_of_the_load() -> None:
    sizing = Sizing("m", 1, 10.0, {}, WHY, load_rps=8.0)
    assert sizing.device_s(Need(1, 50.0), "x") == pytest.approx(0.05 * 8 / 10)
    assert replace(sizing, load_rps=None).device_s(Need(1, 50.0), "x") == 0.05
