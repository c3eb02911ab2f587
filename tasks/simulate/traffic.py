"""Requests of one step of time: shared out by the gateway, served by the copies, and what they waited."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tasks.simulate.demand import Floats
from tasks.simulate.fleet import SimulatedFleet
from tasks.simulate.stations import Stations, advance
from tasks.simulate.tables import LOADED, Flags, Ints

KEPT = 240
"""Steps for which meters are kept: 4 minutes of 1 s, more than any policy looks back over between two of its ticks."""

LEAST_VARIABILITY = 0.05
"""No gateway's turns and no service times are perfectly even."""


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """What became of a step's requests, (models,) each; all are expected counts."""

    arrived: Floats
    over: Floats
    """(limits, models): waited longer than the limit; those that were never served count too."""
    failed: Floats
    """No copy served, or the wait would have passed the timeout."""
    cold: Floats
    """Of those without a copy: the policy allows none, or holds requests until there is one."""


@dataclass(slots=True, eq=False)
class Gateway:
    """It sends each request to one of the model's routed copies, each with the share that its weight says: at random as
    sizing assumes, or in turns as Envoy does unless told otherwise. In turns n copies of equal weight each get every
    nth arrival of a Poisson process, whose times between arrivals have a squared coefficient of variation of 1/n, the
    copy's share."""

    fleet: SimulatedFleet
    limits_s: Floats
    """(limits, models): the waits over which requests are counted; the first is the objective's."""
    holds_cold: bool
    arrivals: np.random.Generator = field(init=False)
    counts: list[Floats] = field(default_factory=list)
    """(models,) a step: requests as a meter counts them, whole and at random; the newest last."""
    busy: list[Floats] = field(default_factory=list)
    """(models,) a step: mean share of time that a copy's servers are busy."""
    waits: list[Floats] = field(default_factory=list)
    """(models,) a step: mean wait (s) of what arrived."""
    device: Floats = field(default_factory=lambda: np.zeros(0))
    """(replica rows,): device-seconds a second in the last step."""
    _may_be_cold: Flags = field(init=False)
    _seen: int = -1
    _live: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _share: Floats = field(default_factory=lambda: np.zeros(0))
    """(live,): of its model's requests."""
    _routed: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        may_be_zero = np.array([model.min_copies == 0 for model in self.fleet.scenario.models])
        self._may_be_cold = may_be_zero | self.holds_cold
        # apart from the fleet's own chances: every policy meets the same arrivals
        self.arrivals = np.random.default_rng((self.fleet.scenario.seed, 1))

    def step(self, dt_s: float) -> Flow:
        """Requests of the step that starts now."""
        fleet, copies = self.fleet, self.fleet.copies
        rates = fleet.scenario.demand.at(fleet.now + dt_s / 2)
        self._look(len(rates))
        live = self._live
        model = copies.model[live]
        rate = rates[model] * self._share
        full = copies.servers[live] / copies.service_s[live]
        slow = self._slowed(live, rate, full, dt_s)
        arrival_cv2 = np.where(self._share > 0, self._share, 1.0) if fleet.scenario.costs.is_round_robin else 1.0
        variability = np.maximum((arrival_cv2 + copies.cv2[live]) / 2, LEAST_VARIABILITY)
        stations = Stations(rate, full * slow, copies.servers[live], variability, copies.backlog[live])
        step = advance(stations, dt_s, self.limits_s[:, model], fleet.scenario.costs.timeout_s)
        copies.backlog[live] = step.backlog
        copies.served[live] += step.served
        copies.waited_s[live] += step.served * step.mean_wait_s
        copies.worked_s[live] += step.served * copies.service_s[live] / slow
        return self._flow(rates * dt_s, live, step.over * rate * dt_s, step.dropped, (step.served, step.mean_wait_s))

    def recent(self, kept: list[Floats], seconds: float) -> Floats:
        """(models,): the mean of a meter over the newest steps that make up so many seconds."""
        steps = max(1, round(seconds / self.fleet.scenario.costs.step_s))
        mean: Floats = np.mean(kept[-steps:], axis=0)
        return mean

    def _look(self, models: int) -> None:
        """Which copies take part, looked up again after a change; copies that drain are seen while they do."""
        copies = self.fleet.copies
        if self._seen != self.fleet.version:
            self._seen = self.fleet.version
            loaded = copies.state == LOADED
            self._live = np.flatnonzero(loaded)
            self._routed = np.bincount(copies.model[loaded & copies.is_routed], minlength=models)
            weight = np.where(copies.is_routed, copies.weight, 0.0)[self._live]
            total = np.bincount(copies.model[self._live], weight, models)[copies.model[self._live]]
            self._share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)

    def _slowed(self, live: Ints, rate: Floats, full: Floats, dt_s: float) -> Floats:
        """(live,): what is left of each copy's speed where its replica is asked for more device time than it has.

        Up to then copies do not slow each other down: compute is what they may take together.
        """
        copies, replicas = self.fleet.copies, self.fleet.replicas
        wanted = np.minimum(rate + copies.backlog[live] / dt_s, full) * copies.device_s[live]
        row = copies.replica[live]
        asked = np.bincount(row, wanted, minlength=len(replicas.state)).astype(float)
        self.device = np.minimum(asked, replicas.compute)
        factor = np.divide(replicas.compute, asked, out=np.ones_like(asked), where=asked > replicas.compute)
        slowed: Floats = factor[row]
        return slowed

    def _flow(self, arrived: Floats, live: Ints, over: Floats, dropped: Floats, served: tuple[Floats, Floats]) -> Flow:
        model, models = self.fleet.copies.model[live], len(arrived)
        lost = np.where(self._routed == 0, arrived, 0.0)
        cold = np.where(self._may_be_cold, lost, 0.0)
        by_model = np.stack([np.bincount(model, row, minlength=models) for row in over]).astype(float) + lost
        failed = np.bincount(model, dropped, minlength=models).astype(float) + lost - cold
        self._meter(arrived, live, served)
        return Flow(arrived, by_model, failed, cold)

    def _meter(self, arrived: Floats, live: Ints, served: tuple[Floats, Floats]) -> None:
        copies, models, dt_s = self.fleet.copies, len(arrived), self.fleet.scenario.costs.step_s
        done, wait_s = served
        model = copies.model[live]
        worked = np.bincount(model, done * copies.service_s[live], minlength=models)
        servers = np.bincount(model, copies.servers[live], minlength=models)
        total = np.bincount(model, done, minlength=models)
        waited = np.bincount(model, done * wait_s, minlength=models)
        self.counts.append(self.arrivals.poisson(arrived).astype(float))
        self.busy.append(np.divide(worked, servers * dt_s, out=np.zeros(models), where=servers > 0))
        self.waits.append(np.divide(waited, total, out=np.zeros(models), where=total > 0))
        for kept in (self.counts, self.busy, self.waits):
            del kept[:-KEPT]
