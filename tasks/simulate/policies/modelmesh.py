"""ModelMesh: replicas are one least-recently-used cache of models, loaded by the requests that miss them.

Rules and constants, of kserve/modelmesh (``ModelMesh.java``):
- a request for a model that no replica holds waits for its load, in the replica with most free memory, which drops its
  least recently used copies to make room.
- every 10 s (``tas.ratecheck_freq_ms``) each model whose copies each take more than ``scaleup_rpm`` requests a minute
  (``MM_SCALEUP_RPM_THRESHOLD``, 2000) gets rpm / threshold copies more, at most a third of the replicas at a time if
  more than two; a model with one copy gets a second when it is used again between 7 and 40 minutes after a use
  (``mm.min_second_copy_age_secs`` 420, ``mm.max_second_copy_age_secs`` 2400), as far as there is free memory.
- every 6 minutes (``tas.janitor_freq_secs``), and only when the cache is more than 95 % full, a copy is given back of
  each model with several whose load would stay below two thirds of the threshold without it.
The number of replicas is fixed, as its ``podsPerRuntime``: for each pool enough memory for every model once and enough
compute for the busiest interval, whichever is more, times a factor that is tuned, as the threshold is; the best of
several is reported. The gateway shares requests equally among a model's copies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from tasks.simulate.demand import Floats
from tasks.simulate.fleet import SimulatedFleet
from tasks.simulate.policies.deployments import groups, room_bytes
from tasks.simulate.scenario import Scenario
from tasks.simulate.tables import LOADED, LOADING, READY, Ints
from tasks.simulate.traffic import Gateway

RATE_CHECK_S = 10.0
JANITOR_S = 360.0
SECOND_COPY_S = (420.0, 2400.0)
FULL = 0.95
KEEP_LOAD = 2 / 3


def _peak_compute(scenario: Scenario, pool: int, models: list[int]) -> float:
    """Replicas that the models' demand keeps busy in their busiest interval together."""
    what = scenario.pools[pool]
    device_s = [scenario.models[m].need_by_gpu_type[what.gpu_type].device_s_per_request for m in models]
    demand = scenario.demand
    first, last = (int((time - demand.first) / demand.bin_s) for time in (scenario.start, scenario.end))
    busy = demand.rates_rps[first:last, models] @ np.array(device_s)
    return float(busy.max()) / (what.compute * (1 - what.headroom))


