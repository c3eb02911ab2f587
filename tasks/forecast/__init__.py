"""Demand of every model at its horizon: what it will need by the time a change can take effect."""

from __future__ import annotations

import math

import numpy as np

from tasks.decision import Forecast
from tasks.forecast.history import read_history
from tasks.forecast.horizon import horizon_s
from tasks.forecast.predict import predict
from tasks.world import Limits, Observation

__all__ = ["forecast", "horizon_s"]


def forecast(observation: Observation, limits: Limits) -> tuple[Forecast, ...]:
    """The peak demand of each model over the interval in which this tick's decision holds.

    A decision takes effect after a load and a scale-up and holds for one interval: the interval that ends at the
    horizon. One forecast for each model of the fleet, in its order; unknown where nothing newer than
    ``limits.stale_s`` was observed.
    """
    models = observation.fleet.models
    history = read_history(observation.demand, tuple(m.name for m in models), observation.now, limits.interval_s)
    horizons_s = np.array([horizon_s(model, observation.fleet.pools, limits) for model in models])
    is_known = history.newest >= observation.now - limits.stale_s
    width = max(1, round(limits.interval_s / history.step_s))
    said: dict[int, Forecast] = {}
    for horizon in np.unique(horizons_s[is_known]):
        rows = np.flatnonzero(is_known & (horizons_s == horizon)).tolist()
        ahead = max(1, math.ceil(horizon / history.step_s))
        prediction = predict(history.values_rps[rows], history.step_s, ahead, width=width, quantile=limits.quantile)
        said_rps = (prediction.median_rps.tolist(), prediction.upper_rps.tolist(), prediction.error_rps.tolist())
        for row, median, upper, error, name in zip(rows, *said_rps, prediction.forecaster, strict=True):
            if math.isfinite(upper):  # else no forecaster reaches back to the newest sample
                error_rps = None if math.isnan(error) else error
                said[row] = Forecast(models[row].name, median, upper, float(horizon), name, error_rps)
    return tuple(
        said.get(row) or Forecast(model.name, None, None, float(horizons_s[row]), "unknown")
        for row, model in enumerate(models)
    )
