"""The plain forecasters. Each says, for every model and every origin at once, what it would have said there.

A forecaster is a function of ``Past``; a new one is a function here and a line of ``FORECASTERS``. They need not be
unbiased nor say how sure they are: their errors on the recent past correct them (``calibrate``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.forecast.history import Matrix, mean_of

DAY_S = 86_400.0
DAYS = 3
"""Days whose levels are compared with what came after."""
SPAN = 256
"""Bins whose levels are worked out by one product: the fewest steps in all."""
SMALL = 250_000
"""Multiplications that OpenBLAS does without threads: up to 2^18."""


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What was known at each origin."""

    demand: Matrix
    """(models, bins), mean of each bin; NaN: not observed."""
    peaks: Matrix
    """(models, bins), what is forecast: the highest demand of the interval that ends with each bin."""
    origins: NDArray[np.intp]
    """Bins after which a forecast is made, ascending; the last one is now. Later bins are not known to it."""
    ahead: int
    """Bins from the origin to the one that is forecast."""
    step_s: float
    levels: dict[float, Matrix] = field(default_factory=dict)
    """Levels that were worked out already: several forecasters start from the same."""
    thens: dict[int, Matrix] = field(default_factory=dict)
    """And peaks of earlier days."""

    @property
    def day(self) -> int:
        """Bins in a day."""
        return round(DAY_S / self.step_s)

    def level(self, horizons: float, days: int = 0) -> Matrix:
        """(models, origins): demand smoothed with a time constant of this many horizons, up to ``DAYS`` before."""
        if days * self.day > self.origins[-1]:
            return _nothing_seen(self.demand, self.origins)
        if horizons not in self.levels:
            self.levels[horizons] = self._levels(1 / (horizons * self.ahead))
        level: Matrix = self.levels[horizons][:, days]
        return level

    def _levels(self, rate: float) -> Matrix:
        """(models, days before that history reaches, origins)."""
        reach = int(8 / rate) + 1  # e^-8 of the weight is left out
        fading = np.append(np.exp(-rate * np.arange(reach)), 0).astype(np.float32)
        ends = self.origins - self.day * np.arange(min(DAYS, self.origins[-1] // self.day) + 1)[:, None]
        place = np.zeros(ends.shape, dtype=np.intp)
        parts = [np.full((len(self.demand), 1), np.nan, dtype=np.float32)]  # where history does not reach
        count = 1
        # ends near each other, of whatever day, share one product over the bins that they reach
        for start in np.unique(ends[ends >= 0] // SPAN) * SPAN:
            is_here = (ends >= start) & (ends < start + SPAN)
            inside = ends[is_here]
            columns = np.arange(max(0, inside.min() - reach), inside.max() + 1)
            age = inside[None, :] - columns[:, None]
            weights = fading[np.minimum(np.where(age < 0, reach, age), reach)]
            parts.append(_weighted_mean(self.demand[:, columns[0] : columns[-1] + 1], weights))
            place[is_here] = np.arange(count, count + len(inside))
            count += len(inside)
        return np.take(np.concatenate(parts, axis=1), place, axis=1)

    def then(self, days: int) -> Matrix:
        """(models, origins): peaks around the time that is forecast, ``days`` before, a quarter horizon each side."""
        if days not in self.thens:
            self.thens[days] = self._then(days)
        return self.thens[days]

    def _then(self, days: int) -> Matrix:
        side = self.ahead // 4
        middle = self.origins + self.ahead - days * self.day
        if middle[-1] + side < 0:
            return _nothing_seen(self.peaks, middle)
        return mean_of([_columns(self.peaks, middle + shift) for shift in range(-side, side + 1)])


def _columns(values: Matrix, columns: NDArray[np.intp]) -> Matrix:
    """Columns of a matrix, ascending; NaN where history does not reach."""
    if columns[-1] < 0:
        return _nothing_seen(values, columns)
    taken: Matrix = np.take(values, np.maximum(columns, 0), axis=1)
    taken[:, columns < 0] = np.nan
    return taken


def _nothing_seen(values: Matrix, columns: NDArray[np.intp]) -> Matrix:
    return np.full((len(values), len(columns)), np.nan, dtype=np.float32)


def _weighted_mean(values: Matrix, weights: Matrix) -> Matrix:
    """(models, bins) x (bins, origins) -> (models, origins), over the bins that were observed."""
    mean = _product(values, weights / weights.sum(axis=0))
    if not np.isnan(mean).any():
        return mean
    is_observed = np.isfinite(values)
    weight = _product(is_observed.astype(np.float32), weights)
    total = _product(np.where(is_observed, values, 0), weights)
    return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)


def _product(values: Matrix, weights: Matrix) -> Matrix:
    """The matrix product, in pieces so small that its library starts no threads, which would wait for ours."""
    rows = max(1, SMALL // weights.size)
    product = np.empty((len(values), weights.shape[1]), dtype=np.float32)
    for start in range(0, len(values), rows):
        np.matmul(values[start : start + rows], weights, out=product[start : start + rows])
    return product


Forecaster = Callable[[Past], Matrix]


def nothing(past: Past) -> Matrix:
    """Zero where anything was observed: corrected by its errors, the quantile of recent demand, whatever its order."""
    return past.level(4) * 0


def last_value(past: Past) -> Matrix:
    """What was observed last, at most a horizon ago."""
    value = _columns(past.demand, past.origins)
    for age in range(1, past.ahead + 1):
        is_missing = np.isnan(value)
        if not is_missing.any():
            break
        value = np.where(is_missing, _columns(past.demand, past.origins - age), value)
    return value


def smoothing(horizons: float) -> Forecaster:
    """Exponential smoothing with a time constant of this many horizons."""
    return lambda past: past.level(horizons)


def same_time(*days: int) -> Forecaster:
    """Mean demand around this time on earlier days."""
    return lambda past: mean_of([past.then(day) for day in days])


def on_the_dot(period_s: float, times: int) -> Forecaster:
    """Mean demand of the very bin, at its last ``times`` in this period: what a clock starts comes on the dot."""

    def said(past: Past) -> Matrix:
        period = max(1, round(period_s / past.step_s))
        newest = -(-past.ahead // period)  # the first that is over at the origin
        bins = past.origins + past.ahead
        return mean_of([_columns(past.peaks, bins - period * ago) for ago in range(newest, newest + times)])

    return said


def at_most_usual(horizons: float, *days: int) -> Forecaster:
    """The level, but no more than was usual around this time on earlier days: a crowd goes as it came."""
    usual = same_time(*days)
    return lambda past: np.minimum(past.level(horizons), usual(past))


def seasonal_difference(horizons: float, *days: int) -> Forecaster:
    """The level, and by how much demand rose from there to the time that is forecast, on earlier days."""

    def said(past: Past) -> Matrix:
        now = past.level(horizons)
        rise = mean_of([past.then(day) - past.level(horizons, day) for day in days])
        expected: Matrix = np.maximum(now + rise, 0)
        return expected

    return said


def seasonal_ratio(horizons: float, *days: int) -> Forecaster:
    """As the seasonal difference, by what factor; at most fivefold, so that a quiet yesterday explains no burst."""

    def said(past: Past) -> Matrix:
        now = past.level(horizons)
        before = mean_of([past.level(horizons, day) for day in days])
        then = mean_of([past.then(day) for day in days])
        ratio: Matrix = np.divide(then, before, out=np.full_like(then, np.nan), where=before > 0)
        return now * np.clip(ratio, 0.2, 5)

    return said


FORECASTERS: Mapping[str, Forecaster] = {
    "last value": last_value,
    "recent quantile": nothing,
    "fast level": smoothing(0.25),
    "level": smoothing(1),
    "slow level": smoothing(4),
    "same time, a week": same_time(1, 2, 3, 4, 5, 6, 7),
    "on the dot, a week": on_the_dot(DAY_S, 7),
    "on the dot, 6 hours": on_the_dot(3_600.0, 6),
    "fast level, at most usual": at_most_usual(0.25, 1, 2, 3, 4, 5, 6, 7),
    "seasonal difference": seasonal_difference(1, 1, 2, 3),
    "difference to yesterday": seasonal_difference(1, 1),
    "daily profile, fast": seasonal_ratio(0.25, 1, 2, 3),
    "daily profile, slow": seasonal_ratio(4, 1, 2, 3),
}
"""In the order in which ties are settled."""
