"""What is there and good stays: which of a model's copies are kept when there are more than it needs."""

from __future__ import annotations

from tasks.place.board import PRESENT, Board
from tasks.place.filters import is_allowed
from tasks.world import Copy, CopyState, Fleet


def keep(board: Board, fleet: Fleet) -> None:
    """Put on the board, for each model, up to as many copies as it should have, the most valuable first."""
    crowd = {name: len(spot.going_by_model) for name, spot in board.spots.items()}
    by_model: dict[str, list[Copy]] = {}
    for copy in fleet.copies:
        spot = board.spots.get(copy.replica)
        if copy.state in PRESENT and spot is not None and spot.keeps and copy.model in spot.going_by_model:
            by_model.setdefault(copy.model, []).append(copy)
    for model in sorted(by_model, key=lambda name: (not board.has_demand(name), -board.model_by_name[name].priority)):
        there = [copy for copy in by_model[model] if _is_good(board, copy)]
        for _ in range(min(len(there), board.sizing_by_model[model].copies)):
            best = min(there, key=lambda copy: _order(board, copy, crowd))
            there.remove(best)
            board.put(model, board.spots[best.replica])


def _is_good(board: Board, copy: Copy) -> bool:
    """Allowed where it is, and within the replica's memory beside what is kept already: a footprint may have grown. The
    headroom may be used up: what is there stays until that is gone, too."""
    spot = board.spots[copy.replica]
    fits = spot.used_bytes + board.load(copy.model, spot).memory_bytes <= spot.memory_bytes
    return fits and is_allowed(board, copy.model, spot)


def _order(board: Board, copy: Copy, crowd: dict[str, int]) -> tuple[object, ...]:
    """Best first: serving, ready, loading, failing; then far from those that are kept already; then in the replica
    that holds most, so that the emptiest can go."""
    spot = board.spots[copy.replica]
    worth = 3 if copy.is_failing else 0 if copy.is_serving else 1 if copy.state is CopyState.READY else 2
    zones = sum(bool(spot.zone) and other.zone == spot.zone for other in board.spots_of(copy.model))
    return worth, zones, -crowd[copy.replica], copy.replica
