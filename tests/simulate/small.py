"""A small scenario that tests vary: plain values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tasks.simulate.demand import Demand
from tasks.simulate.scenario import Costs, Scenario
from tasks.world import Limits, Model, Need, Objective, Pool

START = 1_800_000_000.0
GB = 10**9


def model(name: str, gigabytes: float = 2, service_ms: float = 50, load_s: float = 10, **policy: Any) -> Model:
    """50 ms: 20 requests a second at full load, 9.01 of them within 100 ms at the 95th percentile."""
    need = Need(int(gigabytes * GB), service_ms, load_s=load_s)
    return Model(name, {"gpu": need}, Objective(100.0), max_copies=20, **policy)


def flat(*rates: float, seconds: float = 14_400) -> Demand:
    """The same demand at all times, from two hours before the start."""
    return Demand(START - 7200, 30.0, np.tile(np.array(rates, dtype=np.float32), (round(seconds / 30), 1)))


def rising(before: float, after: float, at_s: float) -> Demand:
    """One model's demand with one jump, seconds after the start."""
    demand = flat(before)
    demand.rates_rps[round((7200 + at_s) / 30) :] = after
    return demand


def scenario(models: tuple[Model, ...], demand: Demand, **changes: Any) -> Scenario:
    """One pool of replicas of 10 GB (9 with headroom) that take a minute to start; every duration as declared."""
    pool = Pool("gpu", "gpu", 10 * GB, min_replicas=1, max_replicas=20, start_s=60)
    made = Scenario(
        "small", models, (pool,), demand, START, 1800.0, warmup_s=900.0, limits=Limits(budget=10), history_s=1800.0,
        costs=Costs(spread=0.0),
    )  # fmt: skip
    return replace(made, **changes)
