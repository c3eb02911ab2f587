"""The demand that was observed, as one matrix: models x bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.world import coded

Matrix = NDArray[np.float32]
"""Requests a second, (models, bins or origins); NaN: not observed, or no forecast."""


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Demand on one time grid whose last bin ends now, or less than a bin before."""

    values_rps: Matrix
    """(models, bins), oldest bin first; NaN: not observed."""
    step_s: float
    """Width of a bin."""
    newest: NDArray[np.float64]
    """Time of each model's newest observed sample; -inf: never observed."""


def read_history(demand: pd.DataFrame, models: tuple[str, ...], now: float, default_step_s: float) -> History:
    """Lay the long demand frame (``time``, ``model``, ``demand_rps``) on a grid, in the order of ``models``.

    The step is the usual distance of the frame's times; ``default_step_s`` where there is but one. What was not
    observed stays NaN. Samples from the future and of other models are left out.
    """
    rows = _rows(demand["model"], models)
    times = demand["time"].to_numpy(dtype=float)
    values = demand["demand_rps"].to_numpy(dtype=float)
    is_ours = (rows >= 0) & (times <= now) & np.isfinite(values)
    rows, times, values = rows[is_ours], times[is_ours], values[is_ours]
    newest = np.full(len(models), -np.inf)
    np.maximum.at(newest, rows, times)
    if not times.size:
        return History(np.full((len(models), 1), np.nan, dtype=np.float32), default_step_s, newest)
    gaps = np.diff(np.unique(times))
    step_s = float(np.median(gaps)) if gaps.size else default_step_s
    age = np.rint((times.max() - times) / step_s).astype(int) + int((now - times.max()) / step_s)
    matrix = np.full((len(models), int(age.max()) + 1), np.nan, dtype=np.float32)
    matrix[rows, -1 - age] = values
    return History(matrix, step_s, newest)


def _rows(column: pd.Series[Any], models: tuple[str, ...]) -> NDArray[np.intp]:
    """Each sample's model as its place in ``models``, -1 where it is none of them."""
    row_by_model = {model: row for row, model in enumerate(models)}
    codes, names = coded(column)
    rows = np.array([*(row_by_model.get(name, -1) for name in names), -1], dtype=np.intp)
    return np.take(rows, codes)


def rolling_peak(values: Matrix, width: int) -> Matrix:
    """The highest observed value of the ``width`` bins that end in each bin; NaN where none was observed."""
    peak = values.copy()
    for lag in range(1, min(width, values.shape[1])):
        np.fmax(peak[:, lag:], values[:, :-lag], out=peak[:, lag:])
    return peak


def mean_of(matrices: Sequence[Matrix]) -> Matrix:
    """Mean, cell by cell, of what is not NaN."""
    known = [matrix for matrix in matrices if np.isfinite(matrix).any()]
    total = (known or matrices)[0].copy()
    for matrix in known[1:]:
        total += matrix
    if len(known) < 2 or not np.isnan(total).any():
        total /= max(1, len(known))
        return total
    total[:] = 0
    count = np.zeros_like(total)
    for matrix in known:
        is_known = np.isfinite(matrix)
        total += np.where(is_known, matrix, 0)
        count += is_known
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def coarsen(values: Matrix, width: int) -> Matrix:
    """Means of blocks of ``width`` bins, the last of which ends with the last bin; a rest at the start is dropped."""
    if width == 1:
        return values
    models, bins = values.shape
    blocks = values[:, bins % width :].reshape(models, bins // width, width)
    return mean_of([blocks[:, :, i] for i in range(width)])
