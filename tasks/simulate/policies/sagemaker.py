"""SageMaker's target tracking on each model's invocations a copy, with managed instances under the copies.

Rules and constants:
- the metric is ``SageMakerInferenceComponentInvocationsPerCopy``, a minute's invocations over the copies; the target is
  what a copy can serve x a safety factor, 0.5 unless one knows better (Amazon SageMaker Developer Guide, *Load testing
  your auto scaling configuration*); it is tuned here, the best of several factors is reported.
- CloudWatch alarms of target tracking: out after 3 minutes in a row above the target, in after 15 minutes in a row
  below 90 % of it; capacity becomes ceil(metric x copies / target); cooldowns of 300 s (Application Auto Scaling User
  Guide, *How target tracking scaling works*, and the defaults for SageMaker).
- instances are added where copies do not fit and removed when they are empty; at most every 20 minutes one is emptied
  when its copies fit elsewhere (managed instance scaling).
Copies share an instance's GPU here, each with the compute that its target takes, or twice its model's usual demand if
that is less. SageMaker gives out whole accelerators unless models share one container: this is kinder to it than its
documentation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tasks.simulate.demand import Floats
from tasks.simulate.fleet import SimulatedFleet
from tasks.simulate.policies.deployments import capacity_rps, cheapest_pool, usual_rps
from tasks.simulate.policies.shelves import Shelves
from tasks.simulate.traffic import Gateway

MINUTE_S = 60.0
OUT_MINUTES, IN_MINUTES, IN_SHARE = 3, 15, 0.9
COOLDOWN_S = 300.0
CONSOLIDATE_S = 1200.0


@dataclass(slots=True, eq=False)
class SageMaker:
    """Target tracking a model; copies packed on shared instances."""

    safety: float = 0.5
    name: str = "SageMaker's target tracking a copy"
    period_s: float = MINUTE_S
    holds_cold: bool = False
    is_busy: bool = False
    _fleet: SimulatedFleet = field(init=False)
    _gateway: Gateway = field(init=False)
    _shelves: Shelves = field(init=False)
    _target_rps: Floats = field(init=False)
    _changed: Floats = field(init=False)
    """When each model's count was last changed."""
    _minutes: list[Floats] = field(default_factory=list)
    """The metric over the target, (models,) a minute."""
    _consolidated: float = 0.0

    def begin(self, fleet: SimulatedFleet, gateway: Gateway) -> None:
        self._fleet, self._gateway = fleet, gateway
        scenario = fleet.scenario
        models = range(len(scenario.models))
        pools = [scenario.pools[cheapest_pool(scenario, m, is_shared=True)] for m in models]
        self._target_rps = np.array([capacity_rps(scenario, m, pools[m]) * self.safety for m in models])
        device = [scenario.models[m].need_by_gpu_type[pools[m].gpu_type].device_s_per_request for m in models]
        reserved_rps = np.minimum(self._target_rps, 2 * usual_rps(scenario))
        self._shelves = Shelves(fleet, [reserved_rps[m] * device[m] for m in models])
        self._changed = np.full(len(models), -np.inf)
        for model in models:
            for _ in range(max(1, scenario.models[model].min_copies)):
                self._shelves.add(model)

    def tick(self) -> None:
        if not self._gateway.counts:
            return
        self._shelves.tidy()
        copies = np.array([self._shelves.count(m) for m in range(len(self._target_rps))])
        rate = self._gateway.recent(self._gateway.counts, MINUTE_S) / self._fleet.scenario.costs.step_s
        load = rate / np.maximum(copies, 1) / self._target_rps
        self._minutes = [*self._minutes[-(IN_MINUTES - 1) :], load]
        wanted = np.maximum(np.ceil(np.round(load * np.maximum(copies, 1), 9)), 1)
        is_cool = self._fleet.now - self._changed >= COOLDOWN_S
        is_high = np.min(self._minutes[-OUT_MINUTES:], axis=0) > 1
        is_low = (np.max(self._minutes, axis=0) < IN_SHARE) & (len(self._minutes) >= IN_MINUTES)
        for model in np.flatnonzero((copies == 0) | (is_cool & (is_high | is_low))).tolist():
            self._set(model, int(copies[model]), int(wanted[model]))
        self._consolidate()

    def _set(self, model: int, now: int, wanted: int) -> None:
        if wanted != now:
            self._changed[model] = self._fleet.now
        for _ in range(wanted - now):
            self._shelves.add(model)
        for _ in range(now - wanted):
            self._shelves.drop(model)

    def _consolidate(self) -> None:
        """An instance is emptied; it goes a period later, when its copies have been loaded elsewhere."""
        if self._fleet.now - self._consolidated >= CONSOLIDATE_S:
            self._consolidated = self._fleet.now
            self._shelves.consolidate()
        elif self._fleet.now - self._consolidated >= COOLDOWN_S:
            self._shelves.finish()
