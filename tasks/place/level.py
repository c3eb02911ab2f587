"""Copies that get more requests than they can serve within the objective where they are, since a gateway gives the slow
copy as many as the fast one."""

from __future__ import annotations

import numpy as np

from tasks.decision import Reason
from tasks.place.changes import Changes, Move
from tasks.place.mend import make_room
from tasks.place.seek import addable, find, spread
from tasks.place.table import Table


def level(table: Table, changes: Changes) -> None:
    """Move them to where they can, or give the model so many copies that all can, whichever takes fewer loads; else one
    more, so that each gets less; else one of them moves; else a replica is added for one, the cheapest. By more than
    noise only: demand that trembles moves nothing."""
    for model in table.uneven(table.problem.noise).tolist():
        over = table.over_capacity(model, table.problem.noise)
        if not over:  # exchanges for a model before it have mended it
            continue
        why = _why(table, model, over[0])
        ways = sorted((_more(table, model), _moved(table, model, over)), key=lambda moves: len(moves) or np.inf)
        moves = ways[0] or _one_more(table, model)
        if not moves and _may_have_more(table, model) and make_room(table, changes, model):
            continue
        moves = moves or _one_moved(table, model, over) or _grown(table, model, over)
        for move in moves:
            table.move(*move)
        code = "replica_wanted" if any(table.problem.spots.is_new[to] for *_, to in moves) else "moved"
        changes.move(table.present, moves, Reason(code, why))


def _may_have_more(table: Table, model: int) -> bool:
    return table.count(model) < int(table.problem.wants.max_copies[model])


def _more(table: Table, model: int) -> list[Move]:
    """So many copies more that each is within its capacity where it is; empty: there is no room for them."""
    wants, held = table.problem.wants, table.replicas_of[model]
    least = wants.capacity_rps[model, table.problem.spots.pool[held]].min()
    copies = int(np.ceil(wants.demand_rps[model] / max(least, 1e-9) - 1e-9))
    spots = spread(table, model, copies - len(held))
    return [(model, -1, to) for to in spots] if len(spots) + len(held) >= copies else []


def _moved(table: Table, model: int, over: list[int]) -> list[Move]:
    """Each of these copies to where it can serve its share; empty: there is no room for all."""
    mark, moves = table.mark(), list[Move]()
    while len(moves) < len(over) and (move := _one_moved(table, model, over[len(moves) :])):
        moves += move
        table.move(*moves[-1])
    table.undo(mark)
    return moves if len(moves) == len(over) else []


def _one_moved(table: Table, model: int, over: list[int]) -> list[Move]:
    """The first of them; empty: there is no room."""
    to = None if table.problem.wants.is_pinned[model] else find(table, model, extra=0)
    return [] if to is None else [(model, over[0], to)]


def _one_more(table: Table, model: int) -> list[Move]:
    to = find(table, model) if _may_have_more(table, model) else None
    return [] if to is None else [(model, -1, to)]


def _grown(table: Table, model: int, over: list[int]) -> list[Move]:
    """One move into the cheapest replica that a pool could add, or one copy more there; empty: there is none."""
    found = []
    for source in [-1] if table.problem.wants.is_pinned[model] else [-1, *over]:
        is_more = source < 0 and _may_have_more(table, model)
        if is_more or source >= 0:
            to = addable(table, model, is_ours=True, extra=int(is_more))
            found += [] if to is None else [(table.problem.spots.cost_per_hour[to], (model, source, to))]
    if not found:
        return []
    move = min(found)[1]
    table.switch_on(move[2])
    return [move]


def _why(table: Table, model: int, replica: int) -> str:
    wants, pool = table.problem.wants, table.problem.spots.pool[replica]
    rate, most = wants.demand_rps[model] / table.divisor(model), wants.capacity_rps[model, pool]
    return f"{rate:.1f} req/s a copy > {most:.1f} within the objective on {table.problem.pools[pool].gpu_type}"
