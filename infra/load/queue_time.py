"""Queue time of a run from Triton's counters in Prometheus: the responses do not carry it.

Mean queue time = queue_duration_us / request_success, over all copies of a model (Triton's metrics documentation).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from infra.load.report import QueueTime, Report, percentiles
from tasks.clients.prometheus import Prometheus, PrometheusError

WINDOW_S = 5.0
"""The local fleet's scrape interval: no finer window can be told apart."""
DURATION = "nv_inference_queue_duration_us"
COUNT = "nv_inference_request_success"


def queue_times(url: str, start: float, end: float, models: Sequence[str]) -> dict[str, QueueTime]:
    """Each model's queue time between two times (Unix s); unknown where its counters are not there.

    Raises:
        PrometheusError: Prometheus does not answer.
    """
    with Prometheus(url) as prometheus:
        duration, count = (
            prometheus.history(metric, end + WINDOW_S, end - start + 2 * WINDOW_S, WINDOW_S)
            for metric in (DURATION, COUNT)
        )
    return {model: _queue_time(_increase(duration, model), _increase(count, model)) for model in models}


def measure(report: Report, url: str) -> Report:
    """The report with queue times; where Prometheus does not answer, with a note why they are unknown."""
    start = report.clock.started_at
    try:
        times = queue_times(url, start, start + report.clock.elapsed_s, [model.model for model in report.models])
    except PrometheusError as error:
        return report.with_queue_times({}, [f"queue times are unknown: {error}"])
    return report.with_queue_times(times)


def _increase(history: pd.DataFrame, model: str) -> pd.Series[float]:
    """The increase of a model's counters in each window, over all its copies, by the window's end."""
    if "model" not in history or not (history["model"] == model).any():
        return pd.Series(dtype=float)
    counters = history[history["model"] == model]
    labels = [label for label in counters.columns if label not in ("time", "value")]
    wide = counters.assign(series=counters[labels].astype(str).agg(" ".join, axis=1)).pivot(
        index="time", columns="series", values="value"
    )
    wide = wide.reindex(np.sort(history["time"].unique()))
    before = wide.shift()
    # a series that appears in the middle is a copy that was loaded, and one that falls was loaded again: from zero
    before = before.where(before.notna() & (before <= wide), 0.0)
    increase: pd.Series[float] = (wide - before).iloc[1:].sum(axis=1)
    return increase


def _queue_time(duration_us: pd.Series[float], count: pd.Series[float]) -> QueueTime:
    if not count.sum() > 0:
        return QueueTime()
    windows_ms = (duration_us[count > 0] / count[count > 0] / 1000).tolist()
    return QueueTime(float(duration_us.sum() / count.sum() / 1000), *percentiles(windows_ms))
