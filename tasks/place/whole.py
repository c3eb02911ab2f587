"""Whole fleets near the bound. The bound rounds nothing; a fleet of a dozen replicas that is the bound rounded up in
each pool has a half-empty replica in each. So the fleets of whole replicas that could do are tried, cheapest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np

from tasks.decision import Reason
from tasks.place.bound import Prices, market, prices
from tasks.place.changes import Changes
from tasks.place.construct import construct
from tasks.place.mend import mend
from tasks.place.problem import Flags, Floats, Ints, Problem
from tasks.place.seek import find_busy, why_here
from tasks.place.table import Table

REACH = 3
"""Replicas of a pool more or fewer than the bound's fraction. The optimum of 50 models in 12 replicas of four types has
5, 5, 5 and 0 of them where the fractions are 1.3, 5.3, 4.8 and 0.5."""
TRIED = 12
"""Of the fleets, at most: each costs some constructions."""
SIZES = (1.0, 0.55, 0.3)
"""Of a replica's compute, that one copy of a hot model may take."""
EXCHANGED = 60
"""Moves that mend such a fleet, at most: most of what they move is not loaded yet, and costs no load."""
MOST_POOLS = 6
"""The fleets within reach grow with the power of the pools."""


def cheapest_whole(
    start: Callable[[], tuple[Table, Changes]], worth: Prices, most_cost: float
) -> tuple[Table, Changes] | None:
    """The cheapest whole fleet in which everything finds its place, by a construction and exchanges; None: none that is
    cheaper than ``most_cost`` an hour was found. ``start``: makes a table of what is there."""
    table, _ = start()
    for fleet, its_worth in islice(_fleets(table.problem, worth, table.is_on, most_cost), TRIED):
        for size in SIZES:
            table, changes = start()
            construct(table, changes, its_worth, size, fleet)
            if _crowd_in(table, changes) and (moves := mend(table, EXCHANGED)) is not None:
                changes.move(
                    table.present, moves, Reason("placed", "exchanged, so that the cheaper fleet has room for all")
                )
                return table, changes
    return None


def _crowd_in(table: Table, changes: Changes) -> bool:
    """What found no place goes where there is the memory, and so do more copies where these have too much to serve;
    False: nowhere is."""
    wants = table.problem.wants
    for model, (count, most) in enumerate(zip(wants.copies.tolist(), wants.max_copies.tolist(), strict=True)):
        while table.count(model) < count or (table.count(model) < most and table.over_capacity(model)):
            if (spot := find_busy(table, model)) is None:
                return False
            changes.placed[model, spot] = why_here(table, model, spot)
            table.add(model, spot)
    return True


def _fleets(problem: Problem, worth: Prices, is_on: Flags, most_cost: float) -> Iterator[tuple[Ints, Prices]]:
    """New replicas by pool, (P,), beside those that are on, and what a pool's replica is worth in that fleet; cheapest
    first, cheaper than ``most_cost`` an hour, and none of those that the bound proves too small."""
    spots, count = problem.spots, len(problem.pools)
    if count > MOST_POOLS:
        return
    there = np.bincount(spots.pool[is_on & ~spots.is_new], minlength=count)
    free = np.bincount(spots.pool[spots.is_new & spots.is_ours], minlength=count)
    asked = np.bincount(spots.pool[spots.is_new & spots.is_asked], minlength=count)
    least = np.maximum(asked, np.array([pool.min_replicas for pool in problem.pools]) - there)
    wanted = _fractions(problem, worth) - there
    low = np.clip(np.floor(wanted) - REACH, least, free).astype(np.int64)
    high = np.clip(np.ceil(wanted) + REACH, low, free).astype(np.int64)
    axes = [np.arange(a, b + 1) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    new = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, count)
    cost = (new + there) @ np.array([pool.cost_per_hour for pool in problem.pools])
    near = np.flatnonzero((cost < most_cost - 1e-9) & (cost >= worth.bound_per_hour - 1e-9))
    order = np.lexsort((*new[near].T[::-1], cost[near]))
    for n in near[order].tolist():
        exactly = tuple(
            replace(pool, min_replicas=count, max_replicas=count, replicas=count)
            for pool, count in zip(problem.pools, (new[n] + there).tolist(), strict=True)
        )
        most = cost[n] + 1e-6
        found = prices(replace(problem, pools=exactly), evaluations=0, enough_per_hour=most)
        if found.bound_per_hour <= most:
            yield new[n], found


def _fractions(problem: Problem, worth: Prices) -> Floats:
    """(P,) replicas that the bound takes of each pool."""
    m = market(problem)
    share = worth.share[m.models]
    fractions: Floats = np.maximum((share * m.load).sum(axis=0), (share * np.minimum(m.taken, 1e6)).sum(axis=0))
    return fractions
