"""What is there and good stays; what is more than a model needs goes, the least valuable first."""

from __future__ import annotations

from collections import deque

import numpy as np

from tasks.place.table import EQUAL, SLACK, Table

Harm = tuple[float, int]
"""Requests a second beyond the copies' capacity, copies in a replica beyond its target."""
HARMLESS: Harm = (0.0, 0)
TRIED = 4
"""Copies, the least valuable of equal state, of which one may go: a hot model has hundreds."""


def keep(table: Table) -> None:
    """Put on the table every copy that is there and may stay."""
    problem = table.problem
    there, wants, spots = problem.there, problem.wants, problem.spots
    stays = (there.worth < 4) & spots.keeps[there.replica] & wants.is_allowed[there.model, spots.pool[there.replica]]
    table.keep(there.model[stays], there.replica[stays], there.weight[stays])


def trim(table: Table) -> None:
    """Take off the copies that a model does not need: as far as the others can take their share within the target.

    So a model that is cheaper as many small copies keeps them, and one whose demand fell gives them up. Where a copy
    went, another model's may then have the room that lets one of its go, too.
    """
    copies = table.problem.wants.copies.tolist()
    surplus = [model for model, held in enumerate(table.replicas_of) if len(held) > copies[model]]
    worth = _worth(table, surplus) if surplus else {}
    while surplus:
        left = {replica for model in surplus for replica in _trim(table, model, worth)}
        surplus = [m for m in surplus if table.count(m) > copies[m] and not left.isdisjoint(table.replicas_of[m])]


def shed(table: Table) -> None:
    """Take off copies that are over a replica's memory, since a footprint may have grown: those worth least, until the
    rest fits. The headroom may be used up: what is there stays until that is gone, too."""
    wants, spots = table.problem.wants, table.problem.spots
    headroom = spots.memory_bytes - spots.room_bytes
    asked = np.isnan(wants.demand_rps) | (wants.demand_rps > 0)
    for replica in np.flatnonzero(spots.keeps & (table.free_bytes < -headroom - 1)).tolist():
        movable = [model for model in table.models_in[replica] if not wants.is_pinned[model]]
        footprint = wants.footprint_bytes[:, spots.pool[replica]]
        for model in sorted(movable, key=lambda m: (asked[m], wants.priority[m], -footprint[m], m)):
            if table.free_bytes[replica] >= -headroom[replica] - 1:
                break
            table.remove(model, replica)


def _worth(table: Table, models: list[int]) -> dict[tuple[int, int], int]:
    there = table.problem.there
    rows = np.isin(there.model, models)
    columns = (there.model[rows].tolist(), there.replica[rows].tolist(), there.worth[rows].tolist())
    return {(model, replica): worth for model, replica, worth in zip(*columns, strict=True)}


def _trim(table: Table, model: int, worth: dict[tuple[int, int], int]) -> list[int]:
    """The replicas that its copies left. Each copy that goes is chosen as if those before it had never been: where a
    tick ends after some of a model's, the next one goes on with the others."""
    wants, left = table.problem.wants, list[int]()
    while len(order := _best_first(table, model, worth)) > wants.copies[model]:
        least = worth.get((model, order[-1]), 4)
        equals = [replica for replica in reversed(order[-TRIED:]) if worth.get((model, replica), 4) == least]
        is_sure = model not in table.weights
        may_go = _may_go(table, model, equals)
        gone = next((replica for replica in may_go if is_sure or _harm(table, model, replica) == HARMLESS), None)
        if gone is None and len(order) > wants.max_copies[model]:
            gone = min(equals, key=lambda replica: _harm(table, model, replica))
        together = [gone] if gone is not None else _may_go_together(table, model, worth)
        if not together:
            break
        for replica in together:
            table.remove(model, replica)
        left += together
    return left


def _may_go_together(table: Table, model: int, worth: dict[tuple[int, int], int]) -> list[int]:
    """Its copies in replicas that are over their target: none of them can go alone, since the others there would grow,
    yet all can where those elsewhere, worth as much, are enough. Empty: they are not."""
    wants, held = table.problem.wants, table.replicas_of[model]
    over = [replica for replica in held if table.free_compute[replica] < -SLACK]
    rest = [replica for replica in held if replica not in over]
    if model in table.weights or not over or len(rest) < max(1, int(wants.copies[model])):
        return []
    if max(worth.get((model, replica), 4) for replica in rest) > min(worth.get((model, r), 4) for r in over):
        return []
    mark = table.mark()
    for replica in over[:-1]:
        table.remove(model, replica)
    harm = _harm(table, model, over[-1])
    table.undo(mark)
    return over if harm == HARMLESS else []


