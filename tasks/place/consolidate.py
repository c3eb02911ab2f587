"""Replicas that are not needed go: those that are empty, and those whose copies fit elsewhere, if it pays."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.decision import Reason
from tasks.place.board import Board, Spot
from tasks.place.search import Search
from tasks.world import Limits


def spare(board: Board, spots: list[Spot], beyond: Mapping[str, Reason]) -> dict[str, Reason]:
    """The replicas that nothing should be in, as far as their pools have more than their minimum; those that are
    ``beyond`` their pool's maximum go already. Another autoscaler's too: it is told that so many fewer are wanted."""
    gone: dict[str, Reason] = {}
    for spot in spots:
        left = _count(board, spot, {**beyond, **gone})
        if spot.name not in beyond and not spot.load_by_model and _is_there(spot) and left > spot.pool.min_replicas:
            why = f"empty, {left} replicas, the pool's minimum is {spot.pool.min_replicas}"
            gone[spot.name] = Reason("replica_spare", why)
    return gone


def consolidate(board: Board, search: Search, limits: Limits, gone: Mapping[str, Reason]) -> dict[str, Reason]:
    """The one replica whose copies can go elsewhere for the largest saving, its copies moved on the board.

    It goes when the share of the fleet's cost that it saves is at least ``limits.saving_factor`` times the share of the
    copies that must move: the rule by which Karpenter weighs a disruption (kubernetes-sigs/karpenter,
    ``pkg/controllers/disruption``). One in a tick, and none comes in its place: so this ends.
    """
    there = [spot for spot in board.spots.values() if spot.name not in gone]
    cost = sum(spot.pool.cost_per_hour for spot in there)
    copies = sum(len(spot.load_by_model) for spot in there)
    candidates = [spot for spot in there if _may_go(spot) and spot.load_by_model and not _is_bound(board, spot)]
    for spot in sorted(candidates, key=lambda s: (-s.pool.cost_per_hour, len(s.load_by_model), s.name)):
        if _count(board, spot, gone) <= spot.pool.min_replicas:
            continue
        saving, moving = spot.pool.cost_per_hour / max(cost, 1e-9), len(spot.load_by_model) / max(copies, 1)
        if saving < limits.saving_factor * moving:
            continue
        if _move_out(board, search, spot, limits.margin, gone):
            text = (
                f"saves {saving:.0%} of the fleet's cost, moves {moving:.0%} of its copies "
                f"({saving:.0%} >= {limits.saving_factor:g} x {moving:.0%})"
            )
            return {spot.name: Reason("consolidated", text)}
    return {}


def over_maximum(board: Board, search: Search) -> dict[str, Reason]:
    """Replicas beyond their pool's maximum, the emptiest first, once their copies fit elsewhere."""
    gone: dict[str, Reason] = {}
    for spot in sorted(board.spots.values(), key=lambda s: (len(s.load_by_model), s.name)):
        count = _count(board, spot, gone)
        is_too_many = _may_go(spot) and count > spot.pool.max_replicas and not _is_bound(board, spot)
        if is_too_many and _move_out(board, search, spot, 0.0, gone):
            gone[spot.name] = Reason("pool_max", f"{count} replicas, the pool's maximum is {spot.pool.max_replicas}")
    return gone


def _move_out(board: Board, search: Search, spot: Spot, margin: float, gone: Mapping[str, Reason]) -> bool:
    """Move all copies, which are all there, elsewhere; or none, and False."""
    before = {name: (dict(s.load_by_model), dict(s.going_by_model)) for name, s in board.spots.items()}
    held = sorted(spot.load_by_model, key=lambda model: -spot.load_by_model[model].memory_bytes)
    for model in held:
        to = search.find(model, without={spot.name, *gone}, margin=margin)
        if to is None:
            for name, (load, going) in before.items():
                board.spots[name].load_by_model, board.spots[name].going_by_model = load, going
            return False
        board.take(model, spot, is_there=True)
        board.put(model, to)
    return True


def _is_there(spot: Spot) -> bool:
    return spot.is_ready and not spot.is_new and not spot.closed


def _may_go(spot: Spot) -> bool:
    return _is_there(spot) and spot.pool.is_scaled_by_us


def _is_bound(board: Board, spot: Spot) -> bool:
    return any(board.model_by_name[model].is_pinned for model in spot.load_by_model)


def _count(board: Board, spot: Spot, gone: Mapping[str, Reason]) -> int:
    """Replicas of the spot's pool that stay; those that are there beyond what is asked for go already."""
    own = [s for s in board.spots.values() if s.pool.name == spot.pool.name and s.closed != "it is leaving"]
    excess = max(0, sum(not s.is_new for s in own) - spot.pool.replicas)
    return sum(s.name not in gone for s in own) - excess
