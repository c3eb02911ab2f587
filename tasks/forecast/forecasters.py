"""The plain forecasters. Each says, for every model and every origin at once, what it would have said there.

A forecaster is a function of ``Past``; a new one is a function here and a line of ``FORECASTERS``. They need not be
unbiased nor say how sure they are: their errors on the recent past correct them (``calibrate``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.forecast.history import Matrix, mean_of

DAY_S = 86_400.0
DAYS = 3
"""Days whose levels are compared with what came after."""
FORGOTTEN = math.exp(-8)
"""Below this weight, a bin's that was just observed being 1, a level is not known any more."""
GROWTH = 64.0
"""Values grow by e^64 at most in a running sum: from e^-32 to e^32, far within float32."""


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
        if horizons not in self.levels:
            self.levels[horizons] = self._levels(1 / (horizons * self.ahead))
        level: Matrix = self.levels[horizons][:, days]
        return level

    def _levels(self, rate: float) -> Matrix:
        """(models, days before, origins)."""
        ends = self.origins - self.day * np.arange(DAYS + 1)[:, None]
        is_observed = np.isfinite(self.demand)
        if is_observed.all():
            observed, weights = self.demand, np.ones((1, self.demand.shape[1]), dtype=np.float32)
        else:
            observed, weights = np.where(is_observed, self.demand, 0), is_observed.astype(np.float32)
        weight = _fading_sum(weights, rate, np.maximum(ends, 0))
        level = _fading_sum(observed, rate, np.maximum(ends, 0))
        level /= np.where((weight > FORGOTTEN) & (ends >= 0), weight, np.nan)
        return level

    def then(self, days: int) -> Matrix:
        """(models, origins): peaks around the time that is forecast, ``days`` before, a quarter horizon each side."""
        if days not in self.thens:
            self.thens[days] = self._then(days)
        return self.thens[days]

    def _then(self, days: int) -> Matrix:
        side = self.ahead // 4
        middle = self.origins + self.ahead - days * self.day
        if middle[-1] + side < 0:
            return np.full((len(self.peaks), len(middle)), np.nan, dtype=np.float32)
        return mean_of([_columns(self.peaks, middle + shift) for shift in range(-side, side + 1)])


def _columns(values: Matrix, columns: NDArray[np.intp]) -> Matrix:
    """Columns of a matrix; NaN where history does not reach."""
    taken: Matrix = np.take(values, np.maximum(columns, 0), axis=1)
    taken[:, columns < 0] = np.nan
    return taken


def _fading_sum(values: Matrix, rate: float, ends: NDArray[np.intp]) -> Matrix:
    """(models, bins) -> (models, *ends): the sum of all bins up to each end, a bin's weight falling by e^-rate a bin.

    A plain running sum of growing values, shrunk at its ends; begun anew before the growth overflows. No matrix
    product: its library's threads and ours would wait for each other.
    """
    bins = values.shape[1]
    span = max(1, int(GROWTH / rate))
    growth = np.exp(rate * (np.arange(bins) % span - span / 2)).astype(np.float32)
    sums = values * growth
    for start in range(0, bins, span):
        part = sums[:, start : start + span]
        if start:
            part[:, 0] += sums[:, start - 1] * np.float32(np.exp(-rate) * growth[start] / growth[start - 1])
        np.cumsum(part, axis=1, out=part)
    at_ends = np.take(sums, ends, axis=1)
    at_ends /= growth[ends]
    return at_ends


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
    "same time yesterday": same_time(1),
    "same time, 3 days": same_time(1, 2, 3),
    "same time, a week": same_time(1, 2, 3, 4, 5, 6, 7),
    "seasonal difference": seasonal_difference(1, 1, 2, 3),
    "difference to yesterday": seasonal_difference(1, 1),
    "daily profile": seasonal_ratio(1, 1, 2, 3),
    "daily profile, fast": seasonal_ratio(0.25, 1, 2, 3),
    "daily profile, slow": seasonal_ratio(4, 1, 2, 3),
}
"""In the order in which ties are settled."""
