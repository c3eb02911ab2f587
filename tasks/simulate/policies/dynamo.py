"""Dynamo's planner for each model's own deployment: forecast the next interval, divide by what a replica serves.

Rules and constants (ai-dynamo/dynamo, ``components/src/dynamo/planner``, and its planner design document): every
``throughput_adjustment_interval`` of 180 s the planner reads the request count of the interval, forecasts the next one,
and sets replicas = ceil(forecast rate / what one replica serves within its SLA), at least ``min_endpoint`` 1; no
smoothing, no stabilisation. What a replica serves is known from profiling, here the capacity within the objective. Of
its predictors the Kalman filter is taken: a local level with a trend, here with the steady-state gains of Holt's
smoothing. Each worker has GPUs of its own, and each model a planner of its own: it knows nothing of the others.
The correction factor stays 1: the profile is exact here. Its one safety is an SLA that is stricter than what is wanted
(``ttft``, ``itl``): what a replica serves within that, as a share of what it serves within the objective, is tuned.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tasks.simulate.demand import Floats
from tasks.simulate.fleet import SimulatedFleet
from tasks.simulate.policies.deployments import Deployments, capacity_rps, cheapest_pool
from tasks.simulate.traffic import Gateway

INTERVAL_S = 180.0
LEVEL_GAIN, TREND_GAIN = 0.5, 0.1
"""Holt's smoothing in steady state for a level that changes as much as it is noisy."""


@dataclass(slots=True, eq=False)
class Dynamo:
    """A planner a model."""

    sla: float = 1.0
    name: str = "Dynamo's planner, one a model"
    period_s: float = INTERVAL_S
    holds_cold: bool = False
    is_busy: bool = False
    _fleet: SimulatedFleet = field(init=False)
    _gateway: Gateway = field(init=False)
    _deployments: Deployments = field(init=False)
    _capacity_rps: Floats = field(init=False)
    _level: Floats | None = None
    _trend: Floats = field(init=False)

    def begin(self, fleet: SimulatedFleet, gateway: Gateway) -> None:
        self._fleet, self._gateway = fleet, gateway
        models = range(len(fleet.scenario.models))
        pools = [cheapest_pool(fleet.scenario, model, is_shared=False) for model in models]
        self._deployments = Deployments(fleet, pools, [[model] for model in models])
        self._capacity_rps = np.array(
            [self.sla * capacity_rps(fleet.scenario, model, fleet.scenario.pools[pools[model]]) for model in models]
        )
        self._deployments.set(np.ones(len(pools), dtype=int))

    def tick(self) -> None:
        if not self._gateway.counts:
            return
        rate = self._gateway.recent(self._gateway.counts, INTERVAL_S) / self._fleet.scenario.costs.step_s
        if self._level is None:
            self._level, self._trend = rate, np.zeros_like(rate)
        level = LEVEL_GAIN * rate + (1 - LEVEL_GAIN) * (self._level + self._trend)
        self._trend = TREND_GAIN * (level - self._level) + (1 - TREND_GAIN) * self._trend
        self._level = level
        forecast = np.maximum(level + self._trend, 0)
        self._deployments.set(np.maximum(np.ceil(np.round(forecast / self._capacity_rps, 9)), 1).astype(int))
