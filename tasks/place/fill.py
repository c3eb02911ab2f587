"""The copies that are missing get a place, the worthiest first: the roomiest replica, a new one, or that of weaker
copies."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np

from tasks.decision import Reason
from tasks.place.changes import Changes, CopyKey
from tasks.place.mend import make_room
from tasks.place.rearrange import rearrange
from tasks.place.seek import find, find_busy, find_slow, grow, refusals, retry_s, spread, why_here
from tasks.place.table import SLACK, Table
from tasks.place.weigh import ease

Rank = tuple[int, int]
"""Worth of a copy, the lesser the more: tier (0 the first copy of a model with demand, 1 its others, 2 a copy that
nobody asks), then priority, higher first."""
LOADS_FOR_ONE = 3
"""Small copies in the place of one that fits nowhere, at most: more loads are worth less than a new replica."""


def fill(table: Table, changes: Changes) -> None:
    """Place what each model misses, the worthiest copies first.

    A copy only displaces what is worth strictly less, so this ends.
    """
    queue: list[tuple[Rank, int, int]] = []

    def want(model: int, nth: int) -> None:
        heapq.heappush(queue, (rank(table, model, nth), nth, model))

    copies = table.problem.wants.copies.tolist()
    for model, held in enumerate(table.replicas_of):
        for nth in range(len(held), copies[model]):
            want(model, nth)
    while queue:
        *_, model = heapq.heappop(queue)
        if table.count(model) >= copies[model]:  # more and smaller ones came in its stead
            continue
        ways = (rearrange, _share, _spread, make_room)
        if find(table, model) is None and any(way(table, changes, model) for way in ways):
            continue
        spot, victims = _spot_for(table, model)
        if spot is None:
            changes.refused[model] = _refusal(table, model)
            continue
        for victim in _come(table, changes, (model, spot), victims):
            want(victim, table.count(victim))


def _come(table: Table, changes: Changes, copy: CopyKey, victims: tuple[int, ...]) -> list[int]:
    """Put a copy where others leave for it; those of them that have no other place yet. One that goes only once another
    serves in its stead has its place at once."""
    model, spot = copy
    name = table.problem.wants.names[model]
    kept = [victim for victim in victims if _is_kept(table, victim)]
    for victim in victims:
        table.remove(victim, spot)
        changes.placed.pop((victim, spot), None)
        changes.displaced[victim, spot] = Reason("displaced", f"made room for {name}, which is worth more")
    changes.placed[copy] = why_here(table, *copy)
    table.add(*copy)
    homeless = []
    for victim in victims:
        if victim in kept and (to := find(table, victim)) is not None:
            changes.placed[victim, to] = why_here(table, victim, to)
            table.add(victim, to)
        else:
            homeless.append(victim)
    return homeless


def _share(table: Table, changes: Changes, model: int) -> bool:
    """Where there is only the memory, shares of requests may make room for the rest."""
    if not table.problem.splits_by_weight or (spot := find_slow(table, model)) is None:
        return False
    mark, floor = table.mark(), np.minimum(table.free_compute, 0.0)
    reason = why_here(table, model, spot)
    table.add(model, spot)
    shifted = ease(table, floor)
    if (table.is_on & (table.free_compute < floor - SLACK)).any():
        table.undo(mark)
        return False
    changes.weigh(shifted, f"so that one more {table.problem.wants.names[model]} fits")
    changes.placed[model, spot] = reason
    return True


def _spread(table: Table, changes: Changes, model: int) -> bool:
    """Where one copy fits in no replica that there is, more and smaller ones may."""
    if not table.is_hot[model]:
        return False
    missing = int(table.problem.wants.copies[model]) - table.count(model)
    spots = spread(table, model, LOADS_FOR_ONE * missing)
    for spot in spots:
        changes.placed[model, spot] = Reason("placed", f"{len(spots)} small copies where {missing} fit nowhere")
    for spot in spots:
        table.add(model, spot)
    return bool(spots)


def rank(table: Table, model: int, nth: int) -> Rank:
    """Worth of a model's copy beside ``nth`` others. Unknown demand is not zero."""
    wants = table.problem.wants
    tier = 2 if wants.demand_rps[model] == 0 else 0 if nth == 0 else 1
    return tier, -int(wants.priority[model])


