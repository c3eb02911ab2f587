"""The least that any policy could have paid: each interval's demand packed by itself, nothing ever started or loaded.

Capacity and room are those that the decisions use: the load at which a copy just meets its objective, and memory and
compute less the headroom that the configuration keeps free.

A replica of pool p gives memory M and compute C for its cost c. For any prices a a byte and b a device-second with
a M + b C <= c in every pool, what a model needs, valued at these prices in the pool where that is least, costs at most
what any placement pays for it (linear programming duality; Bertsimas and Tsitsiklis, *Introduction to Linear
Optimization*, 1997, ch. 4). Each pool's cost is divided by one number w between its memory and its compute; the bound
is concave in w, and climbed by its supergradients. With one pool it is the larger of memory and compute, in replicas.

Worked example, one pool of 100 GB and 1 device: 30 copies of 10 GB at 0.01 each need 3.0 replicas of memory and 0.3 of
compute: 3 replicas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tasks.simulate.demand import Floats
from tasks.simulate.scenario import Scenario, fits
from tasks.size.queueing import Station

ASCENTS, STRIDE = 100, 0.25
"""Steps up the bound, each along its supergradient and ever smaller: within 1 % of the best on small cases."""
NEVER = 1e12
"""The cost of what cannot be."""


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """The lower bound, interval by interval."""

    time: Floats
    cost_per_hour: Floats

    @property
    def mean_per_hour(self) -> float:
        return float(self.cost_per_hour.mean())


@dataclass(frozen=True, slots=True, eq=False)
class _Needs:
    """Of every model in every pool, (pools, models); infinite where it may not live."""

    capacity_rps: Floats
    memory: Floats
    """One copy, as a share of a replica's room."""
    compute: Floats
    """One request a second, as a share of a replica's room."""
    min_copies: Floats


def lower_bound(scenario: Scenario) -> Bound:
    """The bound of each of the scenario's intervals, at its mean demand."""
    needs = _needs(scenario)
    interval_s = scenario.limits.interval_s
    times = np.array([scenario.start + interval_s * i for i in range(round(scenario.duration_s / interval_s))])
    costs = np.array([pool.cost_per_hour for pool in scenario.pools])
    shares = np.full(len(costs), 0.5)
    found = []
    for time in times:
        rates = scenario.demand.mean(time, time + interval_s)
        shares, value = _best(needs, rates, costs, shares)
        least = sum(pool.min_replicas * pool.cost_per_hour for pool in scenario.pools)
        found.append(max(value, least, _most_copies(needs, rates) * float(costs.min())))
    return Bound(times, np.array(found))


def _needs(scenario: Scenario) -> _Needs:
    shape = (len(scenario.pools), len(scenario.models))
    capacity, memory, compute = (np.full(shape, math.inf) for _ in range(3))
    for p, pool in enumerate(scenario.pools):
        for m, model in enumerate(scenario.models):
            if not (model.may_live_in(pool) and fits(model, pool)):
                continue
            need = model.need_by_gpu_type[pool.gpu_type]
            station = Station(need.service_ms / 1000, need.instances, need.service_cv2)
            capacity[p, m] = station.capacity_rps(model.objective)
            memory[p, m] = need.footprint_bytes / (pool.memory_bytes * (1 - pool.headroom))
            compute[p, m] = need.device_s_per_request / (pool.compute * (1 - pool.headroom))
    return _Needs(capacity, memory, compute, np.array([float(model.min_copies) for model in scenario.models]))


def _best(needs: _Needs, rates: Floats, costs: Floats, start: Floats) -> tuple[Floats, float]:
    """The division of each pool's cost between memory and compute that bounds most, and the bound."""
    if len(costs) == 1:
        copies = np.maximum(np.ceil(np.round(rates / needs.capacity_rps[0], 9)), needs.min_copies)
        replicas = max(float((copies * needs.memory[0]).sum()), float((rates * needs.compute[0]).sum()))
        return start, math.ceil(round(replicas, 9)) * float(costs[0])  # whole replicas
    shares, best, most = start, start, -math.inf
    for k in range(ASCENTS):
        value, slope = _value(needs, rates, costs, shares)
        if value > most:
            best, most = shares, value
        shares = np.clip(shares + STRIDE / (1 + k / 8) * slope / max(float(np.abs(slope).max()), 1e-12), 0, 1)
    return best, most


def _value(needs: _Needs, rates: Floats, costs: Floats, shares: Floats) -> tuple[float, Floats]:
    """The cost of all models at the prices that the shares mean, and how it changes with them.

    Each request is served where it is cheapest, and each model keeps its least copies where they are.
    """
    memory = np.nan_to_num(costs[:, None] * needs.memory, posinf=NEVER)
    compute = np.nan_to_num(costs[:, None] * needs.compute, posinf=NEVER)
    w = shares[:, None]
    copies = rates / np.nan_to_num(needs.capacity_rps, posinf=1.0)
    by_demand = copies * memory * w + rates * compute * (1 - w)
    served_by, kept_by, computed_by = by_demand.argmin(0), (memory * w).argmin(0), (compute * (1 - w)).argmin(0)
    at = np.arange(len(rates))
    kept = needs.min_copies * (memory * w)[kept_by, at]
    least = kept + rates * (compute * (1 - w))[computed_by, at]
    is_kept = least > by_demand[served_by, at]
    slope = np.zeros(len(costs))
    flows = (copies * memory - rates * compute)[served_by, at]
    np.add.at(slope, served_by[~is_kept], flows[~is_kept])
    np.add.at(slope, kept_by[is_kept], (needs.min_copies * memory[kept_by, at])[is_kept])
    np.add.at(slope, computed_by[is_kept], -(rates * compute[computed_by, at])[is_kept])
    return float(np.where(is_kept, least, by_demand[served_by, at]).sum()), slope


def _most_copies(needs: _Needs, rates: Floats) -> float:
    """Replicas that the model with most copies needs: at most one copy of it in each."""
    best = np.where(np.isfinite(needs.capacity_rps), needs.capacity_rps, 0).max(axis=0)
    return float(np.maximum(np.ceil(np.round(rates / best, 9)), needs.min_copies).max())
