"""What the combination, the calibration and the cold start promise, on made-up demand whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.forecast.backtest import COMBINED, backtest, best_by_model, overall
from tasks.forecast.calibrate import conformal_quantile, fleet_level, ranks
from tasks.forecast.forecasters import DAY_S, FORECASTERS, Forecaster, Past, at_most_usual, on_the_dot
from tasks.forecast.history import History, Matrix, coarsen, rolling_peak
from tasks.forecast.predict import predict

DAY = 144
"""Bins of 10 minutes."""
STEP_S = 600.0


def matrix(*rows: object) -> Matrix:
    return np.array(rows, dtype=np.float32)


def test_rolling_peak_looks_back_and_skips_what_was_not_observed() -> None:
    nan = np.nan
    assert rolling_peak(matrix([1, 5, 2, nan, nan, nan, 3]), 3) == pytest.approx(
        matrix([1, 5, 5, 5, 2, nan, 3]), nan_ok=True
    )


def test_coarse_bins_end_now() -> None:
    # the first bin is left over; (2 + 4) / 2 and (6 + nothing observed) / 1
    assert coarsen(matrix([9, 2, 4, 6, np.nan]), 2) == pytest.approx(matrix([3, 6]))


def test_a_level_is_the_mean_of_what_was_observed_fading_with_age() -> None:
    rng = np.random.default_rng(1)
    demand = rng.poisson(50, (3, 900)).astype(np.float32)
    demand[1, rng.random(900) < 0.3] = np.nan
    demand[2, 300:] = np.nan
    origins = np.array([0, 1, 299, 330, 420, 899])
    level = Past(demand, demand, origins, ahead=10, step_s=STEP_S).level(1)
    # a time constant of 10 bins, of which bins older than 80 are left out: e^-8 of the weight
    expected = pd.DataFrame(demand.T).ewm(alpha=1 - np.exp(-1 / 10)).mean().to_numpy().T[:, origins]
    expected[2, 4:] = np.nan  # last observed in bin 299
    assert level == pytest.approx(expected, rel=1e-3, nan_ok=True)


@pytest.mark.parametrize(
    ("errors", "quantile", "expected"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], 0.5, 5.0),  # ceil(10 x 0.5) = the 5th
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], 0.9, 9.0),  # ceil(10 x 0.9) = the 9th
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], 0.95, 9.0),  # ceil(10 x 0.95) = the 10th: there are but 9
        ([1, 2, 3, np.nan, np.nan], 0.5, 2.0),  # ceil(4 x 0.5) = the 2nd of three known
        ([np.nan, np.nan], 0.5, np.nan),
        ([], 0.5, np.nan),
    ],
)
def test_conformal_quantile(errors: list[float], quantile: float, expected: float) -> None:
    (said,) = conformal_quantile(matrix(errors), quantile)
    assert said == pytest.approx(expected, nan_ok=True)


def test_ranks_are_shares_of_what_is_known() -> None:
    nan = np.nan
    # of three the smallest is 1 / 4; of two 1 / 3
    assert ranks(matrix([5, -1, 2], [nan, 7, 3])) == pytest.approx(
        matrix([0.75, 0.25, 0.5], [nan, 2 / 3, 1 / 3]), nan_ok=True
    )


@pytest.mark.parametrize(
    ("name", "share_of_zeros", "level"),
    [
        # the level that covers 1 - 0.95 x 0.1 = 0.905 of the outcomes with demand, which have the highest ranks
        ("always asked", 0.0, 0.905),
        ("asked half of the time", 0.5, 0.95),  # 0.5 + 0.905 x 0.5 = 0.9525: half of the tail at most
        ("asked in four of five", 0.2, 0.924),  # 0.2 + 0.905 x 0.8
        ("never asked", 1.0, 0.9),
    ],
)
def test_the_level_that_covers_the_demand_there_is(name: str, share_of_zeros: float, level: float) -> None:
    of_all = matrix(*np.arange(1, 10_001) / 10_001)
    assert fleet_level(of_all[int(share_of_zeros * 10_000) :], 0.9) == pytest.approx(level, abs=0.001)


def test_demand_is_covered_where_a_fleet_is_often_not_asked() -> None:
    rng = np.random.default_rng(11)
    asked = rng.random((60, 8 * DAY)) < 0.7
    values = (asked * rng.lognormal(0, 0.5, asked.shape)).astype(np.float32)
    covered, came = [], []
    for origin in range(7 * DAY, 8 * DAY - 3, 6):
        came.append(values[:, origin + 3])
        covered.append(came[-1] <= predict(values[:, : origin + 1], STEP_S, 3).upper_rps)
    # the plain 0.9 quantile would cover 1 - 0.1 / 0.7 = 0.86 of it
    assert np.array(covered)[np.array(came) > 0].mean() == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("noise", ["poisson", "lognormal"])
def test_upper_quantile_covers_what_it_says(noise: str) -> None:
    rng = np.random.default_rng(3)
    rate = 2 + np.sin(np.arange(8 * DAY) * 2 * np.pi / DAY)
    factor = (
        rng.poisson(rate * 20, (40, 8 * DAY)) / 20
        if noise == "poisson"
        else rate * rng.lognormal(0, 0.3, (40, 8 * DAY))
    )
    values = factor.astype(np.float32)
    covered = [
        values[:, origin + 3] <= predict(values[:, : origin + 1], STEP_S, 3, quantile=0.9).upper_rps
        for origin in range(7 * DAY, 8 * DAY - 3, 6)
    ]
    # 40 models x 24 origins: +- 0.01
    assert np.mean(covered) == pytest.approx(0.9, abs=0.03)


def test_a_daily_rise_is_seen_before_it_comes() -> None:
    # 10 rps, and 50 from noon: at 11:30 the last value knows nothing of it
    day = np.where(np.arange(DAY) < DAY // 2, 10.0, 50.0)
    until = 5 * DAY + DAY // 2 - 3
    said = predict(matrix(np.tile(day, 6)[:until]), STEP_S, 6)
    assert said.median_rps[0] == pytest.approx(50, rel=0.1)


@pytest.mark.parametrize(
    ("name", "forecaster", "expected_rps"),
    [
        # 4 bins of an hour ahead: bin 100 + 4, and 24 a day: 80 and 56
        ("two days", on_the_dot(DAY_S, 2), (80 + 56) / 2),
        # what is over by now: 100 and 96
        ("two periods of 4 hours", on_the_dot(4 * 3_600.0, 2), (100 + 96) / 2),
        # 97 to 102 hold what comes after now: 3 hours before 104 is 101, so 98 and 95
        ("two periods of 3 hours", on_the_dot(3 * 3_600.0, 2), (98 + 95) / 2),
        ("days that history does not reach back to", on_the_dot(DAY_S, 7), (80 + 56 + 32 + 8) / 4),
    ],
)
def test_on_the_dot(name: str, forecaster: Forecaster, expected_rps: float) -> None:
    demand = matrix(np.arange(101))
    past = Past(demand, demand, np.array([100]), ahead=4, step_s=3_600.0)
    assert forecaster(past) == pytest.approx(matrix([expected_rps]))


def test_a_crowd_is_expected_to_go_as_it_came() -> None:
    demand = matrix(np.r_[np.full(3 * DAY, 5.0), np.full(6, 50.0)])
    past = Past(demand, demand, np.array([3 * DAY - 1, 3 * DAY + 5]), ahead=2, step_s=STEP_S)
    assert at_most_usual(1, 1, 2)(past) == pytest.approx(matrix([5, 5]))
    assert at_most_usual(1, 7)(past) == pytest.approx(matrix([np.nan, np.nan]), nan_ok=True)


def test_a_sevenfold_rise_is_followed_within_two_horizons() -> None:
    rng = np.random.default_rng(5)
    demand = np.r_[rng.poisson(50, 360), rng.poisson(350, 18)] / 10  # 5 rps, then 35, bins of 10 s
    said = predict(matrix(demand), 10.0, 9)
    assert said.upper_rps[0] >= 35


def test_a_new_model_borrows_the_fleets_errors() -> None:
    rng = np.random.default_rng(7)
    fleet = 10 * rng.lognormal(0, 0.8, (30, 400))
    fleet[0, :-2] = np.nan
    fleet[0, -2:] = 10
    alone = predict(matrix(fleet[0]), STEP_S, 1)
    among = predict(fleet.astype(np.float32), STEP_S, 1)
    # alone it knows of counting noise: 10 rps over 600 s are +- 0.13; the fleet's demand doubles and more
    assert alone.upper_rps[0] == pytest.approx(10 + 1.28 * np.sqrt(10 / 600), rel=0.01)
    assert among.upper_rps[0] > 15


def test_zeros_stay_zeros_beside_a_busy_fleet() -> None:
    rng = np.random.default_rng(9)
    fleet = rng.poisson(100, (5, 400)) / 10
    fleet[0] = 0
    fleet[1, :-3] = np.nan
    fleet[1, -3:] = 0
    said = predict(fleet.astype(np.float32), 10.0, 4)
    assert said.upper_rps[:2].tolist() == [0, 0]


def test_a_forecaster_is_added_by_one_line() -> None:
    def oracle(past: Past) -> Matrix:
        return np.sin(past.origins + past.ahead)[None].astype(np.float32) + 2

    # unpredictable to the others: period 2 pi bins, sampled at whole bins
    demand = matrix(np.sin(np.arange(400)) + 2)
    said = predict(demand, STEP_S, 5, forecasters={**FORECASTERS, "oracle": oracle})
    assert said.forecaster == ("oracle",)
    assert said.median_rps[0] == pytest.approx(np.sin(399 + 5) + 2, abs=0.02)


@settings(max_examples=40, deadline=None)
@given(
    demand=st.lists(st.one_of(st.just(float("nan")), st.floats(0, 1e5, width=32)), min_size=1, max_size=80),
    ahead=st.integers(1, 30),
    width=st.integers(1, 10),
)
def test_whatever_the_history_the_forecast_is_sane(demand: list[float], ahead: int, width: int) -> None:
    said = predict(matrix(demand), 10.0, ahead, width=width)
    if np.isfinite(demand).any() and np.isfinite(said.median_rps[0]):
        assert 0 <= said.median_rps[0] <= said.upper_rps[0] < 1e7
    if not np.isfinite(demand).any():
        assert np.isnan(said.upper_rps[0])
    if np.isfinite(demand[-1]):
        assert np.isfinite(said.upper_rps[0])


def test_the_backtest_scores_every_forecaster_and_names_the_best() -> None:
    day = np.where(np.arange(DAY) < DAY // 2, 10.0, 50.0)
    history = History(matrix(np.tile(day, 6), np.full(6 * DAY, np.nan)), STEP_S, np.zeros(2))
    scores = overall(backtest(history, ("daily", "silent"), ahead=6))
    assert set(scores["model"]) == {"daily"}
    assert set(scores["forecaster"]) == {COMBINED, *FORECASTERS}
    loss = scores.set_index("forecaster")["loss_median"]
    # six bins ahead of a step of 40, the last value is wrong for 12 bins of 144: 0.5 x 40 x 12 / 144 = 1.7
    assert loss["same time, a week"] < 0.5 < loss["last value"]
    assert best_by_model(scores)["model"].tolist() == ["daily"]


def test_the_backtest_refuses_too_short_a_history() -> None:
    with pytest.raises(ValueError, match="record for longer"):
        backtest(History(matrix([1, 2, 3]), STEP_S, np.zeros(1)), ("m",), ahead=6)
