"""Forecasts against their peers on real traces, by rolling origin, in one run.

    DATA_DIR=traces python -m tests.benchmarks.bench_forecast [--forecasts 3000] [--models 10000]

``DATA_DIR`` holds Parquet files with the columns ``timestamp`` (s), ``model`` and ``requests`` (a count in the bin that
starts there; an absent row was not observed). Each cell is the pinball loss as a share of all demand, and how far it is
from the best single peer of that trace. Every peer gets its upper quantile as fairly as we do: from its own last 240
errors. Exponential smoothing is tuned with hindsight: the best of seven constants counts. A trace of few models is
forecast from more origins: a cell of a few hundred forecasts changes by more than what it is to show.
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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
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
LEAST_ORIGINS = 120
GOAL = -0.1
"""Loss against the best single peer's."""
COVER = (0.88, 0.92)
AUTO_FORECASTS = 60
"""In a cell, of statsforecast's models: some take a second each."""
TIMED_AUTOS = 40
"""Models of which the time is taken: it differs tenfold from one to the next."""
HAS_STATSFORECAST = importlib.util.find_spec("statsforecast") is not None
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


def autos(values: Matrix, ahead: int, origins: Matrix) -> Iterator[tuple[str, Said, float]]:
    """statsforecast's AutoETS and AutoARIMA, fitted anew at each origin on the last 200 bins, and their seconds of
    processor time a forecast. Only where installed.
    """
    if not HAS_STATSFORECAST:
        return
    from statsforecast.models import AutoARIMA, AutoETS

    for model in (AutoETS(season_length=1), AutoARIMA(season_length=1)):
        median = np.full((len(values), len(origins)), np.nan, dtype=np.float32)
        upper, began = median.copy(), time.process_time()
        for column, origin in enumerate(origins):
            recent = last_value(values[:, max(0, origin - 199) : origin + 1])
            for row in range(len(values)):
                seen = recent[row][np.isfinite(recent[row])].astype(float)
                if len(seen) < 20:
                    continue
                said = model.forecast(seen, h=ahead, level=[80])
                median[row, column], upper[row, column] = np.asarray(said["mean"])[-1], np.asarray(said["hi-80"])[-1]
        seconds = (time.process_time() - began) / median.size
        yield type(model).__name__, (np.maximum(median, 0), np.maximum(upper, 0)), seconds


def losses(truth: Matrix, said: Said, is_scored: NDArray[np.bool_]) -> tuple[float, float]:
    """Pinball loss at 0.5 and at 0.9, as shares of all demand."""
    total = truth[is_scored].sum()
    median, upper = (pinball(truth, value, q)[is_scored].sum() for value, q in zip(said, (0.5, 0.9), strict=True))
    return float(median / total), float(upper / total)


