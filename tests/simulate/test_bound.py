"""The lower bound: arithmetic that can be followed."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.simulate.bound import lower_bound
from tasks.simulate.demand import Demand
from tasks.world import Model, Need, Objective, Pool
from tests.simulate.small import GB, flat, model, scenario


@pytest.mark.parametrize(
    ("models", "rates", "replicas", "why"),
    [
        ((model("a"),), (0.0,), 1, "one copy, one replica"),
        (tuple(model(f"m{i}") for i in range(30)), (0.1,) * 30, 7, "30 x 2 GB / 9 GB = 6.7"),
        ((model("a", 1),), (60.0,), 7, "60 / 9.01 a second a copy: 6.7 copies, each in a replica of its own"),
        (
            tuple(model(f"m{i}", 1) for i in range(6)),
            (9.0,) * 6,
            3,
            "6 x 9 x 50 ms = 2.7 devices / 0.9; memory would need 0.7",
        ),
    ],
)
def test_one_pool(models: tuple[Model, ...], rates: tuple[float, ...], replicas: int, why: str) -> None:
    bound = lower_bound(scenario(models, flat(*rates)))
    assert set(bound.cost_per_hour.tolist()) == {replicas}, why
    assert len(bound.time) == 60  # 1800 s of 30 s


def test_each_interval_is_packed_by_itself() -> None:
    demand = flat(0.0)
    demand.rates_rps[240 + 30 :] = 17.0  # from 900 s on, two copies
    bound = lower_bound(scenario((model("a"),), demand))
    assert bound.cost_per_hour[:29].tolist() == [1] * 29
    assert bound.cost_per_hour[31:].tolist() == [2] * 29
    assert bound.mean_per_hour == pytest.approx(1.5, abs=0.02)


def two_pools(rates: Demand, models: int) -> float:
    """A small GPU for 1 an hour, one of four times the memory and twice the speed for 3."""
    made = tuple(
        Model(f"m{i}", {"small": Need(2 * GB, 50), "large": Need(2 * GB, 25)}, Objective(100.0)) for i in range(models)
    )
    pools = (
        Pool("small", "small", 10 * GB, min_replicas=0, max_replicas=50, cost_per_hour=1.0),
        Pool("large", "large", 40 * GB, min_replicas=0, max_replicas=50, cost_per_hour=3.0),
    )
    return float(lower_bound(scenario(made, rates, pools=pools)).cost_per_hour[0])


def test_with_two_pools_memory_goes_where_it_is_cheap() -> None:
    # 36 idle models, 72 GB: 8 small replicas of 9 GB cost 8, two large ones of 36 GB 6
    assert two_pools(flat(*np.zeros(36)), 36) == pytest.approx(6.0, rel=0.01)


def test_with_two_pools_compute_goes_where_it_is_cheap() -> None:
    # 10 models at 9 a second: 450 ms a second each of a small device: 4.5 / 0.9 = 5 small ones, 20 GB fit in them;
    # large ones would take 2.25 / 0.9 = 2.5 for 7.5
    assert two_pools(flat(*(9.0,) * 10), 10) == pytest.approx(5.0, rel=0.01)


def test_the_bound_lies_below_what_a_packing_needs() -> None:
    random = np.random.default_rng(5)
    for _ in range(20):
        rates = random.uniform(0, 9, 12)
        sizes = random.uniform(0.5, 4, 12)
        models = tuple(model(f"m{i}", float(size)) for i, size in enumerate(sizes))
        bound = lower_bound(scenario(models, flat(*rates))).cost_per_hour[0]
        bins: list[tuple[float, float]] = []
        for rate, size in sorted(zip(rates, sizes, strict=True), key=lambda pair: -pair[1]):
            takes = (size / 9, rate * 0.05 / 0.9)
            fits = [i for i, (m, c) in enumerate(bins) if m + takes[0] <= 1 and c + takes[1] <= 1]
            if fits:
                m, c = bins[fits[0]]
                bins[fits[0]] = (m + takes[0], c + takes[1])
            else:
                bins.append(takes)
        assert bound <= len(bins)
