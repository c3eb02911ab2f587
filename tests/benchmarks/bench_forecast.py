"""Forecasts against their peers on real traces, by rolling origin, in one run.

    DATA_DIR=traces python -m tests.benchmarks.bench_forecast [--origins 120] [--models 10000]

``DATA_DIR`` holds Parquet files with the columns ``timestamp`` (s), ``model`` and ``requests`` (a count in the bin that
starts there; an absent row was not observed). Each cell is the pinball loss as a share of all demand, and how far it is
from the best single peer of that trace. Every peer gets its upper quantile as fairly as we do: from its own last 240
errors. Exponential smoothing is tuned with hindsight: the best of seven constants counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

# small products on all cores cost more than they save, and blocks of models use the cores already
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.forecast.calibrate import pinball
from tasks.forecast.history import Matrix, rolling_peak
from tasks.forecast.predict import predict

HORIZONS_MIN = (10, 30, 60)
DAY_S = 86_400
CALIBRATION = 240
Said = tuple[Matrix, Matrix]
"""Median and 0.9 quantile, (models, origins)."""


def read_trace(path: Path) -> tuple[Matrix, float]:
    """Requests a second, (models, bins), and the bins' width in seconds."""
    frame = pd.read_parquet(path)
    step_s = float(np.median(np.diff(np.unique(frame["timestamp"]))))
    rows, models = pd.factorize(frame["model"].astype(str), sort=True)
    bins = np.rint((frame["timestamp"] - frame["timestamp"].min()) / step_s).astype(int)
    values = np.full((len(models), int(bins.max()) + 1), np.nan, dtype=np.float32)
    values[rows, bins] = frame["requests"] / step_s
    return values, step_s


def shifted(values: Matrix, bins: int) -> Matrix:
    """Column t holds what was observed ``bins`` before t."""
    moved = np.full_like(values, np.nan)
    if bins < values.shape[1]:
        moved[:, bins:] = values[:, : values.shape[1] - bins]
    return moved


def last_value(values: Matrix) -> Matrix:
    return pd.DataFrame(values.T).ffill().to_numpy(dtype=np.float32).T


def smoothed(values: Matrix, time_constant: float) -> Matrix:
    alpha = 1 - np.exp(-1 / time_constant)
    return pd.DataFrame(values.T).ewm(alpha=alpha).mean().to_numpy(dtype=np.float32).T


def peers(values: Matrix, step_s: float, ahead: int) -> dict[str, Matrix]:
    """What each peer says at every bin of the one that is ``ahead`` bins later."""
    day = round(DAY_S / step_s)
    last = last_value(values)
    yesterday = shifted(values, day - ahead)
    said = {
        "last value": last,
        "same time yesterday": yesterday,
        "seasonal difference": np.maximum(last + yesterday - shifted(last, day), 0),
    }
    return said | {f"smoothing over {bins} bins": smoothed(values, bins) for bins in (2, 4, 8, 16, 32, 64, 128)}


def with_upper(said: Matrix, truth: Matrix, origins: Matrix, ahead: int) -> Said:
    """A peer's forecasts at the origins with the 0.9 quantile of its own last errors."""
    upper = []
    for origin in origins:
        tried = np.arange(max(0, origin - ahead - CALIBRATION + 1), origin - ahead + 1)
        errors = truth[:, tried + ahead] - said[:, tried]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a model without errors yet
            upper.append(said[:, origin] + np.nan_to_num(np.nanquantile(errors, 0.9, axis=1)))
    return said[:, origins], np.stack(upper, axis=1)


def ours(values: Matrix, step_s: float, ahead: int, width: int, origins: Matrix) -> Said:
    """What the tick's own code says at each origin, from nothing but what came before."""
    said = [predict(values[:, : origin + 1], step_s, ahead, width=width, quantile=0.9) for origin in origins]
    return np.stack([s.median_rps for s in said], axis=1), np.stack([s.upper_rps for s in said], axis=1)


def autos(values: Matrix, ahead: int, origins: Matrix) -> Iterator[tuple[str, Said]]:
    """statsforecast's AutoETS and AutoARIMA, fitted anew at each origin on the last 200 bins. Only where installed."""
    if importlib.util.find_spec("statsforecast") is None:
        return
    from statsforecast.models import AutoARIMA, AutoETS

    for model in (AutoETS(season_length=1), AutoARIMA(season_length=1)):
        median = np.full((len(values), len(origins)), np.nan, dtype=np.float32)
        upper = median.copy()
        for column, origin in enumerate(origins):
            recent = last_value(values[:, max(0, origin - 199) : origin + 1])
            for row in range(len(values)):
                seen = recent[row][np.isfinite(recent[row])].astype(float)
                if len(seen) < 20:
                    continue
                said = model.forecast(seen, h=ahead, level=[80])
                median[row, column], upper[row, column] = np.asarray(said["mean"])[-1], np.asarray(said["hi-80"])[-1]
        yield type(model).__name__, (np.maximum(median, 0), np.maximum(upper, 0))


