"""What was just placed is not there yet, so that it moves for nothing: where such copies fit elsewhere, too, they make
room for one that fits nowhere else."""

from __future__ import annotations

from tasks.decision import Reason
from tasks.place.changes import Changes
from tasks.place.seek import find, fits, why_here
from tasks.place.table import Table

MOST = 100
"""Copies placed in a tick, up to which this is tried: its time is bounded."""


def rearrange(table: Table, changes: Changes, model: int) -> bool:
    """Place one more copy where others that are not there yet can go elsewhere, the largest first; or False."""
    for spot, others in sorted(_new(table, changes, model).items()):
        mark = table.mark()
        if (moved := _leave(table, model, spot, others)) and (placed := _come(table, model, spot, moved)):
            for other in moved:
                changes.placed.pop((other, spot))
            changes.placed.update(placed)
            return True
        table.undo(mark)
    return False


def _new(table: Table, changes: Changes, model: int) -> dict[int, list[int]]:
    """By replica that may hold the model, the models whose copies were placed there and are not there yet."""
    found: dict[int, list[int]] = {}
    for other, spot in changes.placed if len(changes.placed) <= MOST else ():
        if (other, spot) not in table.present and table.takes[spot] and spot not in table.replicas_of[model]:
            found.setdefault(spot, []).append(other)
    return found


def _leave(table: Table, model: int, spot: int, others: list[int]) -> list[int]:
    """Take as many of them off as it takes for the model to fit; empty: that is not enough."""
    footprint = table.problem.wants.footprint_bytes[:, table.problem.spots.pool[spot]]
    moved = []
    for other in sorted(others, key=lambda other: (-footprint[other], other)):
        table.remove(other, spot)
        moved.append(other)
        if fits(table, model, spot):
            return moved
    return []


def _come(table: Table, model: int, spot: int, moved: list[int]) -> dict[tuple[int, int], Reason]:
    """Put the model there, and those that left elsewhere; empty: not all of them fit, or they would have to wait."""
    placed, is_ready = {(model, spot): why_here(table, model, spot)}, table.problem.spots.is_ready
    table.add(model, spot)
    for other in moved:
        if (to := find(table, other)) is None or (is_ready[spot] and not is_ready[to]):
            return {}
        placed[other, to] = why_here(table, other, to)
        table.add(other, to)
    return placed
