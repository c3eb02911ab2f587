"""Compute is kept for what models ask together: their upper quantiles do not come all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tasks.decision import Forecast, Sizing
from tasks.world import Fleet, Model, Pool


def pooled(sizings: Sequence[Sizing], forecasts: Mapping[str, Forecast], fleet: Fleet) -> tuple[Sizing, ...]:
    """The sizings with the load that replicas keep compute for; copies are not changed.

    Deviations of independent demands add up as the root of the sum of their squares (risk pooling: Eppen, *Management
    Science* 25, 1979). A copy's margin is its part of the upper quantile above the median. Each of R replicas, as many
    as the compute takes, holds 1/R of all copies; of the sum of their margins it keeps the share
    sqrt(sum m^2 / R) / (sum m / R): four copies of margin 0.1 in one replica take 0.2 together, not 0.4, a share of
    0.5. What a queue or a rise asks for is there already, and counts in full.
    """
    models = fleet.model_by_name
    rows = [
        (n, forecast, sizing.copies, _compute_s(models[sizing.model], sizing, fleet.pools))
        for n, sizing in enumerate(sizings)
        if (forecast := forecasts.get(sizing.model)) is not None and _is_forecast(sizing, forecast)
    ]
    if not rows:
        return tuple(sizings)
    copies, per_request = (np.array(column, dtype=float) for column in list(zip(*rows, strict=True))[2:])
    upper = np.array([sizings[n].demand_rps for n, *_ in rows], dtype=float)
    median = np.array([min(f.median_rps or 0.0, u) for (_, f, *_), u in zip(rows, upper, strict=True)])
    margin = (upper - median) * per_request / copies
    replicas = max(1.0, float((upper * per_request).sum()))
    sum_, squares = float((copies * margin).sum()) / replicas, float((copies * margin**2).sum()) / replicas
    share = min(1.0, np.sqrt(squares) / sum_) if sum_ > 0 else 1.0
    found = list(sizings)
    for (n, *_), load in zip(rows, (median + share * (upper - median)).tolist(), strict=True):
        found[n] = replace(sizings[n], load_rps=load)
    return tuple(found)


def _is_forecast(sizing: Sizing, forecast: Forecast) -> bool:
    return bool(sizing.copies and sizing.demand_rps and sizing.demand_rps == forecast.upper_rps)


def _compute_s(model: Model, sizing: Sizing, pools: Sequence[Pool]) -> float:
    """Seconds of a replica's compute below its target that one request takes, where it takes least."""
    return min(
        sizing.device_s(model.need_by_gpu_type[pool.gpu_type], pool.gpu_type)
        / max(pool.compute * (1 - pool.headroom), 1e-9)
        for pool in pools
        if model.may_live_in(pool)
    )
