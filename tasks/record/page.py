"""A tick as a page, the artifact that people read first: what changed and why, the pictures, the steps, the times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from tasks.decision import Reason, Sizing, StepKind, Tick
from tasks.record.picture import data_uri, demand_svg, placement_svg
from tasks.record.rows import Row, demand_rows, memory, step_rows
from tasks.record.words import change, changed_copies, deeds, failing_copies, placed_copies, skipped

MOST = 50
"""Lines of a list or table: a page of a thousand models is not read. The tick's own tables have all of them."""


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
        f"# {when:%H:%M:%S} UTC · {deeds(tick)}",
        f"{serving} copies serve (every model in every replica: {everywhere}) · replicas: {pools} · mode {tick.mode}",
        *([f"The fleet that is to be costs {tick.cost}"] if tick.cost else []),
        *([f"Not all of it was done: {why}"] if (why := skipped(tick)) else []),
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
    rows = [f"- **{copy.model} in {copy.replica}**: {copy.detail}" for copy in failing_copies(tick)]
    return ["## Ready, but failing\n" + "\n".join(rows)] if rows else []


def _changes(tick: Tick) -> str:
    changes, placed = changed_copies(tick), placed_copies(tick)
    lines = [
        f"- **{change(s, changes)} copies** — {_sized(s, placed[s.model])}" for s in tick.sizings if s.model in changes
    ]
    reasons = tick.placement.pool_reasons or {}
    count_by_pool = {pool.name: pool.replicas for pool in tick.observation.fleet.pools}
    for pool, reason in reasons.items():
        wanted = tick.placement.replicas_by_pool.get(pool, 0)
        lines.append(f"- **pool {pool}: {count_by_pool.get(pool, 0)} → {wanted} replicas** — {_why(reason)}")
    lines += [f"- **{replica} goes** — {_why(reason)}" for replica, reason in tick.placement.leaving]
    return (
        _listed(lines, "reconcile-demand")
        or "No number of copies or replicas: every model has the copies that it needs."
    )


def _why(reason: Reason) -> str:
    return f"`{reason.code}`: {reason.text}"


def _sized(sizing: Sizing, placed: int) -> str:
    """Why a model needs its copies; and on how many its requests are spread, where those are more."""
    return _why(sizing.reason) + (f", spread over {placed}" if placed > sizing.copies > 0 else "")


def _held(tick: Tick) -> list[str]:
    """A list, not a table: the UI breaks its long lines, where it would make those of a table run out of sight."""
    rows = [f"- **{h.subject}** — {_why(h.reason)}" for h in tick.plan.holds]
    return ["## Held\n" + _listed(rows)] if rows else []


def _steps(tick: Tick) -> list[str]:
    """What fits the page; the arithmetic of each step is in its table and above, and so are the shares."""
    rows = [{name: row[name] for name in ("step", "reason", "result", "seconds", "detail")} for row in step_rows(tick)]
    for step, row in zip(tick.plan.steps, rows, strict=True):
        if step.kind is StepKind.WEIGH:
            row["step"] = f"weigh {step.model}"
    return ["## Steps\n" + _table(rows, "reconcile-steps")] if rows else []


def _shares(tick: Tick) -> list[str]:
    """The models whose copies get unequal shares, or did until now, and why that changes: those that change first."""
    weights_by_model: dict[str, dict[str, float]] = {}
    for a in tick.placement.assignments:
        weights_by_model.setdefault(a.model, {})[a.replica] = a.weight
    reasons, rows = tick.placement.weight_reasons or {}, []
    for model, weights in sorted(weights_by_model.items(), key=lambda one: (one[0] not in reasons, one[0])):
        if model in reasons or len(set(weights.values())) > 1:
            split = ", ".join(f"{replica} {weight:.2g}" for replica, weight in weights.items())
            rows.append(f"- **{model}**: {split} · {reasons.get(model, 'as it is')}")
    return ["## Shares of requests\n" + _listed(rows, "reconcile-placement")] if rows else []


def _models(tick: Tick) -> str:
    """Numbers, the busiest first, then the reasons of those that do not change: those that do are told first."""
    upper_by_model = {forecast.model: forecast.upper_rps or 0.0 for forecast in tick.forecasts}
    rows = sorted(demand_rows(tick), key=lambda row: -upper_by_model[row["model"]])
    sizing_by_model, placed, changes = {s.model: s for s in tick.sizings}, placed_copies(tick), changed_copies(tick)
    stays = [row["model"] for row in rows[:MOST] if row["model"] not in changes]
    why = "\n".join(f"- {model}: {_sized(sizing_by_model[model], placed[model])}" for model in stays)
    table = _table([_narrow(tick, row) for row in rows], "reconcile-demand")
    return "\n\n".join(filter(None, (READ, table, why)))


READ = (
    "Requests a second seen and forecast (median to upper quantile), what a copy serves of them and takes, "
    "copies that serve, are wanted and have a place:"
)


def _narrow(tick: Tick, row: Row) -> Row:
    """A model's numbers under short names: the UI cuts a table that is wider than its page."""
    return {
        "model": row["model"],
        "req/s": row["demand req/s"],
        "forecast": row["forecast"] if row["forecast"] == row["upper"] else f"{row['forecast']} to {row['upper']}",
        "serves": row["a copy serves"],
        "takes": _room(tick, row["model"]),
        "copies": row["copies"],
        "wanted": row["wanted"],
        "placed": row["placed"],
    }


def _footprints(tick: Tick) -> list[str]:
    """Of the models of which something was seen; what is only declared is in the table above."""
    seen = {model for model, _ in tick.observation.footprints}
    for model in tick.observation.fleet.models:
        if any(need.footprint_seen is not None for need in model.need_by_gpu_type.values()):
            seen.add(model.name)
    rows = [f"- {s.model}: {memory(tick, s.model)}" for s in tick.sizings if s.model in seen]
    return ["## What a copy takes\n" + _listed(rows, "reconcile-demand")] if rows else []


def _seconds(tick: Tick) -> str:
    return _table([{phase: f"{seconds:.3f} s" for phase, seconds in (tick.seconds_by_phase or {}).items()}])


def _room(tick: Tick, model: str) -> str:
    """The room that is kept for a copy: the least and the most of the GPU types."""
    needs = tick.observation.fleet.model_by_name[model].need_by_gpu_type.values()
    rooms = sorted(need.footprint_bytes / 1e6 for need in needs)
    return "-".join(dict.fromkeys(f"{room:.0f}" for room in (rooms[0], rooms[-1]))) + " MB"


def _listed(lines: Sequence[str], artifact: str = "") -> str:
    return "\n".join([*lines[:MOST], *(f"- {rest}" for rest in _rest(len(lines), artifact))])


def _rest(count: int, artifact: str) -> list[str]:
    """That there are more, and the table that has them."""
    where = f": all are in `{artifact}`" if artifact else ""
    return [f"and {count - MOST:,} more{where}"] if count > MOST else []


def _table(rows: Sequence[Row], artifact: str = "") -> str:
    if not rows or not rows[0]:
        return ""
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(row[column]).replace("|", "\\|") for column in head) + " |" for row in rows[:MOST]]
    return "\n".join(lines) + "".join(f"\n\n{rest}" for rest in _rest(len(rows), artifact))
