"""New replicas that are not worth their cost are given up again before anybody starts them: nothing is loaded there
yet, so that moving costs nothing."""

from __future__ import annotations

import numpy as np

from tasks.place.changes import Changes
from tasks.place.seek import find, spread, why_here
from tasks.place.table import Table

PARTS = 16
"""Smaller copies in the place of one, at most: what the hottest model's copies leave free in each replica is enough for
many of the next one."""


def squeeze(table: Table, changes: Changes) -> None:
    """Empty and drop new replicas of ours that are not asked for yet, the emptiest for their cost first, as long as
    their copies fit elsewhere, a hot one's as smaller ones."""
    spots = table.problem.spots
    new = np.flatnonzero(table.is_on & spots.is_new & spots.is_ours & ~spots.is_asked)
    memory = 1 - table.free_bytes[new] / np.maximum(spots.room_bytes[new], 1.0)
    compute = 1 - table.free_compute[new] / np.maximum(spots.room_compute[new], 1e-9)
    order = np.lexsort((new, np.maximum(memory, compute)))
    for spot in new[order].tolist():
        _drop(table, changes, spot)


def _drop(table: Table, changes: Changes, spot: int) -> bool:
    """Empty one new replica and switch it off; or leave it, and False."""
    wants, spots = table.problem.wants, table.problem.spots
    footprint = wants.footprint_bytes[:, spots.pool[spot]]
    mark = table.mark()
    table.takes[spot] = False
    moves: list[tuple[int, int]] = []
    for model in sorted(table.models_in[spot], key=lambda model: (-footprint[model], model)):
        one = find(table, model, extra=0)
        table.remove(model, spot)
        into = [one] if one is not None else spread(table, model, PARTS) if table.is_hot[model] else []
        if not into:
            table.undo(mark)
            table.takes[spot] = True
            return False
        for to in into:
            table.add(model, to)
            moves.append((model, to))
    for model, to in moves:
        changes.placed.pop((model, spot), None)
        changes.placed[model, to] = why_here(table, model, to)
    table.is_on[spot] = False
    return True
