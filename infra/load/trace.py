"""Playback of a recorded trace: its counts become rates, its gaps stay gaps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from infra.load.profile import Profile, Segment
from infra.load.scenario import ScenarioError

COLUMNS = ("timestamp", "model", "requests")


def read_trace(path: Path | str) -> pd.DataFrame:
    """A trace: ``timestamp`` (s, start of the bin), ``model`` (series), ``requests`` (count in the bin).

    A bin without a row was not observed; a row with 0 is an observed zero.

    Raises:
        ScenarioError: the file cannot be read, lacks a column, or holds a count that is none.
    """
    try:
        trace = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ScenarioError(f"{path}: cannot be read as Parquet: {error}") from error
    if missing := [column for column in COLUMNS if column not in trace]:
        raise ScenarioError(f"{path}: no column {', '.join(missing)}; a trace has {', '.join(COLUMNS)}")
    trace = trace[list(COLUMNS)].astype({"timestamp": float, "model": str, "requests": float})
    if trace.empty or not (trace["requests"] >= 0).all() or trace.duplicated(["timestamp", "model"]).any():
        raise ScenarioError(f"{path}: needs rows, counts of 0 or more, and one row a series and timestamp")
    return trace


def profile(trace: pd.DataFrame, models: str = "", speed: float = 1.0, scale: float = 1.0) -> Profile:
    """The trace as a profile. Time runs ``speed`` times as fast; rates are ``scale`` times the recorded ones, so that
    speed shortens the run and leaves its levels.

    ``models`` says which model plays which series: ``""`` series names are model names; ``"a,b"`` the busiest series is
    a, the next b, others are left out; ``"a=x,b=y"`` model a plays series x.

    Raises:
        ScenarioError: a series is named that the trace does not have.
    """
    model_by_series = _mapping(trace, models)
    trace = trace[trace["model"].isin(list(model_by_series))]
    bins = np.sort(trace["timestamp"].unique())
    step_s = float(np.diff(bins).min()) if len(bins) > 1 else 60.0
    duration_s = (bins[-1] - bins[0] + step_s) / speed
    start_s = (trace["timestamp"] - bins[0]) / speed
    rates = trace["requests"] / step_s * scale
    segments = tuple(
        Segment(model_by_series[series], start, start + step_s / speed, rate, rate)
        for series, start, rate in zip(trace["model"], start_s, rates, strict=True)
    )
    observed_s = trace.groupby("model").size() * step_s / speed
    gaps = {model_by_series[str(series)]: round(duration_s - float(s), 3) for series, s in observed_s.items()}
    return Profile("trace", duration_s, segments, unobserved_s_by_model={m: s for m, s in gaps.items() if s > 0})


def _mapping(trace: pd.DataFrame, models: str) -> dict[str, str]:
    busiest = [str(series) for series in trace.groupby("model")["requests"].sum().sort_values(ascending=False).index]
    if not models:
        return {series: series for series in busiest}
    wanted = [part.strip() for part in models.split(",")]
    if "=" not in models:
        if len(wanted) > len(busiest):
            raise ScenarioError(f"{len(wanted)} models for {len(busiest)} series: {', '.join(busiest)}")
        return dict(zip(busiest, wanted, strict=False))
    pairs: dict[str, str] = {}
    for part in wanted:
        model, _, series = part.partition("=")
        pairs[series] = model
    if unknown := sorted(set(pairs) - set(busiest)):
        raise ScenarioError(f"the trace has no series {', '.join(unknown)}; it has: {', '.join(busiest)}")
    return pairs
