"""What is known of one model when it is sized, cut out of the observation's frames once for all models."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.decision import Forecast
from tasks.size.capacity import Capacity, capacities, measured_service_ms
from tasks.size.home import home
from tasks.size.learn import learn
from tasks.world import Copy, CopyState, Fleet, Learned, Limits, Model, Observation, ReplicaState, coded

Series = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Times (s) and values, both one element a sample, oldest first; no NaN."""
NONE: Series = (np.empty(0), np.empty(0))


@dataclass(slots=True, eq=False)
class Evidence:
    """Everything that one model's sizing rests on."""

    model: Model
    now: float
    limits: Limits
    demand_rps: float | None
    """The forecast's upper quantile; None: unknown."""
    horizon_s: float
    """How far ahead that is."""
    capacity_by_gpu_type: dict[str, Capacity]
    home_gpu_type: str
    """Whose capacity its copies are counted with."""
    learned_by_gpu_type: dict[str, Learned]
    current: int
    """Copies that it has, or had until its replica was lost."""
    held: int
    """Copies that it keeps as long as its demand is not known."""
    serving: int
    room: int
    """Replicas that could exist for it."""
    demand: Series
    wanted: Series
    queue_ms: float | None
    """Mean queue time over the requests of the copies that serve; None: not observed, or of too few requests."""
    queue_ms_by_copy: tuple[tuple[str, float], ...]
    """GPU type and mean queue time of each of them that served a request."""

    @property
    def most(self) -> int:
        """Copies that the policy and the replicas that could exist allow."""
        return min(self.model.max_copies, self.room)

    @property
    def capacity(self) -> Capacity:
        """Of a copy where the model is at home."""
        return self.capacity_by_gpu_type[self.home_gpu_type]


ENOUGH_REQUESTS = 20
"""Served in an interval: a mean queue time of fewer is a matter of luck."""


def gather(observation: Observation, forecasts: dict[str, Forecast], limits: Limits) -> dict[str, Evidence | None]:
    """By model; None: no pool may hold it."""
    fleet = observation.fleet
    learned = learn(observation, measured_service_ms(observation, limits.stale_s))
    demand = _by_model(observation.demand, "demand_rps")
    wanted = _by_model(observation.wanted, "copies")
    queues = _queues(observation, limits)
    there, serving = _there(fleet), Counter(copy.model for copy in fleet.copies if copy.is_serving)
    found: dict[str, Evidence | None] = {}
    for model in fleet.models:
        pools = [pool for pool in fleet.pools if model.may_live_in(pool)]
        if not pools:
            found[model.name] = None
            continue
        forecast = forecasts.get(model.name)
        queue_ms, by_copy = queues.get(model.name, (None, ()))
        known = {gpu: learned[model.name, gpu] for gpu in model.need_by_gpu_type if (model.name, gpu) in learned}
        capacity_by_gpu_type = capacities(model, {pool.gpu_type for pool in pools}, known)
        found[model.name] = Evidence(
            model=model,
            now=observation.now,
            limits=limits,
            demand_rps=forecast.upper_rps if forecast else None,
            horizon_s=forecast.horizon_s if forecast else 0.0,
            capacity_by_gpu_type=capacity_by_gpu_type,
            home_gpu_type=home(model, pools, capacity_by_gpu_type),
            learned_by_gpu_type=known,
            current=len(there.get(model.name, ())),
            held=_held(there.get(model.name, []), wanted.get(model.name, NONE)),
            serving=serving[model.name],
            room=sum(max(p.max_replicas, p.replicas) for p in pools),
            demand=demand.get(model.name, NONE),
            wanted=wanted.get(model.name, NONE),
            queue_ms=queue_ms,
            queue_ms_by_copy=by_copy,
        )
    return found


def _by_model(frame: pd.DataFrame, column: str) -> dict[str, Series]:
    """By model, in one pass: a group of pandas for each of thousands of models costs more than the rest of sizing."""
    values = frame[column].to_numpy(dtype=float)
    codes, models = coded(frame["model"])
    rows = np.flatnonzero(~np.isnan(values) & (codes >= 0))
    rows = rows[np.argsort(codes[rows], kind="stable")]
    times, values, counts = frame["time"].to_numpy(dtype=float)[rows], values[rows], np.bincount(codes[rows])
    ends = np.cumsum(counts).tolist()
    found = zip(models, [0, *ends[:-1]], ends, strict=False)
    return {str(model): (times[start:end], values[start:end]) for model, start, end in found if start < end}


def _there(fleet: Fleet) -> dict[str, list[Copy]]:
    """Each model's copies, also those that it had until they were lost: a crash must not look like a wish for fewer."""
    states = (CopyState.READY, CopyState.LOADING, CopyState.UNKNOWN)
    found: dict[str, list[Copy]] = {}
    for copy in fleet.copies:
        if copy.state in states or (copy.state is CopyState.ABSENT and copy.is_routed):
            found.setdefault(copy.model, []).append(copy)
    return found


def _held(copies: Sequence[Copy], wanted: Series) -> int:
    """Those that requests are sent to; where there are none, those that are there or come. What is ready and gets no
    requests is not yet one of them, or was moved.

    One that cannot be read counts as far as past ticks wanted so many, and as the only one: else what is placed in its
    stead would make one more of it in each tick.
    """
    lost = sum(copy.state is CopyState.UNKNOWN for copy in copies)
    routed = sum(copy.is_routed for copy in copies) - lost
    there = routed or len(copies) - lost
    remembered = int(wanted[1][-1]) if wanted[1].size else 0
    return max(there, min(there + lost, max(1, remembered)))


def _queues(observation: Observation, limits: Limits) -> dict[str, tuple[float | None, tuple[tuple[str, float], ...]]]:
    """Mean queue time (ms) over all requests, and of each copy with its GPU type, of the copies that serve and that
    were read lately."""
    ages_s = observation.age_s_by_source
    fresh = {
        replica.name: replica.gpu_type
        for replica in observation.fleet.replicas
        if replica.state is ReplicaState.READY and ages_s.get(f"traffic:{replica.name}", math.inf) <= limits.stale_s
    }
    serving = {(c.model, c.replica) for c in observation.fleet.copies if c.replica in fresh and c.is_serving}
    traffic = observation.traffic
    seen: dict[str, list[tuple[float, str, float]]] = {}
    columns = (traffic[name].tolist() for name in ("model", "replica", "served_rps", "queue_ms"))
    for model, replica, served, queue_ms in zip(*columns, strict=True):
        # NaN is not greater than zero either
        if served > 0 and not math.isnan(queue_ms) and (model, replica) in serving:
            seen.setdefault(model, []).append((served, fresh[replica], queue_ms))
    found = {}
    for model, copies in seen.items():
        rps = sum(served for served, *_ in copies)
        mean_ms = sum(served * queue_ms for served, _, queue_ms in copies) / rps
        is_enough = rps * limits.interval_s >= ENOUGH_REQUESTS
        found[model] = (mean_ms if is_enough else None, tuple((gpu, queue_ms) for _, gpu, queue_ms in copies))
    return found