@dataclass(slots=True, eq=False)
class ModelMesh:
    """A cache of models over a fixed number of replicas."""

    replicas_factor: float = 1.5
    scaleup_rpm: float = 2000.0
    name: str = "ModelMesh"
    period_s: float = RATE_CHECK_S
    holds_cold: bool = True
    is_busy: bool = False
    _fleet: SimulatedFleet = field(init=False)
    _gateway: Gateway = field(init=False)
    _used: Floats = field(init=False)
    """When each model was last asked for."""
    _sized: list[int] = field(init=False)
    """Replicas of each pool."""
    _cleaned: float = 0.0

    def begin(self, fleet: SimulatedFleet, gateway: Gateway) -> None:
        self._fleet, self._gateway = fleet, gateway
        self._used = np.full(len(fleet.scenario.models), -np.inf)
        pools, models = groups(fleet.scenario)
        least = np.bincount(pools, minlength=len(fleet.scenario.pools))
        most = np.zeros(len(least))
        for pool, group in zip(pools, models, strict=True):
            most[pool] += _peak_compute(fleet.scenario, pool, group)
        self._sized = [math.ceil(count * self.replicas_factor) for count in np.maximum(least, most)]
        self._cleaned = fleet.now

    def tick(self) -> None:
        for pool, count in enumerate(self._sized):
            self._fleet.scale(pool, count)
        if not self._gateway.counts:
            return
        recent = self._gateway.recent(self._gateway.counts, RATE_CHECK_S)
        rpm = self._gateway.recent(self._gateway.counts, 60.0) * 60 / self._fleet.scenario.costs.step_s
        copies, before = self._fleet.counts(), self._used.copy()
        is_asked = recent > 0
        self._used[is_asked] = self._fleet.now
        for model in np.flatnonzero(is_asked & (copies == 0)).tolist():
            self._load(model, may_evict=True)
        self._scale_up(rpm, copies)
        age = self._fleet.now - before
        is_regular = is_asked & (copies == 1) & (age >= SECOND_COPY_S[0]) & (age <= SECOND_COPY_S[1])
        for model in np.flatnonzero(is_regular).tolist():
            self._load(model, may_evict=False)
        if self._fleet.now - self._cleaned >= JANITOR_S:
            self._cleaned = self._fleet.now
            self._clean(rpm, copies)

    def _scale_up(self, rpm: Floats, copies: Ints) -> None:
        each = rpm / np.maximum(copies, 1)
        loading = np.bincount(self._fleet.copies.model[self._fleet.copies.state == LOADING], minlength=len(copies))
        replicas = len(self._fleet.name_by_row)
        for model in np.flatnonzero((each > self.scaleup_rpm) & (copies > 0) & (loading == 0)).tolist():
            more = int(each[model] / self.scaleup_rpm)
            for _ in range(more if more <= 2 else max(2, min(more, replicas // 3))):
                self._load(model, may_evict=True)

    def _load(self, model: int, may_evict: bool) -> None:
        """Where most memory is free; if it is not enough, where the least recently used copies make room."""
        fleet, scenario = self._fleet, self._fleet.scenario
        places = []
        for row in fleet.name_by_row:
            pool = scenario.pools[int(fleet.replicas.pool[row])]
            is_open = fleet.replicas.state[row] == READY and (model, row) not in fleet.row_by_copy
            if is_open and scenario.models[model].may_live_in(pool):
                size = scenario.models[model].need_by_gpu_type[pool.gpu_type].footprint_bytes
                places.append((room_bytes(pool) - float(fleet.replicas.used_bytes[row]) - size, row))
        if places and max(places)[0] >= 0:
            fleet.load(model, max(places)[1])
        elif places and may_evict:
            missing, row = max(places)
            if self._evict(row, -missing):
                # once what was dropped is gone; a request that still waits asks again at the next check
                name = fleet.name_by_row[row]
                fleet.at(fleet.now + scenario.costs.unload_s + 0.1, lambda: self._load_there(model, row, name))

    def _load_there(self, model: int, row: int, name: str) -> None:
        fleet = self._fleet
        if fleet.name_by_row.get(row) != name or (model, row) in fleet.row_by_copy:
            return
        pool = fleet.scenario.pools[int(fleet.replicas.pool[row])]
        size = fleet.scenario.models[model].need_by_gpu_type[pool.gpu_type].footprint_bytes
        if fleet.replicas.used_bytes[row] + size <= room_bytes(pool):
            fleet.load(model, row)

    def _evict(self, row: int, missing_bytes: float) -> bool:
        """Drop the least recently used copies until there is room; whether there will be."""
        copies = self._fleet.copies
        inside = [copy for copy in self._fleet.inside(row).tolist() if copies.state[copy] == LOADED]
        for copy in sorted(inside, key=lambda copy: self._used[copies.model[copy]]):
            if missing_bytes <= 0:
                break
            missing_bytes -= float(copies.footprint_bytes[copy])
            self._fleet.unload(int(copies.model[copy]), row)
        return missing_bytes <= 0

    def _clean(self, rpm: Floats, copies: Ints) -> None:
        there = list(self._fleet.name_by_row)
        room = sum(room_bytes(self._fleet.scenario.pools[int(self._fleet.replicas.pool[row])]) for row in there)
        if not there or self._fleet.replicas.used_bytes[there].sum() < FULL * room:
            return
        for model in np.flatnonzero(copies > 1).tolist():
            if rpm[model] / (copies[model] - 1) < KEEP_LOAD * self.scaleup_rpm:
                copy = self._fleet.holders(model)[-1]
                if self._fleet.copies.state[copy] == LOADED:
                    self._fleet.unload(model, int(self._fleet.copies.replica[copy]))
