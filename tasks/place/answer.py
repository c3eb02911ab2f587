"""The placement as a value with its reasons, from the table and its changes."""

from __future__ import annotations

from tasks.decision import Assignment, Hold, Placement, Reason
from tasks.place.changes import Changes
from tasks.place.table import Table
from tasks.world import Fleet, Pool, ReplicaState

KEPT = Reason("kept", "it is there")


def answer(table: Table, fleet: Fleet, changes: Changes) -> Placement:
    """Assignments by replica and model, counts by pool, and why what is there goes or what is wanted is left out."""
    names, spots = table.problem.wants.names, table.problem.spots.names
    counts = _counts(table, fleet, changes)
    return Placement(
        assignments=_assignments(table, changes),
        replicas_by_pool={pool: count for pool, (count, _) in counts.items()},
        leaving=tuple((spots[s], reason) for s, reason in changes.gone.items() if table.problem.spots.is_ours[s]),
        pool_reasons={pool: reason for pool, (_, reason) in counts.items() if reason is not None},
        surplus=_surplus(table, changes),
        holds=tuple(Hold(f"model:{names[model]}", reason) for model, reason in changes.refused.items()),
        weight_reasons={names[model]: reason for model, reason in changes.weighed.items()},
    )


def _assignments(table: Table, changes: Changes) -> tuple[Assignment, ...]:
    names, spots, placed = table.problem.wants.names, table.problem.spots.names, changes.placed
    order = sorted(range(len(spots)), key=spots.__getitem__)
    return tuple(
        Assignment(names[model], spots[spot], placed.get((model, spot), KEPT), _weight(table, model, spot))
        for spot in order
        for model in sorted(table.models_in[spot], key=names.__getitem__)
    )


def _weight(table: Table, model: int, spot: int) -> float:
    """Rounded, as a gateway keeps it: so the next tick wants the same."""
    return round(table.weight(model, spot), 3)


def _surplus(table: Table, changes: Changes) -> dict[tuple[str, str], Reason]:
    """Why each copy that is there and should not be goes, in the order in which they were given up; first those that
    never could stay."""
    there, names, spots = table.problem.there, table.problem.wants.names, table.problem.spots.names
    turn = {copy: n for n, copy in enumerate(table.given_up())}
    rows = zip(there.model.tolist(), there.replica.tolist(), there.worth.tolist(), strict=True)
    going = [(m, replica) for m, replica, worth in rows if worth < 4 and replica in table.going_of.get(m, ())]
    found = {}
    for model, replica in sorted(going, key=lambda copy: turn.get(copy, -1)):
        sizing = table.problem.sizings[model]
        why = changes.displaced.get((model, replica)) or changes.gone.get(replica)
        found[names[model], spots[replica]] = why or Reason("surplus", f"{sizing.copies} wanted: {sizing.reason}")
    return found


def _counts(table: Table, fleet: Fleet, changes: Changes) -> dict[str, tuple[int, Reason | None]]:
    """By pool, the replicas that it should have, and why that is not what it has."""
    spots = table.problem.spots
    there = dict.fromkeys((pool.name for pool in fleet.pools), 0)
    going: dict[str, int] = {}
    for replica in fleet.replicas:
        if replica.pool in there and replica.state is not ReplicaState.LEAVING:
            there[replica.pool] += 1
    pools = [table.problem.pools[pool].name for pool in spots.pool.tolist()]
    for spot in changes.gone:
        going[pools[spot]] = going.get(pools[spot], 0) + 1
    new: dict[str, list[int]] = {}
    for spot in (table.is_on & spots.is_new).nonzero()[0].tolist():
        new.setdefault(pools[spot], []).append(spot)
    return {
        pool.name: _count(table, pool, there[pool.name], going.get(pool.name, 0), new.get(pool.name, []))
        for pool in fleet.pools
    }


def _count(table: Table, pool: Pool, there: int, going: int, new: list[int]) -> tuple[int, Reason | None]:
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
    models = sorted({table.problem.wants.names[model] for spot in new for model in table.models_in[spot]})
    return count, Reason("replica_wanted", f"{', '.join(models)} fit in none of the {there} replicas there are")
