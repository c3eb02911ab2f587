"""Errors made on the recent past turn what a forecaster said into quantiles (split conformal prediction).

An error is measured in units of ``forecast + usual level``: that lies between errors that are constant and errors that
grow in proportion to demand, and it makes the errors of a small and of a large model comparable.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tasks.forecast.history import Matrix

Array = NDArray[np.float32]

TAIL = 0.9
"""The tail is taken a tenth smaller: forecasters are weighted by the same errors, which makes these a bit too small."""


def scaled_errors(truth: Matrix, said: Array, level: Array) -> Array:
    """(forecasters, models, trials): (truth - said) / (said + level); NaN where either is not known."""
    scaled: Array = (truth - said) / (said + level[:, None])
    return scaled


def conformal_quantile(errors: Array, quantile: float) -> Array:
    """The ceil((n + 1) q)-th smallest of the n known errors along the last axis, NaN where n is 0.

    Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World (2005). ``errors`` are sorted, NaN last. A tail
    (q above the median) is taken with ``TAIL``.
    """
    if quantile > 0.5:
        quantile = 1 - TAIL * (1 - quantile)
    count = np.isfinite(errors).sum(axis=-1)
    if errors.shape[-1] == 0:
        return np.full(count.shape, np.nan, dtype=np.float32)
    rank = np.clip(np.ceil((count + 1) * quantile).astype(np.intp), 1, np.maximum(count, 1))
    nth: Array = np.take_along_axis(errors, rank[..., None] - 1, axis=-1)[..., 0]
    return nth


def corrected(said: Array, error: Array, level: Array) -> Array:
    """The quantile of demand that a scaled error's quantile stands for; never below zero."""
    return np.maximum(said + error * (said + level), 0)


def pinball(truth: Matrix, quantile_said: Array, quantile: float) -> Array:
    """The loss that the true quantile minimises (Koenker and Bassett, 1978)."""
    miss = truth - quantile_said
    loss: Array = np.maximum(quantile * miss, (quantile - 1) * miss)
    return loss


def counting_error(said: Array, level: Array, step_s: float, quantile: float) -> Array:
    """The scaled error of counting alone: n requests in a bin are known to sqrt(n), so a rate r to sqrt(r / step)."""
    noise = NormalDist().inv_cdf(quantile) * np.sqrt(np.maximum(said, 0) / step_s)
    scaled: Array = np.divide(noise, said + level, out=np.zeros_like(said), where=said + level > 0)
    return scaled