def _may_go(table: Table, model: int, replicas: list[int]) -> list[int]:
    """Those whose copy the model's others can do without; where copies have weights, it may be that they cannot."""
    if model in table.weights:
        return _light(table, model, replicas)
    held, wants, pool = np.array(table.replicas_of[model]), table.problem.wants, table.problem.spots.pool
    grown = table.compute_in(model, held, -1) - table.compute_in(model, held)
    is_over = wants.demand_rps[model] / table.divisor(model, -1) > wants.capacity_rps[model][pool[held]] * (1 + SLACK)
    stuck = set(held[is_over | ((grown > 0) & (table.free_compute[held] - grown < -SLACK))].tolist())
    return [replica for replica in replicas if stuck <= {replica}]


def _light(table: Table, model: int, replicas: list[int]) -> list[int]:
    """Those with so small a share of the requests that each other copy has room to grow in proportion: of n copies that
    weigh n together one of weight w makes the others grow to n / (n - w) of what they are."""
    held, wants, spots = table.replicas_of[model], table.problem.wants, table.problem.spots
    if len(held) < 2 or not wants.demand_rps[model] > 0:
        return replicas
    rate, free, compute = table.rate_rps(model, held), table.free_compute[held], table.compute_in(model, held)
    # no copy takes more than a replica has
    growth = np.where(spots.room_compute[held] - compute <= free + SLACK, np.inf, 1 + free / np.maximum(compute, 1e-12))
    growth = np.minimum(growth, wants.capacity_rps[model][spots.pool[held]] / rate) + 2 * EQUAL
    least, second = np.partition(growth, 1)[:2]
    most = np.where(growth <= least, second, least)
    light = 1 / np.maximum(1 - rate / rate.sum(), 1e-12) <= most
    return [replica for replica in replicas if light[held.index(replica)]]


def _harm(table: Table, model: int, replica: int) -> Harm:
    """How far its other copies, all larger without this one, would be beyond their capacity, which takes a load to
    mend, and how many in a replica beyond its target, which another model's copy may leave."""
    wants, spots = table.problem.wants, table.problem.spots
    if not wants.demand_rps[model] > 0:
        return HARMLESS
    mark, held = table.mark(), table.replicas_of[model]
    table.remove(model, replica)
    over_rps = table.rate_rps(model, held) - wants.capacity_rps[model][spots.pool[held]] * (1 + SLACK)
    harm = round(float(np.maximum(over_rps, 0.0).sum()), 6), int((table.free_compute[held] < -SLACK).sum())
    table.undo(mark)
    return harm


def _best_first(table: Table, model: int, worth: dict[tuple[int, int], int]) -> list[int]:
    """The model's replicas: where it serves, is ready, is loading, is failing, is not yet; then those that are not over
    their target; then far from those before it in the list; then where most copies are, so that the emptiest can go;
    then by name."""
    spots = table.problem.spots
    held = np.array(table.replicas_of[model], dtype=np.int64)
    over = table.free_compute[held] < -(spots.room_compute[held] * table.problem.noise + SLACK)
    key = {r: (worth.get((model, r), 4), is_over) for r, is_over in zip(held.tolist(), over.tolist(), strict=True)}
    crowd = {replica: len(table.models_in[replica]) for replica in key}
    rest = sorted(key, key=lambda r: (key[r], -crowd[r], r))
    if all(spots.zone[replica] < 0 for replica in rest):
        return rest
    queues: dict[int, deque[int]] = {}
    for replica in rest:
        queues.setdefault(int(spots.zone[replica]), deque()).append(replica)
    order: list[int] = []
    taken = dict.fromkeys(queues, 0)
    while queues:
        # each zone's next best
        zone = min(queues, key=lambda zone: (key[r := queues[zone][0]], taken[zone], -crowd[r], r))
        order.append(queues[zone].popleft())
        taken[zone] += zone >= 0
        if not queues[zone]:
            del queues[zone]
    return order
