"""What Prometheus knows: demand, traffic a copy, what past ticks wanted, and loads that failed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from tasks.clients.prometheus import Prometheus, PrometheusError
from tasks.config import Config
from tasks.observe.copies import Suspect
from tasks.sections import LimitsSection
from tasks.world import (
    DEMAND_COLUMNS,
    LEARNED_COLUMNS,
    TRAFFIC_COLUMNS,
    WANTED_COLUMNS,
    LearnedFootprint,
    LoadFailure,
    Unknown,
    empty_frame,
)

FAILURES = 2
"""More than one: a single odd request is not a broken copy."""
LATE = 3 / 8
"""Share of a window without a sample: of its four scrapes or more, one may be late, none missing."""
NOT_THE_COPYS = "CANCELED|REJECTED"
"""Reasons of failures that are the client's, or a full queue's."""

ByCopy = dict[tuple[str, str], float]
"""A number by model and replica."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """What was read; without arguments: nothing."""

    demand: pd.DataFrame = field(default_factory=lambda: empty_frame(DEMAND_COLUMNS))
    traffic: pd.DataFrame = field(default_factory=lambda: empty_frame(TRAFFIC_COLUMNS))
    wanted: pd.DataFrame = field(default_factory=lambda: empty_frame(WANTED_COLUMNS))
    learned: pd.DataFrame = field(default_factory=lambda: empty_frame(LEARNED_COLUMNS))
    footprints: Mapping[tuple[str, str], LearnedFootprint] = field(default_factory=dict)
    load_failures: tuple[LoadFailure, ...] = ()
    age_s_by_source: Mapping[str, float] = field(default_factory=dict)
    suspects: tuple[Suspect, ...] = ()
    unknown: tuple[Unknown, ...] = ()


def read_series(url: str, config: Config, models: list[str], now: float) -> Series:
    """Ask everything at the same time. A query that fails leaves its part out, and says so in ``unknown``."""
    metrics, limits = config.metrics, config.limits
    demand_query = covered(metrics.demand_query, metrics.window_s)
    span_s = metrics.window_s / 2
    instant = _traffic_queries(metrics.window_s) | _suspect_queries(span_s) | _FAILURE_QUERIES | _TIME_QUERIES
    with Prometheus(url) as prometheus, ThreadPoolExecutor(8, thread_name_prefix="prometheus") as pool:
        demand = pool.submit(prometheus.history, demand_query, now, metrics.history_s, metrics.step_s)
        needed = _needed_query(limits)
        wanted = pool.submit(prometheus.history, needed, now, limits.stabilisation_s, limits.interval_s / 2)
        asked = {name: pool.submit(prometheus.instant, query, now) for name, query in instant.items()}
        learned, footprints = (
            {name: pool.submit(prometheus.instant, query, now) for name, query in queries.items()}
            for queries in (_SERVICE_QUERIES, _FOOTPRINT_QUERIES)
        )
    answers = (demand, wanted, *asked.values(), *learned.values(), *footprints.values())
    errors = [str(e) for answer in answers if (e := _error(answer)) is not None]
    values = {name: _by_copy(_frame(answer)) for name, answer in asked.items()}
    can_suspect = not any(_error(asked[name]) for name in _suspect_queries(span_s))
    series = Series(
        traffic=_traffic(values),
        wanted=wanted_frame(_frame(wanted)),
        learned=joined({name: _frame(answer) for name, answer in learned.items()}),
        footprints=learned_footprints({name: _frame(answer) for name, answer in footprints.items()}),
        load_failures=_load_failures(values),
        age_s_by_source={f"traffic:{replica}": now - at for (_, replica), at in values["sampled_at"].items()},
        suspects=_suspects(values, span_s) if can_suspect else (),
        unknown=tuple(Unknown("prometheus", error) for error in dict.fromkeys(errors)),
    )
    if _error(demand) is not None:
        return series
    history = demand_frame(demand.result(), models, now, metrics.step_s, metrics.history_s)
    ages = demand_ages(history, now)
    return replace(
        series,
        demand=history,
        age_s_by_source={**series.age_s_by_source, **ages},
        unknown=(*series.unknown, *stale(ages, models, limits.stale_s, metrics.history_s)),
    )


def _error(answer: Future[pd.DataFrame]) -> PrometheusError | None:
    """Why there is no answer. Anything but a Prometheus error is a bug, and raised."""
    error = answer.exception()
    if error is None or isinstance(error, PrometheusError):
        return error
    raise error


def _frame(answer: Future[pd.DataFrame]) -> pd.DataFrame:
    """The answer, without rows if there is none."""
    return pd.DataFrame({"value": np.array([], dtype=float)}) if _error(answer) is not None else answer.result()


_FAILURE_QUERIES = {
    "load_failures": "max by (model, replica) (triton_placement_load_failures)",
    "load_failed_at": "max by (model, replica) (triton_placement_load_failed_timestamp_seconds)",
}
_TIME_QUERIES = {"sampled_at": "max by (replica) (timestamp(nv_inference_request_success))"}


def _needed_query(limits: LimitsSection) -> str:
    """What the last tick needed, until the next one should have told: an interval, its own time, and the time that the
    next may act, after it observed. A Pushgateway repeats it for ever."""
    age, own = "time() - max(triton_placement_tick_timestamp_seconds)", "sum(triton_placement_tick_seconds)"
    is_new = f"{age} - {own} <= {limits.interval_s + limits.act_s:g}"
    return f"max by (model) (triton_placement_copies_needed) and on() ({is_new})"


def _learned_queries(**metric_by_column: str) -> dict[str, str]:
    return {
        column: f"max by (model, gpu_type) (triton_placement_{metric})" for column, metric in metric_by_column.items()
    }


_SERVICE_QUERIES = _learned_queries(service_ms="service_ms", spread_ms="service_spread_ms", windows="service_windows")
_FOOTPRINT_QUERIES = _learned_queries(
    footprint_bytes="footprint_bytes",
    spread_bytes="footprint_spread_bytes",
    looks="footprint_looks",
    last_at="footprint_timestamp_seconds",
)


def _traffic_queries(window_s: float) -> dict[str, str]:
    def rate(metric: str) -> str:
        return f"sum by (model, replica) (rate({metric}[{_duration(window_s)}]))"

    compute = [f"nv_inference_compute_{part}_duration_us" for part in ("input", "infer", "output")]
    return {
        "served_rps": rate("nv_inference_request_success"),
        "failed_rps": rate("nv_inference_request_failure"),
        "executions": rate("nv_inference_exec_count"),
        "queue_us": rate("nv_inference_queue_duration_us"),
        "service_us": " + ".join(rate(metric) for metric in compute),
    }


def _suspect_queries(span_s: float) -> dict[str, str]:
    """Half a window is enough to judge, and shows a copy that broke the sooner."""
    span = _duration(span_s)
    own = f'nv_inference_request_failure{{reason!~"{NOT_THE_COPYS}"}}'
    return {
        "failed": f"sum by (model, replica) (increase({own}[{span}]))",
        "served": f"sum by (model, replica) (increase(nv_inference_request_success[{span}]))",
    }


def covered(query: str, window_s: float) -> str:
    """The demand query with its window filled in, answered only where samples cover the window.

    Where scrapes stop or begin, ``rate`` divides what it saw of a window by all of it: demand would seem to fall. So
    both ends of the window must have a sample of the metric in front of ``[{window}]``, of any of its series.
    """
    filled = query.replace("{window}", _duration(window_s))
    metric = re.search(r"([a-zA-Z_:][\w:]*(?:\{[^{}]*\})?)\[\{window\}\]", query)
    if metric is None:
        return filled
    ends = ((metric[1], 0.0), (f"{metric[1]} offset {_duration(window_s)}", window_s))
    fresh = (f"(time() - {before_s:g} - max(timestamp({sample})) <= {LATE * window_s:g})" for sample, before_s in ends)
    return " and on() ".join((f"({filled})", *fresh))


def demand_frame(answer: pd.DataFrame, models: list[str], now: float, step_s: float, history_s: float) -> pd.DataFrame:
    """Every model at every bin of the history, NaN where nothing was observed. Columns ``DEMAND_COLUMNS``."""
    bins = math.ceil(history_s / step_s)
    times = now - step_s * np.arange(bins, -1, -1)
    values = np.full((len(models), bins + 1), np.nan)
    if len(answer) and "model" in answer:
        answer = answer[answer["model"].isin(models)]
        row = answer["model"].map({model: i for i, model in enumerate(models)}).to_numpy(dtype=int)
        column = np.rint((answer["time"].to_numpy() - times[0]) / step_s).astype(int)
        values[row, column] = answer["value"].to_numpy()
    return pd.DataFrame(
        {
            "time": np.tile(times, len(models)),
            "model": pd.Series(np.repeat(np.array(models, dtype=object), bins + 1), dtype=object),
            "demand_rps": values.ravel(),
        }
    )


def wanted_frame(answer: pd.DataFrame) -> pd.DataFrame:
    """Copies wanted by past ticks, one row where there was one. Columns ``WANTED_COLUMNS``."""
    if "model" not in answer:
        return empty_frame(WANTED_COLUMNS)
    frame = answer.rename(columns={"value": "copies"}).dropna(subset=["copies"])
    return frame.sort_values(["model", "time"], ignore_index=True)[list(WANTED_COLUMNS)]


def joined(answers: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What past ticks learned, where all of it is there: ``model``, ``gpu_type`` and a column an answer."""
    keys = ["model", "gpu_type"]
    if not all({*keys} <= set(answer) for answer in answers.values()):
        return empty_frame((*keys, *answers))
    columns = [answer.set_index(keys)["value"].rename(name) for name, answer in answers.items()]
    return pd.concat(columns, axis=1, join="inner").dropna().reset_index()


