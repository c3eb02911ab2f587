"""What a forecast says of simple histories. Bins of 10 s, an interval of 30 s, a horizon of 5 + 10 + 30 = 45 s."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.forecast import forecast
from tasks.world import Limits, Model, Need, Objective, Pool
from tests.forecast.conftest import NAN, Observe

LIMITS = Limits(interval_s=30.0, stale_s=60.0, quantile=0.9)
HOUR = 360
"""Bins of 10 s."""


@pytest.mark.parametrize(
    ("name", "demand", "median_rps"),
    [
        ("constant", [5.0] * HOUR, 5.0),
        ("observed zeros are zeros", [0.0] * HOUR, 0.0),
        ("a gap in the past is not zero", [5.0] * 100 + [NAN] * 160 + [5.0] * 100, 5.0),
        ("a gap at the end, not yet stale, is not zero", [5.0] * HOUR + [NAN] * 5, 5.0),
        ("three bins of life", [4.0, 4.0, 4.0], 4.0),
        ("one sample", [7.0], 7.0),
        ("demand that ended an hour ago", [9.0] * HOUR + [0.0] * HOUR, 0.0),
    ],
)
def test_median(observe: Observe, name: str, demand: list[float], median_rps: float) -> None:
    (said,) = forecast(observe({"m": demand}), LIMITS)
    assert said.is_known
    assert said.median_rps == pytest.approx(median_rps, rel=0.02, abs=1e-6)
    assert said.upper_rps is not None
    assert said.upper_rps >= median_rps


@pytest.mark.parametrize(
    ("name", "demand", "age_s", "is_known"),
    [
        ("newest sample 50 s old, 60 allowed", [5.0] * HOUR, 50.0, True),
        ("newest sample 70 s old", [5.0] * HOUR, 70.0, False),
        ("newest observed sample 70 s old, NaN since", [5.0] * HOUR + [NAN] * 7, 0.0, False),
        ("only NaN", [NAN] * HOUR, 0.0, False),
        ("no row at all", [], 0.0, False),
    ],
)
def test_stale_is_unknown(observe: Observe, name: str, demand: list[float], age_s: float, is_known: bool) -> None:
    stale, fresh = forecast(observe({"m": demand, "n": [3.0] * HOUR}, age_s=age_s), LIMITS)
    assert stale.is_known is is_known
    if not is_known:
        assert (stale.median_rps, stale.upper_rps, stale.forecaster) == (None, None, "unknown")
    assert fresh.is_known is (age_s <= 60)


def test_one_forecast_for_each_model_in_the_fleets_order(observe: Observe) -> None:
    observation = observe({"b": [1.0] * HOUR, "c": [], "a": [2.0] * HOUR})
    assert [said.model for said in forecast(observation, LIMITS)] == ["b", "c", "a"]


def test_horizon_is_the_slowest_load_and_pool_and_one_interval(observe: Observe) -> None:
    observation = observe({"m": [1.0] * HOUR})
    slow = Model("m", {"a": Need(1, 10.0, load_s=5.0), "b": Need(1, 10.0, load_s=20.0)}, Objective(20.0))
    pools = (Pool("p", "a", 1, start_s=40.0), Pool("q", "b", 1, start_s=60.0), Pool("r", "c", 1, start_s=900.0))
    fleet = replace(observation.fleet, models=(slow,), pools=pools)
    (said,) = forecast(replace(observation, fleet=fleet), LIMITS)
    # 20 s load on b, 60 s start of q; r has a GPU type that the model has no need for
    assert said.horizon_s == 20 + 60 + 30


def test_counting_noise_bounds_a_short_history(observe: Observe) -> None:
    (said,) = forecast(observe({"m": [4.0] * 3}), LIMITS)
    # 4 rps over 10 s are 40 requests, +- sqrt(40): 0.63 rps; the 0.9 quantile of a normal is 1.28 of them
    assert said.upper_rps == pytest.approx(4.0 + 1.28 * np.sqrt(40) / 10, rel=0.1)


def test_steady_poisson_load_gives_a_steady_upper_quantile(observe: Observe) -> None:
    rng = np.random.default_rng(1)
    counts = rng.poisson(20 * 10, HOUR + 60) / 10  # 20 rps in bins of 10 s: +- 1.4 rps
    uppers = [forecast(observe({"m": counts[i : i + HOUR]}), LIMITS)[0].upper_rps for i in range(0, 60, 3)]
    assert np.ptp(np.array(uppers, dtype=float)) < 1.4


def test_empty_fleet(observe: Observe) -> None:
    assert forecast(observe({}), LIMITS) == ()
