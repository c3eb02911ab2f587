"""From history to a median and an upper quantile, all models at once.

Every forecaster is tried at recent origins, its errors calibrate its quantiles, and the forecasters that lost least
speak loudest. Nothing is remembered between ticks: the losses are those of the history that is read.

Gradient boosting does not earn its dependency: one model for all series of a trace (LightGBM on what the forecasters
say, learned on older outcomes) lost 2 % more at the median and 9 % more at the 0.9 quantile, in fifteen cases of five
traces; its mean with this forecast lost 3 % less at the median, and no less at the 0.9 quantile.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.forecast.calibrate import Array
from tasks.forecast.combine import Judged, Trial, combine, judge
from tasks.forecast.forecasters import FORECASTERS, Forecaster, Past
from tasks.forecast.history import Matrix, coarsen, mean_of, rolling_peak

TRIALS = 192
"""Origins at which the forecasters are tried, at most."""
DENSE = 48
"""The newest origins of these: every bin."""
TRIED_S = 7 * 86_400.0
"""How far back they are tried."""
READ_S = 8 * 86_400.0
"""How much history is read: the newest trial needs the week before it."""
RESOLUTION = 8
"""Coarse bins in a horizon: detail finer than an eighth of the horizon says nothing about its end."""
BLOCK = 512
"""Models that are worked on together: their matrices then stay in the processor's cache."""


WORKERS = 2
"""Blocks worked on at a time: numpy lets go of the interpreter's lock."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The forecast of every model, each array one element a model; NaN: nothing is known of it."""

    median_rps: Array
    upper_rps: Array
    error_rps: Array
    """Mean absolute error of the forecast, had it been made before; NaN: never tried yet."""
    forecaster: tuple[str, ...]
    """The one that weighs most in the upper quantile."""


def predict(
    demand: Matrix,
    step_s: float,
    ahead: int,
    *,
    width: int = 1,
    quantile: float = 0.9,
    forecasters: Mapping[str, Forecaster] = FORECASTERS,
) -> Prediction:
    """Forecast the peak of the ``width`` bins that end ``ahead`` bins after the last one of ``demand`` (models, bins).

    ``width`` 1 is the bin itself. NaN is what was not observed.
    """
    demand = demand[:, -int(READ_S / step_s) :]

    def judged(start: int) -> Judged:
        return judge(_try(demand[start : start + BLOCK], step_s, ahead, width, forecasters), quantile)

    starts = range(0, max(1, len(demand)), BLOCK)
    with ThreadPoolExecutor(WORKERS) as pool:
        each = pool.map if len(starts) > 1 else map
        combined = combine(list(each(judged, starts)), quantile, each)
    names = list(forecasters)
    return Prediction(combined.median, combined.upper, combined.error, tuple(names[i] for i in combined.loudest))


def _try(demand: Matrix, step_s: float, ahead: int, width: int, forecasters: Mapping[str, Forecaster]) -> Trial:
    """What every forecaster says now, and what it would have said at the trial origins."""
    peaks = rolling_peak(demand, width)
    block = max(1, min(ahead // RESOLUTION, demand.shape[1]))
    coarse = coarsen(demand, block)
    coarse_step_s = block * step_s
    last = coarse.shape[1] - 1
    origins = _origins(last, -(-ahead // block), int(TRIED_S / coarse_step_s))
    past = Past(
        coarse,
        coarse if width == 1 else coarsen(peaks, block),
        np.append(origins, last),
        max(1, round(ahead / block)),
        coarse_step_s,
    )
    said = np.stack([forecaster(past) for forecaster in forecasters.values()])
    truth = peaks[:, demand.shape[1] - 1 - (last - origins) * block + ahead]
    return Trial(said[:, :, :-1], said[:, :, -1], truth, mean_of(list(coarse[:, past.origins].T)), step_s)


def _origins(last: int, ahead: int, reach: int) -> NDArray[np.intp]:
    """Trial origins whose outcome is known: dense in the recent past, ever sparser before, ascending."""
    newest = last - ahead
    if newest < 0:
        return np.empty(0, dtype=np.intp)
    oldest = min(newest, reach)
    dense = np.arange(min(oldest + 1, DENSE))
    sparse = np.geomspace(DENSE, max(oldest, DENSE), TRIALS - DENSE).astype(np.intp)
    ages = np.union1d(dense, sparse[sparse <= oldest])
    return np.asarray(newest - ages[::-1])
