"""What a policy cost, and whether anyone noticed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tasks.simulate.demand import Floats
from tasks.simulate.fleet import SimulatedFleet
from tasks.simulate.traffic import Flow

WINDOW_S = 60.0
"""An objective is judged over each minute of each model: long enough for a percentile to mean something, short enough
that a minute of trouble is not averaged away."""


@dataclass(frozen=True, slots=True)
class Minute:
    """The fleet over a minute."""

    time: float
    replicas: float
    cost_per_hour: float
    copies: int
    demand_rps: float
    within: float
    """Share of its requests whose model met its objective in it."""


@dataclass(slots=True, eq=False)
class Score:
    """Sums over what was scored, (models,) each."""

    percentiles: Floats
    """(models,) 0 to 1."""
    requests: Floats = field(init=False)
    within: Floats = field(init=False)
    """Requests of the minutes in which their model met its objective."""
    over: Floats = field(init=False)
    """(limits, models): requests that waited longer than each limit, or were never served."""
    failed: Floats = field(init=False)
    cold: Floats = field(init=False)
    gpu_hours: float = 0.0
    cost: float = 0.0
    minutes: list[Minute] = field(default_factory=list)
    _flow: Flow | None = None
    _replicas: float = 0.0
    _cost: float = 0.0
    _seconds: float = 0.0

    def __post_init__(self) -> None:
        self.requests, self.within, self.failed, self.cold = (np.zeros_like(self.percentiles) for _ in range(4))
        self.over = np.zeros((1, len(self.percentiles)))

    def add(self, flow: Flow, fleet: SimulatedFleet, dt_s: float) -> None:
        """A step."""
        there = fleet.replicas.state != 0
        count, cost = float(there.sum()), float(fleet.replicas.cost[there].sum())
        self.gpu_hours += count * dt_s / 3600
        self.cost += cost * dt_s / 3600
        self._replicas += count * dt_s
        self._cost += cost * dt_s
        self._seconds += dt_s
        self._flow = flow if self._flow is None else _sum(self._flow, flow)
        if self._seconds >= WINDOW_S - 1e-6:
            self._close(fleet, self._flow)

    def _close(self, fleet: SimulatedFleet, flow: Flow) -> None:
        is_met = flow.over[0] <= (1 - self.percentiles) * flow.arrived + 1e-9
        within = np.where(is_met, flow.arrived, 0.0)
        self.requests += flow.arrived
        self.within += within
        self.over = self.over + flow.over
        self.failed += flow.failed
        self.cold += flow.cold
        total = float(flow.arrived.sum())
        self.minutes.append(
            Minute(
                fleet.now,
                self._replicas / self._seconds,
                self._cost / self._seconds,
                int(fleet.counts().sum()),
                total / self._seconds,
                float(within.sum()) / total if total else 1.0,
            )
        )
        self._flow, self._replicas, self._cost, self._seconds = None, 0.0, 0.0, 0.0


def _sum(a: Flow, b: Flow) -> Flow:
    return Flow(a.arrived + b.arrived, a.over + b.over, a.failed + b.failed, a.cold + b.cold)