def learned_footprints(answers: Mapping[str, pd.DataFrame]) -> dict[tuple[str, str], LearnedFootprint]:
    """The same of footprints, by model and GPU type."""
    rows = joined(answers).itertuples(index=False)
    return {(str(m), str(g)): LearnedFootprint(float(b), float(s), int(n), float(at)) for m, g, b, s, n, at in rows}


def _by_copy(answer: pd.DataFrame) -> ByCopy:
    """The answer's values by model and replica; a label that a series does not have is empty."""
    labels = [answer[label].fillna("") if label in answer else [""] * len(answer) for label in ("model", "replica")]
    return {(str(model), str(replica)): float(v) for model, replica, v in zip(*labels, answer["value"], strict=True)}


def _traffic(values: Mapping[str, ByCopy]) -> pd.DataFrame:
    """Mean time = time spent a second / requests a second, microseconds to milliseconds; NaN without requests.

    Requests that are executed together are each counted with the whole time of their batch: a request's share of the
    instance's time is that, divided by the requests of an execution; unknown where the executions are.
    """
    nan = math.nan
    rows = []
    for copy in sorted(values["served_rps"]):
        served = values["served_rps"][copy]
        queue_ms, service_ms = (
            values[name].get(copy, nan) / served / 1000 if served else nan for name in ("queue_us", "service_us")
        )
        executions = values["executions"].get(copy, nan)
        together = np.maximum(1.0, served / executions if executions else 1.0)
        rows.append((*copy, served, values["failed_rps"].get(copy, nan), queue_ms, service_ms / together))
    return pd.DataFrame(rows, columns=list(TRAFFIC_COLUMNS)) if rows else empty_frame(TRAFFIC_COLUMNS)


