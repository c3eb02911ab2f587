"""A tick in words: what it did, which models' copies change, in one line for the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tasks.decision import Result, Sizing, Tick
from tasks.world import Copy

PHASES = ("observe", "decide", "act", "record")
"""Of a tick's own time; ``decide``: the pure ones together."""


def one_line(tick: Tick) -> str:
    """What the tick did, the models whose copies change with their arithmetic, and its own time."""
    parts = [deeds(tick)]
    changes = changed_copies(tick)
    parts += [f"{change(s, changes)} ({s.reason.text})" for s in tick.sizings if s.model in changes][:3]
    if why := skipped(tick):
        parts.append(f"skipped: {why}")
    held = Counter(hold.reason.code for hold in tick.plan.holds)
    if held:
        parts.append("held: " + ", ".join(f"{n} {code}" for code, n in held.most_common(4)))
    parts += [f"unknown: {u.subject} ({u.why})" for u in tick.observation.unknown[:2]]
    parts += [f"failing: {c.model} in {c.replica} ({c.detail})" for c in failing_copies(tick)[:2]]
    return " · ".join([*parts, _time(tick)])


def deeds(tick: Tick) -> str:
    if not tick.plan.steps:
        return "steady, no step"
    if not tick.outcomes:
        return f"plan only: {len(tick.plan.steps)} steps, {tick.plan.churn} loads and unloads"
    results = Counter(outcome.result for outcome in tick.outcomes)
    kinds = Counter(o.step.kind for o in tick.outcomes if o.result is Result.DONE)
    done = ", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "none"
    wrong = "".join(f", {results[r]} {r}" for r in (Result.FAILED, Result.SKIPPED) if results[r])
    return f"steps: {done}{wrong}"


def skipped(tick: Tick) -> str:
    """Why steps were skipped, as most of those say that waited for no other; empty: none were."""
    done = {outcome.step.id for outcome in tick.outcomes if outcome.result is Result.DONE}
    first = (o for o in tick.outcomes if o.result is Result.SKIPPED and done.issuperset(o.step.needs))
    details = Counter(outcome.detail for outcome in first)
    return details.most_common(1)[0][0] if details else ""


def _time(tick: Tick) -> str:
    seconds = tick.seconds_by_phase or {}
    return ", ".join(f"{phase} {seconds[phase]:.2f} s" for phase in PHASES if phase in seconds)


def copies_now(tick: Tick, model: str) -> int:
    """Copies that serve, as observed."""
    return sum(copy.is_serving for copy in tick.observation.fleet.copies_of(model))


def changed_copies(tick: Tick) -> dict[str, tuple[int, int]]:
    """Copies that serve and copies that should, by model, where the two differ.

    Placement may spread a model over more copies than its demand needs, each with a smaller share: they stay. Where
    there is no room for what it needs, that is what should be.
    """
    placed = placed_copies(tick)
    both = {s.model: (copies_now(tick, s.model), max(s.copies, placed[s.model])) for s in tick.sizings}
    return {model: (now, wanted) for model, (now, wanted) in both.items() if now != wanted}


def placed_copies(tick: Tick) -> Counter[str]:
    return Counter(a.model for a in tick.placement.assignments)


def change(sizing: Sizing, changes: Mapping[str, tuple[int, int]]) -> str:
    now, wanted = changes[sizing.model]
    return f"{sizing.model} {now} → {wanted}"


def failing_copies(tick: Tick) -> list[Copy]:
    return [copy for copy in tick.observation.fleet.copies if copy.is_failing]
