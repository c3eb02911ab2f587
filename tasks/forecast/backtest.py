"""How well every forecaster would have done on recorded history: the backtest's pure part."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from tasks.forecast.calibrate import pinball
from tasks.forecast.forecasters import FORECASTERS
from tasks.forecast.history import History, read_history, rolling_peak
from tasks.forecast.horizon import horizon_s
from tasks.forecast.predict import predict
from tasks.world import Limits, Model, Pool

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
    reach: int = 0,
) -> pd.DataFrame:
    """Score every forecaster alone, and all of them combined as the tick does, by rolling origin.

    The origins are spread over the second half of the history; each forecast is made from what came before its
    origin alone, at most ``reach`` bins of it (0: all). ``ahead`` and ``width`` are bins, as in ``predict``.

    Returns:
        One row a model, forecaster and ``half`` (of the origins, ``older`` or ``newer``): ``model``, ``forecaster``,
        ``loss_median`` and ``loss_upper`` (mean pinball loss, rps), ``covered`` (share of what came that was not above
        the upper quantile), ``demand_rps`` (mean of what came) and ``scored`` (forecasts that were scored). What was
        never scored has no row. ``overall`` puts the halves together.

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
    candidates = {COMBINED: FORECASTERS} | {name: {name: forecaster} for name, forecaster in FORECASTERS.items()}
    scores = []
    for name, candidate in candidates.items():
        said = [
            predict(
                history.values_rps[:, max(0, origin + 1 - reach) if reach else 0 : origin + 1],
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
        for half, columns in (("older", slice(None, len(chosen) // 2)), ("newer", slice(len(chosen) // 2, None))):
            scored = is_scored[:, columns].sum(axis=1)
            means = {
                column: np.where(is_scored, value, 0)[:, columns].sum(axis=1) / np.maximum(scored, 1)
                for column, value in of_scored.items()
            }
            scores.append(pd.DataFrame({"model": models, "forecaster": name, "half": half, **means, "scored": scored}))
    return pd.concat(scores, ignore_index=True).query("scored > 0").reset_index(drop=True)


def backtest_models(
    demand: pd.DataFrame, models: tuple[Model, ...], pools: tuple[Pool, ...], limits: Limits, reach_s: float
) -> pd.DataFrame:
    """Score the demand (``time``, ``model``, ``demand_rps``) of models as ``forecast`` would have made it: each at its
    own horizon, its peak over the interval that ends there, from ``reach_s`` of history. Columns as ``backtest``.

    Raises:
        ValueError: the history is too short.
    """
    horizons = {model.name: horizon_s(model, pools, limits) for model in models}
    scores = []
    for horizon in sorted(set(horizons.values())):
        names = tuple(model.name for model in models if horizons[model.name] == horizon)
        history = read_history(demand, names, float(demand["time"].max()), limits.interval_s)
        scores.append(
            backtest(
                history,
                names,
                ahead=max(1, math.ceil(horizon / history.step_s)),
                width=max(1, round(limits.interval_s / history.step_s)),
                quantile=limits.quantile,
                reach=int(reach_s / history.step_s),
            )
        )
    return pd.concat(scores, ignore_index=True)


def overall(scores: pd.DataFrame) -> pd.DataFrame:
    """Both halves together: one row a model and forecaster."""
    means = ["loss_median", "loss_upper", "covered", "demand_rps"]
    keys = ["model", "forecaster"]
    sums = scores[means].mul(scores["scored"], axis=0).assign(scored=scores["scored"], **scores[keys])
    summed = sums.groupby(keys, sort=False, as_index=False)[[*means, "scored"]].sum()
    return summed.assign(**{mean: summed[mean] / summed["scored"] for mean in means})


def loss_of_choice(scores: pd.DataFrame) -> tuple[float, float]:
    """Loss at the upper quantile over the newer half, all models together: of each model's best plain forecaster of the
    older half, and of the combined one. What choosing would have cost, judged on what was not chosen by.
    """
    older = scores[(scores["half"] == "older") & (scores["forecaster"] != COMBINED)]
    newer = scores[scores["half"] == "newer"]
    choice = older.sort_values(["model", "loss_upper"]).groupby("model").head(1)[["model", "forecaster"]]
    alone = newer.merge(choice, on=["model", "forecaster"])
    combined = newer[(newer["forecaster"] == COMBINED) & newer["model"].isin(alone["model"])]
    loss, ours = ((one["loss_upper"] * one["scored"]).sum() / one["scored"].sum() for one in (alone, combined))
    return float(loss), float(ours)


def best_by_model(scores: pd.DataFrame) -> pd.DataFrame:
    """The row of each model's forecaster with the smallest loss at the upper quantile; ties go to the combined one.

    ``scores`` as ``overall`` gives them.
    """
    order = scores.assign(is_plain=scores["forecaster"] != COMBINED).sort_values(["model", "loss_upper", "is_plain"])
    return order.groupby("model", sort=True).head(1).drop(columns="is_plain").reset_index(drop=True)
