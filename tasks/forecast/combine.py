"""Many forecasters, one voice: each weighs by how little it lost on the recent past, apart for each quantile.

The upper quantile is calibrated twice: each forecaster's by its own errors, so that their losses can be compared; then
the combined one's, by the errors that it would have made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tasks.forecast.calibrate import (
    Array,
    conformal_quantile,
    corrected,
    counting_error,
    fleet_level,
    pinball,
    ranks,
    unit,
)
from tasks.forecast.history import Matrix

SHARPNESS = 16.0
"""Weights go with loss^-16: a forecaster that loses 4 % more weighs half. Flat from 8 to 24 on every trace tried."""
FAIR_SHARE = 0.75
"""A forecaster is heard only when it could be tried at this share of the trials of the most tried one."""
OWN_TRIES = 30.0
"""From so many tries on a model's own errors stand alone; before, the fleet's fill in."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What the forecasters said of a block of models, and what came."""

    said: Array
    """(forecasters, models, trials)"""
    now: Array
    """(forecasters, models): what they say now."""
    truth: Matrix
    """(models, trials): what came."""
    usual: Array
    """(models,): usual level of demand."""
    step_s: float

    @property
    def level(self) -> Array:
        """(models,): what is added to a forecast to scale its errors; half a request a bin where there was none."""
        return np.nan_to_num(self.usual) + np.float32(0.5 / self.step_s)


@dataclass(frozen=True, slots=True, eq=False)
class Combined:
    """Each one element a model."""

    median: Array
    upper: Array
    error: Array
    loudest: NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """How a block's forecasters did at one quantile."""

    error: Array
    """(forecasters, models): the quantile of their scaled errors."""
    loss: Array
    """(forecasters, models): log of the mean pinball loss relative to the best; NaN: not tried enough."""
    tries: Array
    """(forecasters, models)"""
    mean_rps: Array
    """(forecasters, models): the mean pinball loss itself; at the median, half the mean absolute error."""


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """What a block's forecasters say together at one quantile."""

    said: Array
    """(models,)"""
    weights: Array
    """(forecasters, models)"""
    error: Array
    """(forecasters, models): the scaled error that each was corrected by."""


@dataclass(frozen=True, slots=True, eq=False)
class Spoken:
    """What a block's forecasters say together, and how its upper quantile would have done."""

    median: Voice
    upper: Voice
    errors: Array
    """(models, trials): scaled errors of the upper quantile, sorted, NaN last."""
    ranks: Array
    """Of those errors, the ranks of the outcomes that were not zero."""


Judged = tuple[Trial, Verdict, Verdict]
Each = Callable[[Callable[[Judged], Spoken], Iterable[Judged]], Iterable[Spoken]]
"""``map``, or one that works on several blocks at a time."""


def combine(blocks: Sequence[Judged], quantile: float, each: Each = map) -> Combined:
    """The median and the upper quantile of every model of every judged block, in order."""
    fleet_median = _fleet([verdict for _, verdict, _ in blocks])
    fleet_upper = _fleet([verdict for _, _, verdict in blocks])

    def spoken(block: Judged) -> Spoken:
        trial, at_median, at_upper = block
        upper = _speak(trial, at_upper, fleet_upper, quantile)
        errors = _errors_of(trial, upper)
        of_demand = ranks(errors)[(trial.truth > 0) & np.isfinite(errors)]
        return Spoken(_speak(trial, at_median, fleet_median, 0.5), upper, np.sort(errors, axis=-1), of_demand)

    voices = list(each(spoken, blocks))
    level = fleet_level(np.concatenate([voice.ranks for voice in voices]), quantile)
    parts = []
    for (trial, at_median, _), voice in zip(blocks, voices, strict=True):
        median, weights = voice.median.said, voice.median.weights
        above = np.maximum(_recalibrated(trial, voice, level), median)
        parts.append((median, above, _mean_error(at_median, weights), voice.upper.weights.argmax(axis=0)))
    median, upper, error, loudest = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Combined(median, upper, error, loudest)


def judge(trial: Trial, quantile: float) -> Judged:
    """Calibrate every forecaster on its errors, then see what it would have lost: at the median, at the quantile."""
    reaching = np.flatnonzero(np.isfinite(trial.said).any(axis=(1, 2)))
    if 0 < len(reaching) < len(trial.said):
        # those whose days history does not reach back to said nothing: there is nothing to work out
        few = replace(trial, said=trial.said[reaching], now=trial.now[reaching])
        _, *verdicts = judge(few, quantile)
        at_median, at_upper = (_among(verdict, reaching, len(trial.said)) for verdict in verdicts)
        return trial, at_median, at_upper
    units = unit(trial.said, trial.level[:, None])
    errors = trial.truth - trial.said
    errors /= units
    is_tried = np.isfinite(errors)
    errors.sort(axis=-1)
    tries = is_tried.sum(axis=-1).astype(np.float32)
    is_heard = (tries > 0) & (tries >= FAIR_SHARE * tries.max(axis=0))

    def at(quantile: float) -> Verdict:
        error = conformal_quantile(errors, quantile)
        total = np.empty_like(tries)
        # one forecaster at a time: its matrices stay in the processor's cache
        for i, said in enumerate(trial.said):
            lost = pinball(trial.truth, corrected(said, error[i][:, None], units[i]), quantile)
            lost[~is_tried[i]] = 0
            total[i] = lost.sum(axis=-1)
        # a thousandth of the level keeps a forecaster that lost nothing at all from being the only one
        mean = np.divide(total, tries, out=np.full_like(total, np.nan), where=is_heard)
        loss = np.log(mean + trial.level / 1000)
        loss -= np.fmin.reduce(loss, axis=0)
        return Verdict(error, loss, tries, mean)

    return trial, at(0.5), at(quantile)


