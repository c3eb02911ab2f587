"""The copies that are missing get a place: the roomiest replica, a new one, or that of copies worth less."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from tasks.decision import Reason
from tasks.place.board import Board, Spot
from tasks.place.filters import is_allowed
from tasks.place.search import Search

Rank = tuple[int, int]
"""Worth of a copy, the lesser the more: tier (0 the first copy of a model with demand, 1 its others, 2 a copy that
nobody asks), then priority, higher first."""
CopyKey = tuple[str, str]
"""Model and replica."""


@dataclass(slots=True)
class Changes:
    """Why each copy is placed or not, as far as it is not just kept."""

    placed: dict[CopyKey, Reason] = field(default_factory=dict)
    displaced: dict[CopyKey, Reason] = field(default_factory=dict)
    refused: dict[str, Reason] = field(default_factory=dict)


def fill(board: Board, search: Search, present: frozenset[CopyKey], changes: Changes) -> None:
    """Place what each model misses, the worthiest copies first.

    A copy only displaces what is worth strictly less, so this ends.
    """
    order = {name: n for n, name in enumerate(board.model_by_name)}
    queue: list[tuple[Rank, int, int, str]] = []

    def want(model: str, nth: int) -> None:
        heapq.heappush(queue, (rank(board, model, nth), nth, order[model], model))

    for name, sizing in board.sizing_by_model.items():
        for nth in range(len(board.spots_of(name)), sizing.copies):
            want(name, nth)
    while queue:
        *_, model = heapq.heappop(queue)
        spot, victims = _spot_for(board, search, model, present)
        if spot is None:
            changes.refused[model] = _refusal(board, search, model)
            continue
        for victim in victims:
            board.take(victim, spot, (victim, spot.name) in present)
            changes.placed.pop((victim, spot.name), None)
            changes.displaced[victim, spot.name] = Reason("displaced", f"made room for {model}, which is worth more")
            want(victim, len(board.spots_of(victim)))
        changes.placed[model, spot.name] = _why(board, model, spot)
        board.put(model, spot)


def rank(board: Board, model: str, nth: int) -> Rank:
    """Worth of a model's copy beside ``nth`` others."""
    tier = 2 if not board.has_demand(model) else 0 if nth == 0 else 1
    return tier, -board.model_by_name[model].priority


def _spot_for(
    board: Board, search: Search, model: str, present: frozenset[CopyKey]
) -> tuple[Spot | None, tuple[str, ...]]:
    """Where the copy goes, and the models whose copies leave there for it.

    In this order: a replica that there is, one that a pool of ours could add, that of copies worth less, for a first
    copy one without the compute (a slow copy beats none), one that another autoscaler could add.
    """
    if (spot := search.find(model) or search.grow(model, ours=True)) is not None:
        return spot, ()
    options = list(_displaceable(board, search, model, present))
    if options:
        _, _, name, victims = min(options)
        return board.spots[name], victims
    is_first = not board.spots_of(model)
    return (search.find_slow(model) if is_first else None) or search.grow(model, ours=False), ()


def _displaceable(
    board: Board, search: Search, model: str, present: frozenset[CopyKey]
) -> Iterator[tuple[int, list[Rank], str, tuple[str, ...]]]:
    """For each spot where it helps: how many copies must leave, their worth (least first), the spot, their models.

    Never a pinned copy, nor the last one that is there of a model with demand: it could not be unloaded.
    """
    own = rank(board, model, len(board.spots_of(model)))
    for spot in board.spots.values():
        if not is_allowed(board, model, spot) or model in spot.load_by_model:
            continue
        worth = {other: rank(board, other, len(board.spots_of(other)) - 1) for other in spot.load_by_model}
        weaker = [
            other
            for other, its in worth.items()
            if its > own
            and not board.model_by_name[other].is_pinned
            and (its[0] > 0 or (other, spot.name) not in present)
        ]
        victims: list[str] = []
        for other in sorted(weaker, key=lambda name: (worth[name], name), reverse=True):
            victims.append(other)
            if search.fits_without(model, spot, victims):
                yield len(victims), [(-t, -p) for t, p in (worth[v] for v in victims)], spot.name, tuple(victims)
                break


def _why(board: Board, model: str, spot: Spot) -> Reason:
    load = board.load(model, spot)
    memory = f"{load.memory_bytes / 1e6:.0f} MB into {(spot.room_bytes - spot.used_bytes) / 1e6:.0f} MB left"
    compute = f"compute {load.compute:.2f} into {spot.room_compute - spot.used_compute:.2f}"
    if spot.is_new:
        return Reason("replica_wanted", f"fits in no replica there is: {memory}, {compute}, in a new {spot.pool.name}")
    return Reason("placed", f"{memory}, {compute}")


def _refusal(board: Board, search: Search, model: str) -> Reason:
    if not any(is_allowed(board, model, spot) for spot in (*board.spots.values(), *search.unused)):
        return Reason("not_allowed", "no pool may hold it")
    retry_s = search.retry_s(model)
    if retry_s is not None:
        return Reason("backoff", f"its load failed, next try in {retry_s:.0f} s")
    return Reason("no_room", search.refusals(model))
