"""Replicas whose compute is over their target are relieved: a copy moves, or a model gets one copy more."""

from __future__ import annotations

import numpy as np

from tasks.decision import Reason
from tasks.place.changes import Changes, Move
from tasks.place.mend import relieve_by_exchange
from tasks.place.seek import addable, find, fits
from tasks.place.shares import Shares
from tasks.place.table import SLACK, Table
from tasks.place.weigh import lighten

HOLE = 0.1
"""Of what a copy costs that takes more than is over: the hole that it leaves is not used again soon."""
MOST_STEPS = 8
"""For one replica in one tick: what is not mended by so many is not mended by more of the same."""


def relieve(shares: Shares, changes: Changes) -> None:
    """Relieve every replica that is over its target by more than noise, the worst first, by one load a step. A step
    leaves room where it was: what is then mended by shares takes no load."""
    table, spots = shares.table, shares.table.problem.spots
    limit = -(spots.room_compute * table.problem.noise + SLACK)
    over = np.flatnonzero(table.is_on & spots.keeps & (table.free_compute < limit))
    for spot in over[np.argsort(table.free_compute[over], kind="stable")].tolist():
        lighten(shares, changes, spot)
        for _ in range(MOST_STEPS):
            if table.free_compute[spot] >= limit[spot] or not _step(table, changes, spot):
                break


def _step(table: Table, changes: Changes, spot: int) -> bool:
    """One load that makes the replica less busy; False: there is none."""
    models = table.models_in[spot]
    if len(models) < 2:
        return False
    busy = f"{table.problem.spots.names[spot]} is over its compute target by {-table.free_compute[spot]:.2f}"
    share = {model: table.compute_at(model, spot) for model in models}
    pinned = table.problem.wants.is_pinned
    stay = {model for model in models if pinned[model] or (model, spot) in changes.urgent}
    movable = [model for model in _smallest_that_helps(share, -table.free_compute[spot]) if model not in stay]
    if (move := _back(table, spot, movable) or _cheapest(table, spot, movable)) is not None:
        return _move(table, changes, move, busy)
    hot = _by_relief(table, share)
    for model in hot:
        if (to := find(table, model)) is not None:
            return _add(table, changes, (model, to), busy)
    if relieve_by_exchange(table, changes, spot, Reason("moved", busy)):
        return True
    ways = [(model, 0) for model in movable] + [(model, 1) for model in hot]
    new = {way: to for way in ways if (to := addable(table, way[0], is_ours=True, extra=way[1])) is not None}
    if not new:
        return False
    (model, is_more), to = min(new.items(), key=lambda one: table.problem.spots.cost_per_hour[one[1]])
    table.switch_on(to)
    return _add(table, changes, (model, to), busy) if is_more else _move(table, changes, (model, spot, to), busy)


def _back(table: Table, spot: int, movable: list[int]) -> Move | None:
    """To where a copy is there that was given up: no load. None: there is none, or no room."""
    for model in movable:
        for to in sorted(table.going_of.get(model, ())):
            if fits(table, model, to, extra=0):
                return model, spot, to
    return None


def _cheapest(table: Table, spot: int, movable: list[int]) -> Move | None:
    """Of the moves that are enough, the one after which the copy costs least more than here, or most less; else the
    first that helps; None: there is room for none."""
    excess = -table.free_compute[spot]
    enough = [model for model in movable if table.compute_at(model, spot) >= excess]
    if enough and (move := _cheapest_for(table, spot, enough)) is not None:
        return move
    for model in movable[len(enough) :]:
        if (to := find(table, model, extra=0)) is not None:
            return model, spot, to
    return None


def _cheapest_for(table: Table, spot: int, models: list[int]) -> Move | None:
    pool = table.problem.spots.pool
    cost = table.worth.cost_by_pool(models, np.array([table.compute_by_pool(model) for model in models]))
    rise = cost - (1 - HOLE) * cost[:, [pool[spot]]]
    least, best = rise.min(axis=1), None
    for k in np.argsort(least, kind="stable").tolist():
        if best is not None and least[k] >= best[0]:
            break
        if (to := find(table, models[k], extra=0)) is not None and (best is None or rise[k, pool[to]] < best[0]):
            best = float(rise[k, pool[to]]), (models[k], spot, to)
    return None if best is None else best[1]


def _add(table: Table, changes: Changes, copy: tuple[int, int], busy: str) -> bool:
    code = "replica_wanted" if table.problem.spots.is_new[copy[1]] else "placed"
    changes.placed[copy] = Reason(code, f"one more copy, all of them smaller: {busy}")
    table.add(*copy)
    return True


def _move(table: Table, changes: Changes, move: Move, busy: str) -> bool:
    model, spot, to = move
    table.move(*move)
    if (model, spot) in table.present:
        changes.displaced[model, spot] = Reason("moved", busy)
    changes.placed.pop((model, spot), None)
    if (model, to) in table.present:
        changes.displaced.pop((model, to), None)
    else:
        code = "replica_wanted" if table.problem.spots.is_new[to] else "moved"
        changes.placed[model, to] = Reason(code, busy)
    return True


def _smallest_that_helps(share: dict[int, float], excess: float) -> list[int]:
    """Models by share of compute: from the smallest that is enough upwards, then the smaller ones downwards."""
    enough = sorted((s, model) for model, s in share.items() if s >= excess)
    rest = sorted(((s, model) for model, s in share.items() if 0 < s < excess), reverse=True)
    return [model for _, model in enough + rest]


def _by_relief(table: Table, share: dict[int, float]) -> list[int]:
    """Models that may have one copy more, by how much smaller that makes the copy here, largest first."""
    wants = table.problem.wants
    relief = {
        model: s / (table.count(model) + 1)
        for model, s in share.items()
        if table.is_hot[model]
        and table.count(model) < wants.max_copies[model]
        and table.divisor(model, 1) > table.divisor(model)
        and not np.isnan(wants.demand_rps[model])
    }
    return sorted((model for model in relief if relief[model] > 0), key=lambda model: (-relief[model], model))