def _suspects(values: Mapping[str, ByCopy], span_s: float) -> tuple[Suspect, ...]:
    """Copies where requests failed and none was served: what is broken fails them all, a client only its own."""
    return tuple(
        Suspect(*copy, failed, span_s)
        for copy, failed in values["failed"].items()
        if failed >= FAILURES and not values["served"].get(copy)
    )


def _load_failures(values: Mapping[str, ByCopy]) -> tuple[LoadFailure, ...]:
    at = values["load_failed_at"]
    failures = values["load_failures"].items()
    return tuple(LoadFailure(*copy, int(count), at[copy]) for copy, count in failures if count > 0 and copy in at)


def demand_ages(demand: pd.DataFrame, now: float) -> dict[str, float]:
    """Seconds since the newest bin with a value, which is up to ``LATE`` windows after its newest sample."""
    newest = demand.dropna(subset=["demand_rps"]).groupby("model")["time"].max()
    return {f"demand:{model}": float(now - time) for model, time in newest.items()}


def stale(ages: Mapping[str, float], models: list[str], limit_s: float, history_s: float) -> tuple[Unknown, ...]:
    """Prometheus as a whole when no model has a fresh sample, else each model that has none."""
    age = {model: ages.get(f"demand:{model}", math.inf) for model in models}
    if models and min(age.values()) > limit_s:
        return (Unknown("prometheus", _too_old(min(age.values()), limit_s, history_s)),)
    return tuple(Unknown(f"model:{m}", _too_old(a, limit_s, history_s)) for m, a in age.items() if a > limit_s)


def _too_old(age_s: float, limit_s: float, history_s: float) -> str:
    if math.isinf(age_s):
        return f"no demand sample in the last {history_s:g} s: check metrics.demand_query and the gateway's scrape"
    return f"newest demand sample is {age_s:.0f} s old, limit {limit_s:g} s"


def _duration(seconds: float) -> str:
    """As PromQL writes it."""
    return f"{round(seconds * 1000)}ms"
