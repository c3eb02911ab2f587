"""Copies of every model: from demand, capacity and objective, corrected by what is observed."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.decision import Forecast, Reason, Sizing
from tasks.size import rules
from tasks.size.evidence import Evidence, gather
from tasks.size.pooling import pooled
from tasks.world import Limits, Observation

__all__ = ["size"]


def size(observation: Observation, forecasts: Sequence[Forecast], limits: Limits) -> tuple[Sizing, ...]:
    """How many copies each model should have, one sizing a model in the fleet's order.

    The largest of what the forecast, the measured queue time and a rise above the forecast ask for, within the policy;
    fewer copies than now only with margin and after the stabilisation window; as many as now where demand is unknown.
    """
    forecast_by_model = {forecast.model: forecast for forecast in forecasts}
    evidence = gather(observation, forecast_by_model, limits)
    sizings = tuple(
        Sizing(model, 0, 0.0, {}, Reason("not_allowed", "no pool may hold it")) if known is None else _size(known)
        for model, known in evidence.items()
    )
    return pooled(sizings, forecast_by_model, observation.fleet)


def _size(e: Evidence) -> Sizing:
    learned = e.learned_by_gpu_type
    capacity = {gpu: capacity.rps for gpu, capacity in e.capacity_by_gpu_type.items()}
    service_ms = {gpu: capacity.station.service_s * 1000 for gpu, capacity in e.capacity_by_gpu_type.items()}
    if e.demand_rps is None:
        copies, reason = rules.held(e)
        return Sizing(e.model.name, copies, None, capacity, reason, copies, service_ms, learned)
    if (sleeping := rules.asleep(e)) is not None:
        return Sizing(e.model.name, 0, 0.0, capacity, sleeping, 0, service_ms, learned)
    seen = (rules.by_queue(e), rules.by_rise(e, e.demand_rps))
    wishes = [rules.by_demand(e, e.demand_rps), *(wish for wish in seen if wish is not None)]
    needed = rules.clamped(e, rules.awake(e, max(wishes, key=lambda wish: wish.copies)))
    wish = rules.stabilised(e, needed)
    return Sizing(e.model.name, wish.copies, wish.demand_rps, capacity, wish.reason, needed.copies, service_ms, learned)
