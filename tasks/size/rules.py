"""The rules of sizing, one function each: how many copies, and why, from one model's evidence."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.decision import Reason
from tasks.size.evidence import Evidence

REACT = 2.0
"""Times the mean queue time that goes with the objective: the mean of a window's requests varies by about as much as
itself, and what lies within chance adds no copy."""

LUCK = 2.0
"""Standard deviations of the requests of an interval, as of a Poisson process: 5 req/s are 150 in 30 s, give or take
12, which is 0.4 req/s."""
RISE = 3.0
"""Times the demand that was last seen: a rise is carried on to this much and no further, since it may be a jump."""


class Wish(NamedTuple):
    """Copies, the load that they are for, and why."""

    copies: int
    demand_rps: float
    reason: Reason


def copies_for(rate_rps: float, capacity_rps: float) -> int:
    """Every copy gets an equal share of the load and must meet the objective on it: 84 / 31 -> 3 copies.

    Poisson arrivals split at random stay Poisson (Bertsekas and Gallager, *Data Networks*, 2nd ed., 1992, 3.3), so each
    copy is a station of its own. A gateway that sends to the less busy one does better (Mitzenmacher, *The power of two
    choices*, 2001): the answer holds for any gateway, and errs towards more copies.
    """
    return math.ceil(round(rate_rps / capacity_rps, 9))


def by_demand(e: Evidence, demand_rps: float) -> Wish:
    """Copies that the forecast's upper quantile needs within the objective."""
    objective, capacity = e.model.objective, e.capacity
    copies = copies_for(demand_rps, capacity.rps)
    text = (
        f"{demand_rps:.1f} req/s at {e.limits.quantile:g} quantile / {capacity.rps:.1f} req/s a copy within "
        f"{objective.queue_ms:g} ms at p{objective.percentile:g} ({capacity.source}) "
        f"-> {plural(copies)}"
    )
    return Wish(copies, demand_rps, Reason("demand", text))


def by_queue(e: Evidence) -> Wish | None:
    """The reactive rule: the load that the measured mean queue time means, whatever was forecast.

    Mean is compared with mean: the measured one with the formula's at the capacity. The load is summed over what each
    copy's own queue time means: a copy that still works off its backlog tells nothing of those that were added since.
    """
    if e.queue_ms is None or not e.serving:
        return None
    capacity = e.capacity
    usual_ms = capacity.station.mean_wait_s(capacity.rps) * 1000
    if e.queue_ms <= REACT * usual_ms:
        return None
    implied_rps = sum(
        e.capacity_by_gpu_type.get(gpu, capacity).station.load_at_mean_wait(queue_ms / 1000)
        for gpu, queue_ms in e.queue_ms_by_copy
    )
    copies = copies_for(implied_rps, capacity.rps)
    text = (
        f"mean queue time {e.queue_ms:.0f} ms where the objective allows {usual_ms:.1f} ms means "
        f"{implied_rps:.1f} req/s on {plural(e.serving)} / {capacity.rps:.1f} req/s a copy -> {plural(copies)}"
    )
    return Wish(copies, implied_rps, Reason("queue_over_objective", text))


def by_rise(e: Evidence, demand_rps: float) -> Wish | None:
    """The reactive rule for demand: seen above the forecast's upper quantile by more than the margin and more than
    chance, it does something that the forecast does not know, and its rise over the last interval is carried on to the
    horizon.

    From 5 to 8 req/s in 30 s, 90 s ahead: 8 + 3 / 30 * 90 = 17 req/s.
    """
    times, rps = e.demand
    chance_rps = LUCK * math.sqrt(demand_rps / e.limits.interval_s)
    if not times.size or rps[-1] <= demand_rps * (1 + e.limits.margin) + chance_rps:
        return None
    earlier = np.flatnonzero(times <= times[-1] - e.limits.interval_s)
    if not earlier.size:
        return None
    before = int(earlier[-1])
    rise = max(0.0, rps[-1] - rps[before]) / (times[-1] - times[before])
    expected_rps = float(min(rps[-1] + rise * e.horizon_s, rps[-1] * RISE))
    capacity = e.capacity
    copies = copies_for(expected_rps, capacity.rps)
    text = (
        f"{rps[before]:.1f} and then {rps[-1]:.1f} req/s were seen where {demand_rps:.1f} were forecast: "
        f"{expected_rps:.1f} in {e.horizon_s:g} s / {capacity.rps:.1f} req/s a copy -> {plural(copies)}"
    )
    return Wish(copies, expected_rps, Reason("demand_over_forecast", text))


