"""Service times learned from one window after the other."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.size.learn import learn, refined
from tasks.world import Learned
from tests.size.fleets import seen


@pytest.mark.parametrize(
    ("name", "before", "service_ms", "after"),
    [
        ("the first window is believed", None, 50.0, Learned(50.0, 0.0, 1)),
        # 50 + (60 - 50) / 2; the variance 1/2 * (0 + 1/2 * 100) = 25
        ("the second counts as much", Learned(50.0, 0.0, 1), 60.0, Learned(55.0, 5.0, 2)),
        # 50 + (100 - 50) / 4; the variance 3/4 * (0 + 1/4 * 2500) = 468.75
        ("a later one a quarter", Learned(50.0, 0.0, 40), 100.0, Learned(62.5, 468.75**0.5, 41)),
        ("as it was: the spread shrinks", Learned(50.0, 4.0, 40), 50.0, Learned(50.0, 0.75**0.5 * 4, 41)),
    ],
)
def test_refined(name: str, before: Learned | None, service_ms: float, after: Learned) -> None:
    found = refined(before, service_ms)
    assert (found.service_ms, found.spread_ms) == pytest.approx((after.service_ms, after.spread_ms))
    assert found.windows == after.windows


def test_mean_and_spread_are_those_of_what_was_seen() -> None:
    """Windows of 50 +- 5 ms: the mean wanders by 5 * sqrt(0.25 / 1.75) = 1.9, the spread is sqrt(25 - 1.9^2) = 4.6."""
    known, spreads, means = None, [], []
    for service_ms in np.random.default_rng(1).normal(50, 5, 4000):
        known = refined(known, float(service_ms))
        spreads.append(known.spread_ms)
        means.append(known.service_ms)
    assert np.mean(np.square(spreads[50:])) ** 0.5 == pytest.approx(4.6, abs=0.4)
    assert np.std(means[50:]) == pytest.approx(1.9, abs=0.3)


def test_each_model_and_gpu_type_is_learned_apart() -> None:
    observation = seen(1, learned=[("small", 50.0, 0.0, 1), ("large", 20.0, 1.0, 7)])
    learned = learn(observation, {("m", "small"): 60.0, ("new", "small"): 9.0})
    assert learned == {
        ("m", "small"): Learned(55.0, 5.0, 2),
        ("m", "large"): Learned(20.0, 1.0, 7),
        ("new", "small"): Learned(9.0, 0.0, 1),
    }