def losses(truth: Matrix, said: Said, is_scored: NDArray[np.bool_]) -> tuple[float, float]:
    """Pinball loss at 0.5 and at 0.9, as shares of all demand."""
    total = truth[is_scored].sum()
    median, upper = (pinball(truth, value, q)[is_scored].sum() for value, q in zip(said, (0.5, 0.9), strict=True))
    return float(median / total), float(upper / total)


def score(name: str, values: Matrix, step_s: float, horizon_min: int, is_peak: bool, count: int) -> None:
    """One cell of the table: a trace, a horizon, and the bin's value or the peak until then."""
    ahead = max(1, round(horizon_min * 60 / step_s))
    width = ahead if is_peak else 1
    truth = rolling_peak(values, width)
    first, last = int(values.shape[1] * 0.4) + ahead, values.shape[1] - ahead - 1
    origins = np.unique(np.linspace(first, last, count).astype(int))
    came = truth[:, origins + ahead]
    by_peer = {peer: with_upper(said, truth, origins, ahead) for peer, said in peers(truth, step_s, ahead).items()}
    if not is_peak:
        few = origins[:: max(1, len(origins) * len(values) // 60)]
        by_auto = dict(autos(values, ahead, few))
    else:
        few, by_auto = origins[:0], {}
    said = ours(values, step_s, ahead, width, origins)
    # every method is scored on the same cells
    is_scored = np.isfinite(came) & np.isfinite(said[0])
    for peer in by_peer.values():
        is_scored &= np.isfinite(peer[0])
    table = {peer: losses(came, s, is_scored) for peer, s in by_peer.items()}
    mine = losses(came, said, is_scored)
    best = [min(table, key=lambda peer, at=at: table[peer][at]) for at in (0, 1)]  # type: ignore[misc]
    is_non_zero = is_scored & (came > 0)
    covered = float((came <= said[1])[is_non_zero].mean())
    ties = float((is_scored & (came == 0)).sum() / is_scored.sum())
    gains = " ".join(
        f"{mine[at]:8.4f} {mine[at] / table[best[at]][at] - 1:+7.1%} {mine[at] / table['last value'][at] - 1:+7.1%}"
        f" {best[at].replace('smoothing over', 'ewm'):20s}"
        for at in (0, 1)
    )
    print(
        f"{name:30.30s} {horizon_min:3d} {'peak' if is_peak else 'bin':4s} {gains} {covered:6.1%} {ties:6.1%}",
        flush=True,
    )
    for auto, auto_said in by_auto.items():
        columns = np.searchsorted(origins, few)
        scored = is_scored[:, columns] & np.isfinite(auto_said[0])
        theirs = losses(came[:, columns], auto_said, scored)
        own = losses(came[:, columns], (said[0][:, columns], said[1][:, columns]), scored)
        print(
            f"{'':39s}on {scored.sum()} cells beside {auto}: "
            + ", ".join(f"{q} {o / t - 1:+.1%}" for q, o, t in zip((0.5, 0.9), own, theirs, strict=True)),
            flush=True,
        )


def timed(models: int) -> None:
    """A week of minutes of many models, 10 minutes ahead; statsforecast on a few of them beside it."""
    rng = np.random.default_rng(0)
    values = np.empty((models, 7 * 1440), dtype=np.float32)
    day = (1 + np.sin(np.arange(values.shape[1]) * (2 * np.pi / 1440)) / 2).astype(np.float32)
    for start in range(0, models, 500):
        rows = values[start : start + 500]
        rows[:] = rng.standard_exponential(rows.shape, dtype=np.float32) * day
    before = time.perf_counter()
    predict(values, 60.0, 10)
    seconds = time.perf_counter() - before
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"\n{models} models x a week of minutes: {seconds:.2f} s, {peak_gb:.1f} GB at most, input and all")
    if importlib.util.find_spec("statsforecast") is None:
        print("statsforecast is not installed (pip install statsforecast): not timed, not scored")
        return
    before = time.perf_counter()
    list(autos(values[:4], 10, np.array([values.shape[1] - 1])))
    seconds = (time.perf_counter() - before) / 4
    print(
        f"statsforecast's AutoETS and AutoARIMA on 200 bins: {seconds:.2f} s a model, {models * seconds:.0f} s for all"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--origins", type=int, default=120, help="rolling origins in each cell")
    parser.add_argument("--models", type=int, default=10_000, help="models in the timing")
    arguments = parser.parse_args()
    folder = os.environ.get("DATA_DIR", "")
    traces = sorted(Path(folder).glob("*.parquet")) if folder else []
    if not traces:
        sys.exit(f"no traces: set DATA_DIR to a folder with Parquet files (DATA_DIR={folder!r}); see --help")
    timed(arguments.models)
    print("\nloss: pinball / demand; gain: against the best single peer of the cell, then against the last value")
    print(
        f"{'trace':30s} min of   {'loss 0.5    gain   v last  best peer':45s} "
        f"{'loss 0.9    gain   v last  best peer':45s}  cover  zeros"
    )
    for trace in traces:
        values, step_s = read_trace(trace)
        for horizon_min in HORIZONS_MIN:
            for is_peak in (False, True):
                score(trace.stem, values, step_s, horizon_min, is_peak, arguments.origins)


if __name__ == "__main__":
    main()
