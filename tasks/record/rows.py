"""A tick in rows: tables of its steps, its demand and copies, its placement."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from tasks.decision import Outcome, Tick
from tasks.record.words import copies_now, placed_copies
from tasks.world import LearnedFootprint

Row = dict[str, Any]


def step_rows(tick: Tick) -> list[Row]:
    """One row a step, with its outcome when there is one."""
    outcome_by_id = {outcome.step.id: outcome for outcome in tick.outcomes}
    return [
        {
            "step": str(step),
            "reason": step.reason.code,
            "arithmetic": step.reason.text,
            **_outcome_cells(outcome_by_id.get(step.id)),
        }
        for step in tick.plan.steps
    ]


def _outcome_cells(outcome: Outcome | None) -> Row:
    if outcome is None:
        return {"result": "planned", "seconds": "", "detail": ""}
    return {"result": str(outcome.result), "seconds": f"{outcome.seconds:.2f}", "detail": outcome.detail}


def demand_rows(tick: Tick) -> list[Row]:
    """One row a model: demand, forecast, capacity, why; copies that serve, that it needs, that there is a place for."""
    forecast_by_model = {forecast.model: forecast for forecast in tick.forecasts}
    newest = tick.observation.demand.dropna(subset=["demand_rps"]).groupby("model")["demand_rps"].last()
    placed, rows = placed_copies(tick), []
    for sizing in tick.sizings:
        forecast = forecast_by_model[sizing.model]
        rows.append(
            {
                "model": sizing.model,
                "demand req/s": _number(newest.get(sizing.model)),
                "forecast": _number(forecast.median_rps),
                "upper": _number(forecast.upper_rps),
                "forecaster": forecast.forecaster,
                "horizon s": f"{forecast.horizon_s:.0f}",
                "a copy serves": _number(min(sizing.capacity_rps_by_gpu_type.values(), default=None)),
                "a copy takes": memory(tick, sizing.model),
                "copies": copies_now(tick, sizing.model),
                "wanted": sizing.copies,
                "placed": placed[sizing.model],
                "why": str(sizing.reason),
            }
        )
    return rows


def memory(tick: Tick, model: str) -> str:
    """On each GPU type the room that is kept for a copy, of what it is reckoned, and what was seen while serving."""
    needs = tick.observation.fleet.model_by_name[model].need_by_gpu_type
    said = []
    for gpu_type, need in needs.items():
        known = tick.observation.footprints.get((model, gpu_type))
        where = f"{gpu_type}: " if len(needs) > 1 else ""
        text = f"{where}{need.footprint_bytes / 1e6:.0f} MB {need.footprint_source}"
        if need.footprint_source == "measured" and need.footprint_seen is not None:
            text += f" ({_spread(*need.footprint_seen)})"
        said.append(text + (f", serving {looks(known)}" if known is not None else ""))
    return "; ".join(said)


def _spread(mean_bytes: float, spread_bytes: float) -> str:
    return f"{mean_bytes / 1e6:.0f} ± {spread_bytes / 1e6:.0f} MB"


def looks(known: LearnedFootprint) -> str:
    """What was learned of a footprint while serving, and how sure that is."""
    last = datetime.fromtimestamp(known.last_at, UTC)
    seen = _spread(known.footprint_bytes, known.spread_bytes)
    return f"{seen} in {known.looks} looks until {last:%Y-%m-%d %H:%M}"


def placement_rows(tick: Tick) -> list[Row]:
    """One row a copy that is or should be: where, whether it serves, why it is there."""
    fleet = tick.observation.fleet
    reason_by_copy = {(a.model, a.replica): str(a.reason) for a in tick.placement.assignments}
    weight_by_copy = {(a.model, a.replica): a.weight for a in tick.placement.assignments}
    now_by_copy = {(c.model, c.replica): c.weight for c in fleet.copies if c.is_routed}
    state_by_copy = {(c.model, c.replica): "serving" if c.is_serving else str(c.state) for c in fleet.copies}
    keys = sorted(set(reason_by_copy) | set(state_by_copy), key=lambda key: (key[1], key[0]))
    surplus = tick.placement.surplus or {}
    return [
        {
            "replica": replica,
            "model": model,
            "now": state_by_copy.get((model, replica), "not there"),
            "should be": "there" if (model, replica) in reason_by_copy else "gone",
            "weight": _weight(now_by_copy.get((model, replica)), weight_by_copy.get((model, replica))),
            "why": reason_by_copy.get((model, replica)) or str(surplus.get((model, replica), "")),
        }
        for model, replica in keys
    ]


def _weight(now: float | None, wanted: float | None) -> str:
    """Of the requests of a copy's model, relative to its other copies; with an arrow where it changes."""
    there = [f"{weight:g}" for weight in (now, wanted) if weight is not None]
    return " → ".join(dict.fromkeys(there))


def _number(value: float | None) -> str:
    return "unknown" if value is None or math.isnan(value) else f"{value:.1f}"
