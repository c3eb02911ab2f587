"""A replica whose copies fit nowhere as they are can still go, if a few exchanges make room for them."""

from __future__ import annotations

import numpy as np

from tasks.decision import Reason
from tasks.place.changes import Changes, Move
from tasks.place.mend import excess, mend
from tasks.place.seek import find, find_busy
from tasks.place.table import Table
from tasks.place.weigh import ease

FREE = 0.02
"""Of its target, that a replica keeps free which takes more than it has now: demand that trembles must not bring back
the replica that went."""


def clear(table: Table, changes: Changes, spot: int, most: int) -> int | None:
    """Empty a replica by at most ``most`` loads, so that no other is over its target by more than it was; how many it
    takes. None, and the table as it was: it cannot be done."""
    mark, before, took = table.mark(), excess(table), bool(table.takes[spot])
    table.takes[spot] = False
    floor = np.minimum(table.free_compute, FREE * table.problem.spots.room_compute)
    moves = _crowd_out(table, spot)
    shifted = set() if moves is None else ease(table, floor)
    exchanges = None if moves is None else mend(table, most, np.maximum(before, -FREE))
    if moves is not None and exchanges is not None:
        came = {(model, to) for model, _, to in moves + exchanges if to in table.replicas_of[model]}
        loads = len(came - table.present)
        if loads <= most:
            why = f"so that {table.problem.spots.names[spot]} can go"
            changes.move(table.present, moves + exchanges, Reason("moved", why))
            changes.weigh(shifted, why)
            return loads
    table.undo(mark)
    table.takes[spot] = took
    return None


def _crowd_out(table: Table, spot: int) -> list[Move] | None:
    """Its copies to where there is room for each, else to where there is the memory; None: there is not even that."""
    footprint = table.problem.wants.footprint_bytes[:, table.problem.spots.pool[spot]]
    moves = []
    for model in sorted(table.models_in[spot], key=lambda model: (-footprint[model], model)):
        to = find(table, model, extra=0)
        if to is None and (to := find_busy(table, model, extra=0)) is None:
            return None
        table.remove(model, spot)
        table.add(model, to)
        moves.append((model, spot, to))
    return moves
