"""The plain forecasters. Each says, for every model and every origin at once, what it would have said there.

A forecaster is a function of ``Past``; a new one is a function here and a line of ``FORECASTERS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.forecast.history import Matrix

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What was known at each origin."""

    values: Matrix
    """(models, bins); NaN: not observed."""
    origins: NDArray[np.intp]
    """Bins after which a forecast is made, ascending; the last one is now. Later bins are not known to it."""
    ahead: int
    """Bins from the origin to the one that is forecast."""
    step_s: float

    def seen(self, lag: int) -> Matrix:
        """(models, origins): the value ``lag`` bins before what is forecast; NaN where history does not reach."""
        bins = self.origins + self.ahead - lag
        seen = self.values[:, np.maximum(bins, 0)]
        seen[:, bins < 0] = np.nan
        return seen

    def smoothed(self, time_constant_s: float) -> Matrix:
        """(models, origins): mean of the observed values up to each origin, weighted by exp(-age / time constant)."""
        rate = self.step_s / time_constant_s
        # e^-16 of a weight is below what float32 can tell
        start = max(0, int(self.origins[0] - 16 / rate))
        known = self.values[:, start : self.origins[-1] + 1]
        age = self.origins[None, :] - np.arange(start, self.origins[-1] + 1)[:, None]
        weights = np.where(age >= 0, np.exp(-rate * np.maximum(age, 0)), 0).astype(np.float32)
        is_observed = np.isfinite(known)
        total: Matrix = np.where(is_observed, known, 0) @ weights
        weight: Matrix = is_observed.astype(np.float32) @ weights
        return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)


Forecaster = Callable[[Past], Matrix]


def last_value(past: Past) -> Matrix:
    """What was observed last."""
    columns = np.where(np.isfinite(past.values), np.arange(past.values.shape[1]), -1)
    newest = np.maximum.accumulate(columns, axis=1)[:, past.origins]
    value = np.take_along_axis(past.values, np.maximum(newest, 0), axis=1)
    value[newest < 0] = np.nan
    return value


def smoothing(time_constant_s: float) -> Forecaster:
    """Exponential smoothing."""
    return lambda past: past.smoothed(time_constant_s)


def same_time_yesterday(past: Past) -> Matrix:
    """What was observed a day before the time that is forecast."""
    return past.seen(round(DAY_S / past.step_s))


FORECASTERS: Mapping[str, Forecaster] = {
    "last value": last_value,
    "smoothing over 1 min": smoothing(60),
    "smoothing over 5 min": smoothing(300),
    "smoothing over 30 min": smoothing(1800),
    "same time yesterday": same_time_yesterday,
}
"""In the order in which ties are settled."""
