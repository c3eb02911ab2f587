"""How well every forecaster would have done on recorded history: the backtest's pure part."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tasks.forecast.calibrate import pinball
from tasks.forecast.forecasters import FORECASTERS, Forecaster
from tasks.forecast.history import History, rolling_peak
from tasks.forecast.predict import predict

ORIGINS = 48
"""Forecasts of each model that are scored: enough to tell forecasters apart, few enough for a scheduled run."""
COMBINED = "combined"
"""The name under which what the tick uses stands among the forecasters."""


def backtest(
    history: History,
    models: tuple[str, ...],
    *,
    ahead: int,
    width: int = 1,
    quantile: float = 0.9,
    forecasters: Mapping[str, Forecaster] = FORECASTERS,
) -> pd.DataFrame:
    """Score every forecaster alone, and all of them combined as the tick does, by rolling origin.

    The origins are spread over the second half of the history; each forecast is made from what came before its
    origin alone. ``ahead`` and ``width`` are bins, as in ``predict``.

    Returns:
        One row a model and forecaster: ``model``, ``forecaster``, ``loss_median`` and ``loss_upper`` (mean pinball
        loss, rps), ``covered`` (share of what came that was not above the upper quantile), ``demand_rps`` (mean of
        what came) and ``scored`` (forecasts that were scored). A pair that was never scored has no row.

    Raises:
        ValueError: the history is too short for one forecast.
    """
    bins = history.values_rps.shape[1]
    first, last = max(1, bins // 2), bins - ahead - 1
    if first > last:
        raise ValueError(f"a history of {bins} bins is too short to score {ahead} bins ahead: record for longer")
    # multiples of the golden ratio fall evenly, yet in step with no day or hour
    chosen = np.unique(first + np.floor(np.arange(ORIGINS) * 0.618034 % 1 * (last - first + 1)).astype(int))
    truth = rolling_peak(history.values_rps, width)[:, chosen + ahead]
    candidates = {COMBINED: forecasters} | {name: {name: forecaster} for name, forecaster in forecasters.items()}
    scores = []
    for name, candidate in candidates.items():
        said = [
            predict(
                history.values_rps[:, : origin + 1],
                history.step_s,
                ahead,
                width=width,
                quantile=quantile,
                forecasters=candidate,
            )
            for origin in chosen
        ]
        median, upper = (np.stack([getattr(s, f) for s in said], axis=1) for f in ("median_rps", "upper_rps"))
        is_scored = np.isfinite(truth) & np.isfinite(median)
        of_scored = {
            "loss_median": pinball(truth, median, 0.5),
            "loss_upper": pinball(truth, upper, quantile),
            "covered": (truth <= upper).astype(float),
            "demand_rps": truth,
        }
        scored = is_scored.sum(axis=1)
        means = {
            column: np.where(is_scored, value, 0).sum(axis=1) / np.maximum(scored, 1)
            for column, value in of_scored.items()
        }
        scores.append(pd.DataFrame({"model": models, "forecaster": name, **means, "scored": scored}))
    return pd.concat(scores, ignore_index=True).query("scored > 0").reset_index(drop=True)


def best_by_model(scores: pd.DataFrame) -> pd.DataFrame:
    """The row of each model's forecaster with the smallest loss at the upper quantile; ties go to the combined one."""
    order = scores.assign(is_plain=scores["forecaster"] != COMBINED).sort_values(["model", "loss_upper", "is_plain"])
    return order.groupby("model", sort=True).head(1).drop(columns="is_plain").reset_index(drop=True)