@dataclass(frozen=True, slots=True)
class Task:
    """One cell of the table: a trace, a horizon, and the bin's value or the peak until then."""

    trace: Path
    horizon_min: int
    is_peak: bool
    forecasts: int


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of it."""

    gains: tuple[float, float]
    """At 0.5 and at 0.9, against the best single peer."""
    over_last: tuple[float, float]
    """The same against the last value."""
    covered: float
    lines: tuple[str, ...]


def score(task: Task) -> Cell:
    values, step_s = read_trace(task.trace)
    ahead = max(1, round(task.horizon_min * 60 / step_s))
    width = ahead if task.is_peak else 1
    truth = rolling_peak(values, width)
    first, last = int(values.shape[1] * 0.4) + ahead, values.shape[1] - ahead - 1
    count = max(LEAST_ORIGINS, task.forecasts // len(values))
    origins = np.unique(np.linspace(first, last, count).astype(int))
    came = truth[:, origins + ahead]
    by_peer = {peer: with_upper(said, truth, origins, ahead) for peer, said in peers(truth, step_s, ahead).items()}
    said = ours(values, step_s, ahead, width, origins)
    # every method is scored on the same cells
    is_scored = np.isfinite(came) & np.isfinite(said[0])
    for peer in by_peer.values():
        is_scored &= np.isfinite(peer[0])
    cell = compared(task, came, said, by_peer, is_scored)
    beside = () if task.is_peak else beside_autos(values, ahead, origins, came, said, is_scored)
    return replace(cell, lines=(*cell.lines, *beside))


def compared(task: Task, came: Matrix, said: Said, by_peer: dict[str, Said], is_scored: NDArray[np.bool_]) -> Cell:
    """The cell with its line of the table."""
    table = {peer: losses(came, theirs, is_scored) for peer, theirs in by_peer.items()}
    mine, gains, over_last, columns = losses(came, said, is_scored), [], [], ""
    for at in (0, 1):
        best = min(table, key=lambda peer, at=at: table[peer][at])  # type: ignore[misc]
        gains.append(mine[at] / table[best][at] - 1)
        over_last.append(mine[at] / table["last value"][at] - 1)
        name = best.replace("smoothing over", "ewm")
        columns += f" {mine[at]:8.4f} {gains[at]:+7.1%} {over_last[at]:+7.1%} {name:20s}"
    covered = float((came <= said[1])[is_scored & (came > 0)].mean())
    zeros = float((is_scored & (came == 0)).sum() / is_scored.sum())
    what = "peak" if task.is_peak else "bin"
    line = f"{task.trace.stem:30.30s} {task.horizon_min:3d} {what:4s}{columns} {covered:6.1%} {zeros:6.1%}"
    return Cell((gains[0], gains[1]), (over_last[0], over_last[1]), covered, (line,))


def beside_autos(
    values: Matrix, ahead: int, origins: Matrix, came: Matrix, said: Said, is_scored: NDArray[np.bool_]
) -> tuple[str, ...]:
    """A line for each of statsforecast's, on the few cells for which there is time."""
    columns = np.arange(0, len(origins), max(1, len(origins) * len(values) // AUTO_FORECASTS))
    lines = []
    for name, theirs, seconds in autos(values, ahead, origins[columns]):
        scored = is_scored[:, columns] & np.isfinite(theirs[0])
        own = losses(came[:, columns], (said[0][:, columns], said[1][:, columns]), scored)
        gains = [o / t - 1 for o, t in zip(own, losses(came[:, columns], theirs, scored), strict=True)]
        lines.append(
            f"{'':35s}beside {name} on {scored.sum()} forecasts: {gains[0]:+7.1%} at 0.5, {gains[1]:+7.1%} at 0.9; "
            f"it took {seconds * 1000:.0f} ms a forecast"
        )
    return tuple(lines)


def timed(models: int) -> None:
    """A week of minutes of many models, 10 minutes ahead; statsforecast on a few of them beside it."""
    rng = np.random.default_rng(0)
    values = np.empty((models, 7 * 1440), dtype=np.float32)
    day = (1 + np.sin(np.arange(values.shape[1]) * (2 * np.pi / 1440)) / 2).astype(np.float32)
    for start in range(0, models, 500):
        rows = values[start : start + 500]
        rows[:] = rng.standard_exponential(rows.shape, dtype=np.float32) * day
    before, busy_before = time.perf_counter(), time.process_time()
    predict(values, 60.0, 10)
    seconds, busy_s = time.perf_counter() - before, time.process_time() - busy_before
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(
        f"\n{models} models x a week of minutes: {seconds:.2f} s ({busy_s:.2f} s of processor time), "
        f"{peak_gb:.1f} GB at most, input and all"
    )
    if not HAS_STATSFORECAST:
        print("statsforecast is not installed here (the extra `bench` of pyproject.toml): not timed, not scored")
    now = np.array([values.shape[1] - 1])
    list(autos(values[:1], 10, now))  # compiles
    for name, _, each_s in autos(values[: min(models, TIMED_AUTOS)], 10, now):
        print(
            f"statsforecast's {name} on their last 200 bins: {each_s * 1000:.0f} ms of processor time each, "
            f"{models * each_s:.0f} s for all: {models * each_s / busy_s:.0f} times ours"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forecasts", type=int, default=3000, help="in each cell, of all its models together")
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
    tasks = [
        Task(trace, horizon_min, is_peak, arguments.forecasts)
        for trace in traces
        for horizon_min in HORIZONS_MIN
        for is_peak in (False, True)
    ]
    cells = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for cell in pool.map(score, tasks):
            print(*cell.lines, sep="\n", flush=True)
            cells.append(cell)
    gains, over_last = (np.array([getattr(cell, field) for cell in cells]) for field in ("gains", "over_last"))
    covered = np.array([cell.covered for cell in cells])
    print(
        f"\nof {gains.size} losses: {(gains <= GOAL).sum()} at least {-GOAL:.0%} below the best single peer, "
        f"{(over_last > 0).sum()} above the last value's; of {len(cells)} coverages "
        f"{((covered >= COVER[0]) & (covered <= COVER[1])).sum()} within {COVER[0]:.0%} to {COVER[1]:.0%}"
    )


if __name__ == "__main__":
    main()
