"""From history to a median and an upper quantile: every forecaster is tried on the recent past, the best one speaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tasks.forecast.forecasters import FORECASTERS, Forecaster, Past
from tasks.forecast.history import Matrix

TRIALS = 240
"""Recent origins at which the forecasters are tried."""
PRIOR_Z = np.array([NormalDist().inv_cdf((i + 0.5) / 20) for i in range(20)], dtype=np.float32)
"""Twenty errors in units of counting noise that are believed before any error was seen."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The forecast of every model, each array one element a model; NaN: no history."""

    median_rps: NDArray[np.float32]
    upper_rps: NDArray[np.float32]
    error_rps: NDArray[np.float32]
    """Mean absolute error of the chosen forecaster at this horizon; NaN: never tried yet."""
    forecaster: tuple[str, ...]


def predict(
    values: Matrix, step_s: float, ahead: int, quantile: float, forecasters: Mapping[str, Forecaster] = FORECASTERS
) -> Prediction:
    """Forecast the bin that is ``ahead`` bins after the last one of ``values`` (models, bins)."""
    last = values.shape[1] - 1
    trials = np.arange(max(0, last - ahead - TRIALS + 1), last - ahead + 1)
    past = Past(values, np.append(trials, last), ahead, step_s)
    said = np.stack([forecaster(past) for forecaster in forecasters.values()])
    error = values[:, trials + ahead] - said[:, :, :-1]
    loss, now = _mean(np.abs(error)), said[:, :, -1]
    # one that was never tried speaks only where no other can
    chosen = np.argmin(np.where(np.isfinite(loss), loss, np.where(np.isfinite(now), 1e30, np.inf)), axis=0)
    chosen = np.where(np.isfinite(np.take_along_axis(now, chosen[None], 0)[0]), chosen, 0)
    models = np.arange(len(values))
    point = now[chosen, models]
    counting_noise = np.sqrt(point / step_s)
    errors = np.concatenate([error[chosen, models], PRIOR_Z * counting_noise[:, None]], axis=1)
    median = np.maximum(point + _quantile(errors, 0.5), 0)
    upper = np.maximum(point + _quantile(errors, quantile), median)
    return Prediction(median, upper, loss[chosen, models], tuple(list(forecasters)[i] for i in chosen))


def _mean(errors: NDArray[np.float32]) -> Matrix:
    """Mean along the last axis of what is not NaN; NaN where nothing is."""
    known = np.isfinite(errors)
    count = known.sum(axis=-1)
    total: Matrix = np.where(known, errors, 0).sum(axis=-1)
    mean: Matrix = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return mean


def _quantile(errors: Matrix, quantile: float) -> NDArray[np.float32]:
    """The conformal quantile of each row's n errors: the ceil((n + 1) * quantile)-th smallest; NaN are left out."""
    ordered = np.sort(errors, axis=1)
    count = np.isfinite(errors).sum(axis=1)
    rank = np.clip(np.ceil((count + 1) * quantile).astype(int), 1, np.maximum(count, 1))
    nth: NDArray[np.float32] = ordered[np.arange(len(ordered)), rank - 1]
    return nth
