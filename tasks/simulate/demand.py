"""Demand over time: recorded counts become rates, on one grid for all models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rates = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """Offered requests a second, piecewise linear between the middles of the bins."""

    first: float
    """Unix seconds of the start of the first bin."""
    bin_s: float
    rates_rps: Rates
    """(bins, models)"""

    @property
    def end(self) -> float:
        return self.first + self.bin_s * len(self.rates_rps)

    def at(self, time: float) -> Floats:
        """(models,): the rates at a time; those of the ends beyond them."""
        place = min(max((time - self.first) / self.bin_s - 0.5, 0.0), len(self.rates_rps) - 1.0)
        before = int(place)
        after, weight = min(before + 1, len(self.rates_rps) - 1), place - before
        mixed: Floats = self.rates_rps[before] * (1.0 - weight) + self.rates_rps[after] * weight
        return mixed

    def mean(self, start: float, end: float) -> Floats:
        """(models,): the mean rates over a span."""
        mean: Floats = self._over(start, end).mean(axis=0)
        return mean

    def peak(self, start: float, end: float) -> Floats:
        """(models,): the highest rates over a span."""
        peak: Floats = self._over(start, end).max(axis=0)
        return peak

    def _over(self, start: float, end: float) -> Floats:
        inner = np.arange(np.ceil((start - self.first) / self.bin_s - 0.5), (end - self.first) / self.bin_s - 0.5)
        times = [start, *(self.first + (inner + 0.5) * self.bin_s), end]
        return np.stack([self.at(time) for time in times])


def read_demand(trace: pd.DataFrame, bin_s: float, first: float = 0.0) -> tuple[tuple[str, ...], Demand]:
    """A recorded trace (``timestamp`` s, ``model``, ``requests`` counted in the bin that starts there) on a grid.

    What was not observed is filled in on a straight line between its neighbours: a replay must send something. The
    trace's own bins are the median distance of its times; the grid's are ``bin_s`` and start at ``first``.
    """
    wide = trace.pivot_table(index="timestamp", columns="model", values="requests", aggfunc="sum").sort_index()
    times = wide.index.to_numpy(dtype=float)
    recorded_s = float(np.median(np.diff(times))) if len(times) > 1 else bin_s
    middles = times - times[0] + recorded_s / 2
    grid = np.arange(bin_s / 2, times[-1] - times[0] + recorded_s, bin_s)
    rates = np.zeros((len(grid), wide.shape[1]), dtype=np.float32)
    for column, name in enumerate(wide.columns):
        counts = wide[name].to_numpy(dtype=float)
        is_known = np.isfinite(counts)
        if is_known.any():
            rates[:, column] = np.interp(grid, middles[is_known], counts[is_known] / recorded_s)
    return tuple(str(name) for name in wide.columns), Demand(first, bin_s, rates)


def with_bursts(demand: Demand, deviation: float, memory_s: float, seed: int) -> Demand:
    """Demand that also varies within the bins it was recorded in: made up, for traces of coarse bins.

    Each model's rate is multiplied by a log-normal factor of mean 1 whose logarithm is a first-order autoregression
    with this standard deviation, from bin to bin, and time constant.
    """
    random = np.random.default_rng(seed)
    keep = np.exp(-demand.bin_s / memory_s)
    fresh = random.standard_normal(demand.rates_rps.shape, dtype=np.float32) * deviation * np.sqrt(1 - keep**2)
    log = np.zeros_like(fresh)
    log[0] = fresh[0] / np.sqrt(1 - keep**2)
    for row in range(1, len(log)):
        log[row] = keep * log[row - 1] + fresh[row]
    return Demand(demand.first, demand.bin_s, demand.rates_rps * np.exp(log - deviation**2 / 2))


def scaled(demand: Demand, mean_rps: Sequence[float] | Floats, start: float, end: float) -> Demand:
    """Demand whose means over a span are these; a series that is silent there stays so."""
    rows = slice(int((start - demand.first) / demand.bin_s), int((end - demand.first) / demand.bin_s))
    means = demand.rates_rps[rows].mean(axis=0)
    wanted = np.asarray(mean_rps)
    factor = np.divide(wanted, means, out=np.zeros_like(wanted, dtype=float), where=means > 0)
    return Demand(demand.first, demand.bin_s, (demand.rates_rps * factor).astype(np.float32))
