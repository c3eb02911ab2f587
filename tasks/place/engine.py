"""The placement as arrays, step by step, from what is there."""

from __future__ import annotations

import numpy as np

from tasks.place.bound import Prices, prices
from tasks.place.changes import Changes
from tasks.place.consolidate import consolidate, over_maximum, spare
from tasks.place.construct import construct
from tasks.place.fill import fill
from tasks.place.hurry import hurry
from tasks.place.keep import keep, shed, trim
from tasks.place.level import level
from tasks.place.problem import Problem
from tasks.place.relieve import relieve
from tasks.place.shares import Shares
from tasks.place.squeeze import squeeze
from tasks.place.table import Table
from tasks.place.weigh import weigh
from tasks.place.whole import cheapest_whole
from tasks.place.worth import Worth

MANY = 16
"""Copies missing: so many, and more than a share of all, are placed together, each where it is cheapest for the fleet;
fewer go one by one to the roomiest replica."""
MANY_SHARE = 0.05
SMALL = 2000
"""Copies: up to here there is time to try several sizes of hot copies and take the cheapest."""
SIZES = (1.0, 0.85, 0.7, 0.55, 0.4, 0.3)
"""Of a replica's compute, that one copy of a hot model may take. Smaller ones fill a replica better, larger ones take
less memory: which is cheaper depends on what is scarce."""
HARDLY = 0.04
"""Share of the fleet's cost that smaller copies may cost more, where shares of requests can shift between them."""
FEW = 100
"""Models: up to here whole fleets are tried; in a larger fleet the half-empty replica of each pool is a small share."""
CALM_SHARE = 0.05
"""Copies placed in this tick: with more, nothing is given up for a saving; first what is missing, then what is dear."""


def solve(problem: Problem) -> tuple[Table, Changes]:
    """The table of the copies that should be, and what changes for which reason."""
    table, changes, shares = repair(problem)
    improve(table, changes, shares)
    return table, changes


def repair(problem: Problem) -> tuple[Table, Changes, Shares]:
    """What is missing has a place, and what is asked too much is relieved, as far as that can be; by the fewest new
    replicas."""
    worth = Worth(problem)
    table, changes = _start(problem, worth)
    total = int(problem.wants.copies.sum())
    if is_new := _missing(table) > max(MANY, MANY_SHARE * total):
        table, changes = _constructed(problem, worth, _sizes(problem, total))
    shares = Shares(table)
    weigh(shares, changes)
    fill(table, changes)
    level(table, changes)
    relieve(shares, changes)
    if not is_new:
        squeeze(table, changes)
    return table, changes, shares


def improve(table: Table, changes: Changes, shares: Shares) -> None:
    """What is not needed is given up, for a cheaper fleet."""
    is_calm = not changes.refused and len(changes.placed) <= CALM_SHARE * int(table.problem.wants.copies.sum())
    is_beyond = is_calm and over_maximum(table, changes)
    spare(table, changes)
    if is_calm and not is_beyond:
        consolidate(table, changes)
    weigh(shares, changes)


def _start(problem: Problem, worth: Worth) -> tuple[Table, Changes]:
    table = Table(problem, worth)
    keep(table)
    trim(table)
    shed(table)
    changes = Changes()
    hurry(table, changes)
    return table, changes


def _sizes(problem: Problem, total: int) -> tuple[float, ...]:
    """Those that are tried, the likeliest first: where shares of requests can shift between them, small ones, which
    take up drift."""
    sizes = SIZES[::-1] if problem.splits_by_weight else SIZES
    return sizes if total <= SMALL else sizes[:1]


def _constructed(problem: Problem, worth: Worth, sizes: tuple[float, ...]) -> tuple[Table, Changes]:
    """The best of some ways to place many copies: most copies placed, then the cheapest fleet; where shares can shift
    the first that costs hardly more."""
    best: Prices = prices(problem)
    found: tuple[tuple[int, float], Table, Changes] | None = None
    for size in sizes:
        table, changes = _start(problem, worth)
        construct(table, changes, best, size)
        squeeze(table, changes)
        rank = _missing(table) + len(table.uneven()), float(problem.spots.cost_per_hour[table.is_on].sum())
        least = (rank[0], rank[1] * (1 + HARDLY * problem.splits_by_weight))
        if found is None or least < found[0]:
            found = rank, table, changes
    assert found is not None
    (missing, cost), table, changes = found
    if missing or len(problem.wants.names) > FEW:
        return table, changes
    return cheapest_whole(lambda: _start(problem, worth), best, cost) or (table, changes)


def _missing(table: Table) -> int:
    return int(np.maximum(0, table.problem.wants.copies - table.counts).sum())
