"""Fleets of one model, told in one line. Its copies take 50 ms a request and must keep 95 % of the waits under 50 ms.

By M/D/1 such a copy takes 4.644 req/s of its 20: 0.2322 * exp(-(20 - 4.644) * 0.05 s * 2) = 5 %, and its mean wait is
then 0.2322 / (20 - 4.644) / 2 = 7.56 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from tasks.decision import Forecast, Sizing
from tasks.size import size
from tasks.world import (
    DEMAND_COLUMNS,
    LEARNED_COLUMNS,
    TRAFFIC_COLUMNS,
    WANTED_COLUMNS,
    Copy,
    CopyState,
    Fleet,
    Limits,
    Model,
    Need,
    Objective,
    Observation,
    Pool,
    Replica,
)

NOW = 1_800_000_000.0
CAPACITY_RPS = 4.644
MEAN_WAIT_MS = 7.56
LIMITS = Limits(interval_s=30, stale_s=60, stabilisation_s=300, margin=0.15)
NEED = Need(100_000_000, 50.0)
POOL = Pool("small", "small", 10**9, max_replicas=8)

Row = tuple[float, float, float]
"""Traffic of a copy: served (req/s), mean queue time (ms), mean service time (ms)."""


def seen(  # every part of an observation that a sizing may rest on
    copies: int = 1,
    *,
    states: Sequence[CopyState] = (),
    traffic: Sequence[Row] = (),
    age_s: float | None = 0.0,
    needed: Sequence[tuple[float, int]] | None = None,
    asked: Sequence[tuple[float, float]] = ((0, 1.0),),
    pools: Sequence[Pool] = (),
    learned: Sequence[tuple[str, float, float, int]] = (),
    need: Need = NEED,
    pools_allowed: frozenset[str] | None = None,
    **policy: Any,
) -> Observation:
    """One copy a replica, all serving unless ``states`` says otherwise.

    ``needed`` and ``asked`` are (seconds ago, value), ``needed`` None: as many as there are, all the time; ``age_s`` is
    the traffic's, None: not known; ``learned`` is (GPU type, ms, spread, windows).
    """
    states = states or [CopyState.READY] * copies
    pools = pools or [replace(POOL, replicas=len(states))]
    model = Model("m", {pool.gpu_type: need for pool in pools}, Objective(50.0, 95.0), pools=pools_allowed, **policy)
    replicas = [Replica(f"small-{i}", pools[0].name, pools[0].gpu_type, 10**9, 1.0) for i in range(len(states))]
    there = [Copy("m", r.name, state, is_routed=True) for r, state in zip(replicas, states, strict=True)]
    if needed is None:
        needed = [(age, len(states)) for age in range(300, -1, -15)]
    rows = zip(replicas, traffic, strict=False)
    return Observation(
        now=NOW,
        fleet=Fleet((model,), tuple(pools), tuple(replicas), tuple(there)),
        demand=pd.DataFrame([(NOW - ago, "m", rps) for ago, rps in asked], columns=list(DEMAND_COLUMNS)),
        traffic=pd.DataFrame(
            [("m", r.name, served, 0.0, queue, service) for r, (served, queue, service) in rows],
            columns=list(TRAFFIC_COLUMNS),
        ),
        wanted=pd.DataFrame([(NOW - ago, "m", float(n)) for ago, n in needed], columns=list(WANTED_COLUMNS)),
        learned=pd.DataFrame([("m", *known) for known in learned], columns=list(LEARNED_COLUMNS)),
        age_s_by_source={} if age_s is None else {f"traffic:{r.name}": age_s for r in replicas},
    )


def sized(observation: Observation, upper_rps: float | None, limits: Limits = LIMITS) -> Sizing:
    """The model's sizing at this upper quantile of its demand; None: the forecast is unknown."""
    median = None if upper_rps is None else upper_rps * 0.8
    (sizing,) = size(observation, [Forecast("m", median, upper_rps, 90.0, "level")], limits)
    return sizing