def _among(verdict: Verdict, some: NDArray[np.intp], count: int) -> Verdict:
    """The verdict on some of so many forecasters, the others never tried."""

    def spread(values: Array, missing: float) -> Array:
        wide = np.full((count, values.shape[1]), missing, dtype=values.dtype)
        wide[some] = values
        return wide

    nan = float("nan")
    return Verdict(
        spread(verdict.error, nan), spread(verdict.loss, nan), spread(verdict.tries, 0), spread(verdict.mean_rps, nan)
    )


def _fleet(verdicts: Sequence[Verdict]) -> tuple[Array, Array]:
    """Error and loss of each forecaster over all models, each model counting by its tries: what a cold start borrows.

    Where no model tried a forecaster its error is NaN; where none tried any, the first of the list is preferred.
    """
    error = np.concatenate([verdict.error for verdict in verdicts], axis=1)
    loss = np.concatenate([verdict.loss for verdict in verdicts], axis=1)
    tries = np.concatenate([verdict.tries for verdict in verdicts], axis=1)
    untried = np.where(np.arange(len(loss)) == 0, 0, 1).astype(np.float32)
    fleet_loss = _mean_by_tries(loss, tries)
    return _mean_by_tries(error, tries), np.where(np.isfinite(fleet_loss), fleet_loss, untried)


def _mean_by_tries(values: Array, tries: Array) -> Array:
    """(forecasters,): mean over models, weighted by tries; NaN where there is none."""
    weights = np.where(np.isfinite(values), tries, 0)
    total, weight = (np.nan_to_num(values) * weights).sum(axis=1), weights.sum(axis=1)
    mean: Array = np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)
    return mean


def _speak(trial: Trial, verdict: Verdict, fleet: tuple[Array, Array], quantile: float) -> Voice:
    """The quantile of each model."""
    fleet_error, fleet_loss = fleet
    trust = np.minimum(verdict.tries / OWN_TRIES, 1)
    units = unit(trial.now, trial.level)
    counting = counting_error(trial.now, units, trial.step_s, quantile)
    # a new model is as uncertain as the fleet was, and at least as its own counts are
    borrowed = np.nan_to_num(fleet_error)[:, None] if quantile <= 0.5 else np.fmax(fleet_error[:, None], counting)
    # nothing is borrowed by what only ever saw zeros: they are zeros
    error = trust * np.nan_to_num(verdict.error) + (1 - trust) * np.where(trial.usual > 0, borrowed, 0)
    loss = np.where(verdict.tries.max(axis=0) > 0, verdict.loss, fleet_loss[:, None])
    loss = trust * loss + (1 - trust) * fleet_loss[:, None]
    is_heard = np.isfinite(loss) & np.isfinite(trial.now)
    loss = np.where(is_heard, loss, np.inf)
    best = loss.min(axis=0)
    weights = np.exp(-SHARPNESS * (loss - np.where(np.isfinite(best), best, 0)))
    total = weights.sum(axis=0)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    said = np.where(is_heard, corrected(trial.now, error, units), 0)
    together = np.where(total > 0, (weights * said).sum(axis=0), np.nan).astype(np.float32)
    return Voice(together, weights.astype(np.float32), error.astype(np.float32))


def _errors_of(trial: Trial, voice: Voice) -> Array:
    """(models, trials): the scaled errors of what the forecasters would have said together; NaN: none could say."""
    total, weight = np.zeros_like(trial.truth), np.zeros_like(trial.truth)
    level = trial.level[:, None]
    for said, error, weights in zip(trial.said, voice.error, voice.weights, strict=True):
        if not weights.any():
            continue
        each = corrected(said, error[:, None], unit(said, level))
        is_known = np.isfinite(each)
        total += np.where(is_known, each, 0) * weights[:, None]
        weight += is_known * weights[:, None]
    together = np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)
    errors: Array = (trial.truth - together) / unit(together, level)
    return errors


def _recalibrated(trial: Trial, voice: Spoken, level: float) -> Array:
    """(models,): the upper quantile corrected by its own errors, as far as there were enough of them."""
    trust = np.minimum(np.isfinite(voice.errors).sum(axis=-1) / OWN_TRIES, 1)
    error = np.nan_to_num(conformal_quantile(voice.errors, level)) * trust
    upper = voice.upper.said
    # what only ever saw zeros has no errors, and stays zero
    return corrected(upper, error.astype(np.float32), unit(upper, trial.level))


def _mean_error(at_median: Verdict, weights: Array) -> Array:
    """(models,): mean absolute error of the forecasters' medians, weighted as they are; NaN: never tried."""
    error: Array = 2 * np.where(weights > 0, weights * np.nan_to_num(at_median.mean_rps), 0).sum(axis=0)
    return np.where(at_median.tries.max(axis=0) > 0, error, np.nan)