def clamped(e: Evidence, wish: Wish) -> Wish:
    """Within the policy, and within the replicas that could exist."""
    model, most = e.model, e.most
    if wish.copies < model.min_copies:
        text = f"{_short(wish)}, the policy keeps {model.min_copies}"
        wish = Wish(model.min_copies, wish.demand_rps, Reason("min_copies", text))
    if wish.copies > most:
        limit = (
            f"the policy allows {most}" if model.max_copies <= e.room else f"no more than {most} replicas can hold it"
        )
        return Wish(most, wish.demand_rps, Reason("max_copies", f"{_short(wish)}, {limit}"))
    return wish


def stabilised(e: Evidence, wish: Wish) -> Wish:
    """Fewer copies than now only with margin, and only after the stabilisation window; never more than is allowed."""
    there = min(e.current, e.most)
    if wish.copies >= there:
        return wish
    margin_rps = wish.demand_rps * (1 + e.limits.margin)
    safe = min(copies_for(margin_rps, e.capacity.rps), there)
    window_s, remembered = e.limits.stabilisation_s, remembered_copies(e)
    if remembered is None:
        text = f"{_short(wish)}, but what was wanted over {window_s:g} s is not known in full: {plural(there)} stay"
        return Wish(there, wish.demand_rps, Reason("window_unknown", text))
    if min(remembered, there) > max(wish.copies, safe):
        copies = min(remembered, there)
        text = f"{_short(wish)}, but {remembered} were wanted within {window_s:g} s: {plural(copies)} stay"
        return Wish(copies, wish.demand_rps, Reason("stabilising", text))
    if safe > wish.copies:
        text = f"{_short(wish)}, but {margin_rps:.1f} req/s with {e.limits.margin:.0%} margin needs {safe}"
        return Wish(safe, wish.demand_rps, Reason("no_margin", text))
    return wish


def remembered_copies(e: Evidence) -> int | None:
    """The most that past ticks wanted within the stabilisation window; None: not known in full."""
    times, copies = e.wanted
    window_s, slack_s = e.limits.stabilisation_s, 2 * e.limits.interval_s
    if window_s <= 0:
        return 0
    inside = times >= e.now - window_s
    if not inside.any() or _longest_gap_s(times[inside], e.now - window_s, e.now) > slack_s:
        return None
    return int(copies[inside].max())


def _longest_gap_s(times: NDArray[np.float64], start: float, end: float) -> float:
    """Between two neighbouring samples, the start and the end counting as samples."""
    edges: list[float] = [start, *times.tolist(), end]
    return max(after - before for before, after in pairwise(edges))


def held(e: Evidence) -> tuple[int, Reason]:
    """Demand is unknown: as many copies as there are, never fewer."""
    copies = max(e.held, e.model.min_copies)
    newest = f"newest sample {e.now - e.demand[0][-1]:.0f} s old" if e.demand[0].size else "no sample"
    return copies, Reason("demand_unknown", f"{newest}, limit {e.limits.stale_s:g} s -> {plural(copies)} held")


def asleep(e: Evidence) -> Reason | None:
    """Why a model is at zero copies by policy: nobody asks, or nobody asked for the idle time. None: it is not."""
    idle_s = e.model.idle_s
    if e.model.min_copies > 0:
        return None
    if e.current == 0 and _last_request_s_ago(e, min(max(2 * e.limits.interval_s, e.limits.stale_s), idle_s)) is None:
        return Reason("asleep", "no request, 0 copies by policy")
    times = e.demand[0]
    is_known = _longest_gap_s(times[times > e.now - idle_s], e.now - idle_s, e.now) <= e.limits.stale_s
    if e.current > 0 and is_known and _last_request_s_ago(e, idle_s) is None:
        return Reason("idle", f"no request for {idle_s:g} s -> 0 copies")
    return None


def awake(e: Evidence, wish: Wish) -> Wish:
    """A model that may go to zero copies has one from its first request until it was idle for long enough."""
    if e.model.min_copies > 0 or (wish.copies > 0 and e.current > 0):
        return wish
    copies = max(1, wish.copies)
    if e.current == 0:
        asked = f"a request {_last_request_s_ago(e, e.model.idle_s):.0f} s ago, no copy"
        return Wish(copies, wish.demand_rps, Reason("cold_request", f"{asked} -> {plural(copies)}"))
    text = f"{_short(wish)}, but it was not seen idle for {e.model.idle_s:g} s: 1 copy stays"
    return Wish(copies, wish.demand_rps, Reason("min_copies", text))


def _last_request_s_ago(e: Evidence, within_s: float) -> float | None:
    times, rps = e.demand
    asked = times[(times > e.now - within_s) & (rps > 0)]
    return float(e.now - asked[-1]) if asked.size else None


def _short(wish: Wish) -> str:
    return f"{wish.demand_rps:.1f} req/s would need {plural(wish.copies)}"


def plural(copies: int) -> str:
    return "1 copy" if copies == 1 else f"{copies} copies"
