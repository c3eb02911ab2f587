"""Deployments of pods that each have a GPU of their own and hold all models of their Deployment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tasks.simulate.demand import Floats
from tasks.simulate.fleet import SimulatedFleet
from tasks.simulate.scenario import Scenario, fits
from tasks.simulate.tables import LEAVING, LOADED, Ints
from tasks.size.queueing import Station
from tasks.world import Need, Pool

LOAD_THREADS = 4
"""Triton loads so many models at a time at its start (``--model-load-thread-count``)."""


@dataclass(slots=True, eq=False)
class Deployments:
    """The pods of every Deployment; a pod is ready once it has loaded all its models."""

    fleet: SimulatedFleet
    pool: Sequence[int]
    """Of each Deployment."""
    models: Sequence[Sequence[int]]
    _pods: list[list[str]] = field(default_factory=list)
    _deployment_by_pod: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pods = [[] for _ in self.models]
        self.fleet.on_ready.append(self._fill)

    def counts(self) -> Ints:
        """Pods of each, without those that died."""
        for pods in self._pods:
            pods[:] = [pod for pod in pods if pod in self.fleet.row_by_name]
        return np.array([len(pods) for pods in self._pods])

    def ready(self) -> Ints:
        """Pods of each that have loaded all their models: those where the first one's copies are loaded."""
        copies = self.fleet.copies
        loaded = np.bincount(copies.model[copies.state == LOADED], minlength=len(self.fleet.scenario.models))
        return np.array([int(loaded[models[0]]) for models in self.models])

    def set(self, counts: Ints) -> None:
        """As many pods as asked for: new ones start, the youngest leave."""
        for deployment, (now, wanted) in enumerate(zip(self.counts(), counts, strict=True)):
            for _ in range(int(wanted - now)):
                pod = self.fleet.name_by_row[self.fleet.start(self.pool[deployment])]
                self._pods[deployment].append(pod)
                self._deployment_by_pod[pod] = deployment
            for _ in range(int(now - wanted)):
                row = self.fleet.row_by_name[self._pods[deployment].pop()]
                self.fleet.counters.unloads += len(self.fleet.inside(row))
                self.fleet.leave(row)

    def _fill(self, row: int) -> None:
        deployment = self._deployment_by_pod.get(self.fleet.name_by_row[row])
        if deployment is None or self.fleet.replicas.state[row] == LEAVING:
            return
        scenario = self.fleet.scenario
        gpu_type = scenario.pools[self.pool[deployment]].gpu_type
        times = [scenario.models[m].need_by_gpu_type[gpu_type].load_s for m in self.models[deployment]]
        lasts = self.fleet.lasting(max(*times, sum(times) / LOAD_THREADS))
        for model in self.models[deployment]:
            self.fleet.load(model, row, lasts)


def cheapest_pool(scenario: Scenario, model: int, is_shared: bool) -> int:
    """Where a model's usual demand costs least: by its share of a replica, or by whole replicas of its own.

    Usual demand is the mean over the replayed span: peers are set up by people who know their load.
    """
    what, rate = scenario.models[model], usual_rps(scenario)[model]
    costs = []
    for p, pool in enumerate(scenario.pools):
        if not (what.may_live_in(pool) and fits(what, pool)):
            continue
        need = what.need_by_gpu_type[pool.gpu_type]
        copies = max(1.0, rate / capacity_rps(scenario, model, pool))
        share = max(copies * need.footprint_bytes / room_bytes(pool), rate * need.device_s_per_request / pool.compute)
        costs.append((pool.cost_per_hour * (share if is_shared else copies), p))
    return min(costs)[1]


def groups(scenario: Scenario) -> tuple[list[int], list[list[int]]]:
    """The pool and the models of each Deployment: as few as fit into a replica's memory each, the largest first."""
    found: list[tuple[int, float, list[int]]] = []
    pools = [cheapest_pool(scenario, model, is_shared=True) for model in range(len(scenario.models))]
    for model in sorted(range(len(pools)), key=lambda m: -_need(scenario, m, pools[m]).footprint_bytes):
        pool = pools[model]
        size = _need(scenario, model, pool).footprint_bytes
        for i, (other, left, models) in enumerate(found):
            if other == pool and left >= size:
                found[i] = (pool, left - size, [*models, model])
                break
        else:
            found.append((pool, room_bytes(scenario.pools[pool]) - size, [model]))
    return [pool for pool, _, _ in found], [models for _, _, models in found]


def room_bytes(pool: Pool) -> float:
    """Memory less the headroom: the same for every policy."""
    return pool.memory_bytes * (1 - pool.headroom)


def capacity_rps(scenario: Scenario, model: int, pool: Pool) -> float:
    """Requests a second with which one copy just meets its objective, found by a load test."""
    need = scenario.models[model].need_by_gpu_type[pool.gpu_type]
    station = Station(need.service_ms / 1000, need.instances, need.service_cv2)
    return station.capacity_rps(scenario.models[model].objective)


def _need(scenario: Scenario, model: int, pool: int) -> Need:
    return scenario.models[model].need_by_gpu_type[scenario.pools[pool].gpu_type]


def usual_rps(scenario: Scenario) -> Floats:
    """(models,): mean demand over the replayed span."""
    demand = scenario.demand
    first, last = (int((time - demand.first) / demand.bin_s) for time in (scenario.start, scenario.end))
    usual: Floats = demand.rates_rps[first : max(last, first + 1)].mean(axis=0)
    return usual
