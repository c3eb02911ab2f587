"""A tick in words: one line for the log, one page for the artifact, rows for the tables."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from tasks.decision import Outcome, Result, Sizing, Tick
from tasks.record.picture import data_uri, demand_svg, placement_svg
from tasks.world import Copy, LearnedFootprint

Row = dict[str, Any]

PHASES = ("observe", "decide", "act", "record")
"""Of a tick's own time; ``decide``: the pure ones together."""


def one_line(tick: Tick) -> str:
    """What the tick did, the models whose copies change with their arithmetic, and its own time."""
    parts = [_deeds(tick)]
    parts += [f"{_change(tick, s)} ({s.reason.text})" for s in tick.sizings if is_changed(tick, s)][:3]
    held = Counter(hold.reason.code for hold in tick.plan.holds)
    if held:
        parts.append("held: " + ", ".join(f"{n} {code}" for code, n in held.most_common(4)))
    parts += [f"unknown: {u.subject} ({u.why})" for u in tick.observation.unknown[:2]]
    parts += [f"failing: {c.model} in {c.replica} ({c.detail})" for c in _failing_copies(tick)[:2]]
    return " · ".join([*parts, _time(tick)])


def _deeds(tick: Tick) -> str:
    if not tick.plan.steps:
        return "steady, no step"
    if not tick.outcomes:
        return f"plan only: {len(tick.plan.steps)} steps, {tick.plan.churn} loads and unloads"
    results = Counter(outcome.result for outcome in tick.outcomes)
    kinds = Counter(o.step.kind for o in tick.outcomes if o.result is Result.DONE)
    done = ", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "none"
    wrong = "".join(f", {results[r]} {r}" for r in (Result.FAILED, Result.SKIPPED) if results[r])
    return f"steps: {done}{wrong}"


def _time(tick: Tick) -> str:
    seconds = tick.seconds_by_phase or {}
    return ", ".join(f"{phase} {seconds[phase]:.2f} s" for phase in PHASES if phase in seconds)


def copies_now(tick: Tick, model: str) -> int:
    """Copies that serve, as observed."""
    return sum(copy.is_serving for copy in tick.observation.fleet.copies_of(model))


def is_changed(tick: Tick, sizing: Sizing) -> bool:
    return sizing.copies != copies_now(tick, sizing.model)


def _change(tick: Tick, sizing: Sizing) -> str:
    return f"{sizing.model} {copies_now(tick, sizing.model)} → {sizing.copies}"


def summary(tick: Tick) -> str:
    """The artifact's page: what changed and why, the pictures, what is held, the steps, the times."""
    fleet = tick.observation.fleet
    when = datetime.fromtimestamp(tick.observation.now, UTC)
    serving = sum(copy.is_serving for copy in fleet.copies)
    everywhere = len(fleet.models) * len(fleet.replicas)
    pools = ", ".join(
        f"{pool.name} {sum(r.pool == pool.name for r in fleet.replicas)} of {pool.max_replicas}" for pool in fleet.pools
    )
    sections = [
        f"# {when:%H:%M:%S} UTC · {_deeds(tick)}",
        f"{serving} copies serve (every model in every replica: {everywhere}) · replicas: {pools} · mode {tick.mode}",
        *([f"The fleet that is to be costs {tick.cost}"] if tick.cost else []),
        *_unknowns(tick),
        *_failing(tick),
        "## What changes, and why\n" + _changes(tick),
        "## Placement\n![memory of each replica and the copies that fill it](" + data_uri(placement_svg(tick)) + ")",
        *_shares(tick),
        "## Demand against forecast\n![demand and forecast, a model each](" + data_uri(demand_svg(tick)) + ")",
        *_held(tick),
        *_steps(tick),
        "## Every model\n" + _models(tick),
        *_footprints(tick),
        "## The tick's own time\n" + _seconds(tick),
    ]
    return "\n\n".join(sections) + "\n"


def _unknowns(tick: Tick) -> list[str]:
    rows = [f"- **{u.subject}**: {u.why}" for u in tick.observation.unknown]
    return ["## Unknown\n" + "\n".join(rows)] if rows else []


def _failing(tick: Tick) -> list[str]:
    rows = [f"- **{copy.model} in {copy.replica}**: {copy.detail}" for copy in _failing_copies(tick)]
    return ["## Ready, but failing\n" + "\n".join(rows)] if rows else []


def _failing_copies(tick: Tick) -> list[Copy]:
    return [copy for copy in tick.observation.fleet.copies if copy.is_failing]


