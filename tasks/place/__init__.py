"""place: which models should sit in which replicas, from where they are today."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.decision import Assignment, Hold, Placement, Reason, Sizing
from tasks.place.board import PRESENT, Board, lay, new_spots, staying
from tasks.place.consolidate import consolidate, over_maximum, spare
from tasks.place.fill import Changes, CopyKey, fill
from tasks.place.keep import keep
from tasks.place.search import Search
from tasks.world import Fleet, Limits, Observation, Pool

__all__ = ["place"]


def place(observation: Observation, sizings: Sequence[Sizing], limits: Limits) -> Placement:
    """Keep what is there and good, place what is missing, then give up the replicas that are not needed.

    Incremental and deterministic: the same fleet and sizings give the same placement, and a fleet that is as the
    placement wants it gives no change.
    """
    fleet = observation.fleet
    board = lay(fleet, sizings)
    present = frozenset((c.model, c.replica) for c in fleet.copies if c.state in PRESENT)
    search = _search(board, observation, limits)
    keep(board, fleet)
    kept = frozenset((model, spot.name) for spot in board.spots.values() for model in spot.load_by_model)
    changes = Changes()
    fill(board, search, present, changes)
    awaited = {name for model in changes.refused for name in search.awaited(model)}
    is_complete = not changes.placed and not changes.refused  # first what is missing, then what can be saved
    beyond = over_maximum(board, search) if is_complete else {}
    gone = beyond | spare(board, [spot for spot in board.spots.values() if spot.name not in awaited], beyond)
    if is_complete and not beyond:
        gone |= consolidate(board, search, limits, gone)
    counts = {pool.name: _count(fleet, board, pool, gone) for pool in fleet.pools}
    return Placement(
        assignments=_assignments(board, kept, changes, gone),
        replicas_by_pool={name: count for name, (count, _) in counts.items()},
        leaving=tuple((name, reason) for name, reason in gone.items() if board.spots[name].pool.is_scaled_by_us),
        pool_reasons={name: reason for name, (_, reason) in counts.items() if reason is not None},
        surplus=_surplus(board, present, changes, gone),
        holds=tuple(Hold(f"model:{model}", reason) for model, reason in changes.refused.items()),
    )


def _search(board: Board, observation: Observation, limits: Limits) -> Search:
    return Search(
        board,
        observation.now,
        limits.interval_s,
        {(failure.model, failure.replica): failure for failure in observation.load_failures},
        frozenset((copy.model, copy.replica) for copy in observation.fleet.copies if copy.is_routed),
        new_spots(observation.fleet),
    )


def _count(fleet: Fleet, board: Board, pool: Pool, gone: dict[str, Reason]) -> tuple[int, Reason | None]:
    """Replicas that the pool should have, and why that is not what it has."""
    there = len(staying(fleet, pool))
    going = sum(board.spots[name].pool.name == pool.name for name in gone)
    new = [spot for spot in board.spots.values() if spot.is_new and spot.pool.name == pool.name]
    # those that are asked for already come whether something is to be in them or not; those that are there beyond what
    # is asked for go, unless more are wanted
    asked = pool.replicas
    count = max(asked - going, there - going + len(new) if new else 0, pool.min_replicas)
    if count == asked:
        return count, None
    if count < asked:
        return count, Reason("replica_spare", f"{going} of {asked} replicas are not needed")
    if there + len(new) < pool.min_replicas:
        return count, Reason("pool_min", f"{asked} replicas, the pool's minimum is {pool.min_replicas}")
    models = sorted({model for spot in new for model in spot.load_by_model})
    return count, Reason("replica_wanted", f"{', '.join(models)} fit in none of the {there} replicas there are")


def _assignments(
    board: Board, kept: frozenset[CopyKey], changes: Changes, gone: dict[str, Reason]
) -> tuple[Assignment, ...]:
    """By replica and model. What is neither kept nor placed was moved so that a replica can go."""
    leaving = ", ".join(gone)
    return tuple(
        Assignment(
            model,
            name,
            changes.placed.get((model, name))
            or (
                Reason("kept", "it is there") if (model, name) in kept else Reason("moved", f"so that {leaving} can go")
            ),
        )
        for name, spot in sorted(board.spots.items())
        for model in sorted(spot.load_by_model)
    )


def _surplus(
    board: Board, present: frozenset[CopyKey], changes: Changes, gone: dict[str, Reason]
) -> dict[CopyKey, Reason]:
    """Why each copy that is there and should not be goes."""
    found = {}
    for name, spot in board.spots.items():
        for model in spot.going_by_model.keys() & {m for m, replica in present if replica == name}:
            sizing = board.sizing_by_model[model]
            why = changes.displaced.get((model, name)) or gone.get(name)
            found[model, name] = why or Reason("surplus", f"{sizing.copies} wanted: {sizing.reason}")
    return found
