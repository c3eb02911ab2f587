"""Ours: the decisions of the reconcile tick themselves, with the plan executed on the simulated fleet.

Forecasts can be exchanged, and nothing else: the tick's own; none (demand stays as it was last seen, so that only the
queue rule and the last interval speak); or what really comes (perfect foresight over the tick's own horizon).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from tasks.decision import Forecast
from tasks.forecast import forecast, horizon_s
from tasks.place import place
from tasks.plan import plan
from tasks.simulate.act import Hands
from tasks.simulate.demand import Demand
from tasks.simulate.fleet import SimulatedFleet
from tasks.simulate.observe import Observer
from tasks.simulate.traffic import Gateway
from tasks.size import size
from tasks.world import Limits, Observation

Forecaster = Callable[[Observation, Limits], tuple[Forecast, ...]]
UNBOUNDED = 10**6
"""The budget before scoring starts: a fleet that is filled for the first time is not churn."""


@dataclass(slots=True, eq=False)
class Ours:
    """The reconcile tick."""

    limits: Limits
    forecaster: Forecaster = forecast
    name: str = "ours"
    holds_cold: bool = False
    period_s: float = field(init=False)
    _fleet: SimulatedFleet = field(init=False)
    _observer: Observer = field(init=False)
    _hands: Hands | None = None

    def __post_init__(self) -> None:
        self.period_s = self.limits.interval_s

    @property
    def is_busy(self) -> bool:
        return self._hands is not None and self._hands.is_busy

    def begin(self, fleet: SimulatedFleet, gateway: Gateway) -> None:
        self._fleet = fleet
        self._observer = Observer(fleet, gateway)
        for pool, value in enumerate(fleet.scenario.pools):
            fleet.scale(pool, value.min_replicas)

    def tick(self) -> None:
        """observe -> forecast -> size -> place -> plan -> act."""
        is_warm = self._fleet.now >= self._fleet.scenario.start - 1e-6
        limits = self.limits if is_warm else replace(self.limits, budget=UNBOUNDED)
        observation = self._observer.observe()
        forecasts = self.forecaster(observation, limits)
        sizings = size(observation, forecasts, limits)
        placement = place(observation, sizings, limits)
        steps = plan(observation, placement, sizings, limits)
        self._observer.remember(sizings)
        self._hands = Hands(self._fleet, steps, limits.act_s)


def last_seen(extra: float = 0.0) -> Forecaster:
    """No forecast: each model's demand stays what it was in its last bin, and a share more in case it does not."""

    def seen(observation: Observation, limits: Limits) -> tuple[Forecast, ...]:
        fleet = observation.fleet
        newest = observation.demand.groupby("model", sort=False)["demand_rps"].last()
        horizons = [horizon_s(model, fleet.pools, limits) for model in fleet.models]
        return tuple(
            Forecast(model.name, rps := float(newest[model.name]), rps * (1 + extra), horizon, "last seen")
            for model, horizon in zip(fleet.models, horizons, strict=True)
        )

    return seen


def foresight(demand: Demand) -> Forecaster:
    """The highest demand that really comes from now until the end of the horizon: what no forecaster can beat."""

    def foreseen(observation: Observation, limits: Limits) -> tuple[Forecast, ...]:
        fleet, now = observation.fleet, observation.now
        horizons = [horizon_s(model, fleet.pools, limits) for model in fleet.models]
        peaks = {horizon: demand.peak(now, now + horizon) for horizon in np.unique(horizons).tolist()}
        return tuple(
            Forecast(model.name, float(rps := peaks[horizon][i]), float(rps), horizon, "foresight")
            for i, (model, horizon) in enumerate(zip(fleet.models, horizons, strict=True))
        )

    return foreseen