def _changes(tick: Tick) -> str:
    lines = [
        f"- **{_change(tick, s)} copies** — `{s.reason.code}`: {s.reason.text}"
        for s in tick.sizings
        if is_changed(tick, s)
    ]
    reasons = tick.placement.pool_reasons or {}
    count_by_pool = {pool.name: pool.replicas for pool in tick.observation.fleet.pools}
    for pool, reason in reasons.items():
        wanted = tick.placement.replicas_by_pool.get(pool, 0)
        lines.append(
            f"- **pool {pool}: {count_by_pool.get(pool, 0)} → {wanted} replicas** — `{reason.code}`: {reason.text}"
        )
    lines += [f"- **{replica} goes** — `{reason.code}`: {reason.text}" for replica, reason in tick.placement.leaving]
    return "\n".join(lines) or "Nothing: every model has the copies that it needs."


def _held(tick: Tick) -> list[str]:
    """A list, not a table: the UI breaks its long lines, where it would make those of a table run out of sight."""
    rows = [f"- **{h.subject}** — `{h.reason.code}`: {h.reason.text}" for h in tick.plan.holds]
    return ["## Held\n" + "\n".join(rows)] if rows else []


def _steps(tick: Tick) -> list[str]:
    """What fits the page; the arithmetic of each step is in its table, and above."""
    rows = [{name: row[name] for name in ("step", "reason", "result", "seconds", "detail")} for row in step_rows(tick)]
    return ["## Steps\n" + _table(rows)] if rows else []


def _shares(tick: Tick) -> list[str]:
    """The models whose copies get unequal shares, or did until now, and why that changes."""
    weights_by_model: dict[str, dict[str, float]] = {}
    for a in tick.placement.assignments:
        weights_by_model.setdefault(a.model, {})[a.replica] = a.weight
    reasons, rows = tick.placement.weight_reasons or {}, []
    for model, weights in sorted(weights_by_model.items()):
        if model in reasons or len(set(weights.values())) > 1:
            split = ", ".join(f"{replica} {weight:g}" for replica, weight in weights.items())
            rows.append(f"- **{model}**: {split} · {reasons.get(model, 'as it is')}")
    return ["## Shares of requests\n" + "\n".join(rows)] if rows else []


def _models(tick: Tick) -> str:
    """Numbers, then the reasons of the models that do not change: those that do are told first."""
    numbers = ("model", "demand req/s", "forecast", "upper", "a copy serves", "a copy takes", "copies", "wanted")
    rows = [{name: row[name] for name in numbers} for row in demand_rows(tick)]
    for row in rows:
        row["a copy takes"] = _room(tick, row["model"])
    stays = [f"- {s.model}: `{s.reason.code}`: {s.reason.text}" for s in tick.sizings if not is_changed(tick, s)]
    return "\n\n".join(filter(None, (_table(rows), "\n".join(stays))))


def _footprints(tick: Tick) -> list[str]:
    """Of the models of which something was seen; what is only declared is in the table above."""
    seen = {model for model, _ in tick.observation.footprints}
    for model in tick.observation.fleet.models:
        if any(need.footprint_seen is not None for need in model.need_by_gpu_type.values()):
            seen.add(model.name)
    rows = [f"- {s.model}: {_memory(tick, s.model)}" for s in tick.sizings if s.model in seen]
    return ["## What a copy takes\n" + "\n".join(rows)] if rows else []


def _seconds(tick: Tick) -> str:
    return _table([{phase: f"{seconds:.3f} s" for phase, seconds in (tick.seconds_by_phase or {}).items()}])


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
    """One row a model: demand, forecast, capacity, copies and the reason."""
    forecast_by_model = {forecast.model: forecast for forecast in tick.forecasts}
    newest = tick.observation.demand.dropna(subset=["demand_rps"]).groupby("model")["demand_rps"].last()
    rows = []
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
                "a copy takes": _memory(tick, sizing.model),
                "copies": copies_now(tick, sizing.model),
                "wanted": sizing.copies,
                "why": str(sizing.reason),
            }
        )
    return rows


def _room(tick: Tick, model: str) -> str:
    """The room that is kept for a copy, on each GPU type where that differs."""
    needs = tick.observation.fleet.model_by_name[model].need_by_gpu_type.values()
    return " / ".join(dict.fromkeys(f"{need.footprint_bytes / 1e6:.0f} MB" for need in needs))


def _memory(tick: Tick, model: str) -> str:
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


def _table(rows: list[Row]) -> str:
    if not rows or not rows[0]:
        return ""
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(row[column]).replace("|", "\\|") for column in head) + " |" for row in rows]
    return "\n".join(lines)