def _spot_for(table: Table, model: int) -> tuple[int | None, tuple[int, ...]]:
    """Where the copy goes, and the models whose copies leave there for it.

    In this order: a replica that there is, one that a pool of ours could add, that of copies worth less, for a first
    copy one without the compute (a slow copy beats none), one that another autoscaler could add.
    """
    spot = find(table, model)
    if spot is None:
        spot = grow(table, model, is_ours=True)
    if spot is not None:
        return spot, ()
    if (best := min(_displaceable(table, model), default=None)) is not None:
        return best[2], best[3]
    for slow in (find_busy, find_slow) if table.count(model) == 0 else ():
        if (spot := slow(table, model)) is not None:
            return spot, ()
    return grow(table, model, is_ours=False), ()


def _displaceable(table: Table, model: int) -> Iterator[tuple[int, list[Rank], int, tuple[int, ...]]]:
    """For each replica where it helps: how many copies must leave, their worth (least first), it, their models.

    Never a pinned copy.
    """
    wants, spots = table.problem.wants, table.problem.spots
    own = rank(table, model, table.count(model))
    failed = {replica for replica, _, at in table.problem.failures_by_model.get(model, ()) if at > table.problem.now}
    footprint = np.where(wants.is_allowed[model], wants.footprint_bytes[model], np.inf)[spots.pool]
    possible = table.takes & (footprint <= spots.room_bytes) & table.has_capacity(model)
    for spot in np.flatnonzero(possible).tolist():
        if spot in failed or spot in table.replicas_of[model]:
            continue
        worth = {other: rank(table, other, table.count(other) - 1) for other in table.models_in[spot]}
        weaker = [
            other
            for other, its in worth.items()
            if its > own and not wants.is_pinned[other] and _may_go(table, other, spot, its)
        ]
        bytes_over = footprint[spot] - table.free_bytes[spot]
        compute_over = table.compute_at(model, spot, 1) - table.free_compute[spot]
        victims: list[int] = []
        for other in sorted(weaker, key=lambda name: (worth[name], name), reverse=True):
            victims.append(other)
            bytes_over -= wants.footprint_bytes[other, spots.pool[spot]]
            compute_over -= table.compute_at(other, spot)
            if bytes_over <= 0 and compute_over <= SLACK:
                yield len(victims), [(-t, -p) for t, p in (worth[v] for v in victims)], spot, tuple(victims)
                break


def _may_go(table: Table, model: int, spot: int, worth: Rank) -> bool:
    """Whether a copy could be unloaded: the last one that is there of a model with demand could not; one of unknown
    demand only where another can serve in its stead."""
    if _is_kept(table, model):
        return find(table, model, extra=0) is not None
    return worth[0] > 0 or (model, spot) not in table.present


def _is_kept(table: Table, model: int) -> bool:
    """Whether a model, since its demand is unknown, keeps as many copies as are there."""
    if not np.isnan(table.problem.wants.demand_rps[model]):
        return False
    there = sum((model, replica) in table.present for replica in table.replicas_of[model])
    return table.count(model) <= there + len(table.going_of.get(model, ()))


def _refusal(table: Table, model: int) -> Reason:
    problem = table.problem
    if not problem.wants.is_allowed[model][problem.spots.pool].any():
        return Reason("not_allowed", "no pool may hold it")
    seconds = retry_s(table, model)
    if seconds is not None:
        return Reason("backoff", f"its load failed, next try in {seconds:.0f} s")
    texts = [f"{problem.spots.names[replica]}: {why}" for replica, why in refusals(table, model) if why]
    return Reason("no_room", "; ".join(texts) or "no replica in its pools")
