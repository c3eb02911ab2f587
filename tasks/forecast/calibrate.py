"""Errors made on the recent past turn what a forecaster said into quantiles (split conformal prediction).

An error is measured in units of the root of ``(forecast + usual level) x usual level``: as counts err, with the root of
what is counted; and it makes the errors of a small and of a large model comparable.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tasks.forecast.history import Matrix

Array = NDArray[np.float32]

TAIL = 0.95
"""The fleet's tail is taken a twentieth smaller: forecasters are weighted by the same errors, which makes these a bit
too small."""


def unit(said: Array, level: Array) -> Array:
    """What errors are measured in; ``level`` as wide as ``said``, or one broadcast to it."""
    scaled: Array = np.maximum(said, 0)
    scaled += level
    scaled *= level
    return np.sqrt(scaled, out=scaled)


def conformal_quantile(errors: Array, quantile: float) -> Array:
    """The ceil((n + 1) q)-th smallest of the n known errors along the last axis, NaN where n is 0.

    Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World (2005). ``errors`` are sorted, NaN last.
    """
    count = np.isfinite(errors).sum(axis=-1)
    if errors.shape[-1] == 0:
        return np.full(count.shape, np.nan, dtype=np.float32)
    rank = np.clip(np.ceil((count + 1) * quantile).astype(np.intp), 1, np.maximum(count, 1))
    nth: Array = np.take_along_axis(errors, rank[..., None] - 1, axis=-1)[..., 0]
    return nth


def corrected(said: Array, error: Array, unit: Array) -> Array:
    """The quantile of demand that a scaled error's quantile stands for; never below zero."""
    demand = error * unit
    demand += said
    above: Array = np.maximum(demand, 0, out=demand)
    return above


def ranks(errors: Array) -> Array:
    """(models, trials): rank of each error among its model's, as a share: the k-th smallest of n is k / (n + 1)."""
    order = np.argsort(errors, axis=-1)
    rank = np.empty_like(errors)
    np.put_along_axis(rank, order, np.arange(1, errors.shape[-1] + 1, dtype=errors.dtype)[None], axis=-1)
    count = np.isfinite(errors).sum(axis=-1, keepdims=True).astype(errors.dtype)
    shares: Array = np.where(np.isfinite(errors), rank / (count + 1), np.nan)
    return shares


def fleet_level(of_demand: Array, quantile: float) -> float:
    """The quantile of each model's errors at which, over the fleet, this share of the outcomes with demand is covered.

    ``of_demand`` are the ranks of the outcomes that were not zero. A zero is always covered, so that a model that is
    asked half of the time, forecast at its 0.9 quantile, is covered in 0.8 of the times that count. At most half of
    the tail is left out: what is hardly ever asked cannot be covered, and must not cost the others.

    One level for all, though a model that is always asked is so covered more than it need be: with a level for each
    model's own share of zeros the loss fell by 1 %, but replayed fleets cost 2 to 3 % more and served less in time.
    """
    if of_demand.size == 0:
        return quantile
    level = float(np.quantile(of_demand, 1 - TAIL * (1 - quantile)))
    return min(level, 1 - (1 - quantile) / 2)


def pinball(truth: Matrix, quantile_said: Array, quantile: float) -> Array:
    """The loss that the true quantile minimises (Koenker and Bassett, 1978)."""
    miss: Array = truth - quantile_said
    loss: Array = quantile * miss
    miss *= quantile - 1
    return np.maximum(loss, miss, out=loss)


def counting_error(said: Array, unit: Array, step_s: float, quantile: float) -> Array:
    """The scaled error of counting alone: n requests in a bin are known to sqrt(n), so a rate r to sqrt(r / step)."""
    noise = NormalDist().inv_cdf(quantile) * np.sqrt(np.maximum(said, 0) / step_s)
    scaled: Array = (noise / unit).astype(np.float32)
    return scaled
