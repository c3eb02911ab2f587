"""What the cheapest fleet would cost at some times of a scenario: how much of the distance to the bound can be had.

The bound divides replicas and copies; nobody can. HiGHS proves the optimum of whole ones, for each time by itself and
with nothing loaded yet; beside it is what our placement makes of the same demand from scratch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tasks.decision import Reason, Sizing
from tasks.place import place
from tasks.place.read import read
from tasks.simulate.bound import lower_bound
from tasks.simulate.policies.deployments import capacity_rps
from tasks.simulate.scenario import Scenario, fits
from tasks.world import Fleet, Observation
from tests.benchmarks.placement_yardsticks import exact

LIMIT_S = 60.0
"""For one proof."""
UNBOUNDED = 10**6
"""Loads: a fleet from scratch is no churn."""


@dataclass(frozen=True, slots=True)
class Fleets:
    """Cost an hour of fleets for the same demand."""

    hour: float
    bound: float
    proven: float
    ours: float


def optima(scenario: Scenario, every_h: float) -> list[Fleets]:
    """At some times of the scenario."""
    bound, found = lower_bound(scenario), []
    for hour in np.arange(0, scenario.duration_s / 3600, every_h).tolist():
        time = scenario.start + hour * 3600
        seen = Observation(time, Fleet(scenario.models, scenario.pools, (), ()))
        sizings = _sizings(scenario, time)
        placed = place(seen, sizings, replace(scenario.limits, budget=UNBOUNDED))
        ours = sum(pool.cost_per_hour * placed.replicas_by_pool[pool.name] for pool in scenario.pools)
        best = exact(read(seen, sizings, scenario.limits), ours, LIMIT_S)
        least = bound.cost_per_hour[round(hour * 3600 / scenario.limits.interval_s)]
        found.append(Fleets(hour, float(least), best.proven, ours))
    return found


def _sizings(scenario: Scenario, time: float) -> tuple[Sizing, ...]:
    """As the tick sizes, for the demand that there is."""
    found, rates = [], scenario.demand.mean(time, time + scenario.limits.interval_s)
    for m, (model, rps) in enumerate(zip(scenario.models, rates.tolist(), strict=True)):
        homes = [pool for pool in scenario.pools if model.may_live_in(pool) and fits(model, pool)]
        capacity = {pool.gpu_type: capacity_rps(scenario, m, pool) for pool in homes}
        copies = max(model.min_copies, math.ceil(round(rps / min(capacity.values()), 9)))
        found.append(Sizing(model.name, copies, rps, capacity, Reason("demand", "as it comes")))
    return tuple(found)
