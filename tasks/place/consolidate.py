"""Replicas that are not needed go: those that are empty, and those whose copies fit elsewhere, if it pays."""

from __future__ import annotations

import numpy as np

from tasks.decision import Reason
from tasks.place.changes import Changes
from tasks.place.clear import clear
from tasks.place.problem import Flags, Floats, Ints
from tasks.place.seek import awaited, find, may_find
from tasks.place.table import Table

DRAINED_SHARE = 0.01
"""Of the replicas, that are given up for a saving in one tick, at least one: a fleet follows a falling demand, and a
tick moves about this share of the copies."""
TRIED = 40
"""Replicas that are tried in one tick, those with the least in them first: a tick's time is bounded."""
EXCHANGE_FACTOR = 2.0
"""A replica that goes by exchanges must save so many times what another must: it fills the others to the brim, so that
it is the sooner missed. With 1, six hours of 200 models took twice the loads for another percent of the cost."""
CLEARED = 2
"""Of them, those with the least in them for their cost, that are tried with exchanges."""


def spare(table: Table, changes: Changes) -> None:
    """The replicas that nothing should be in go, as far as their pools have more than their minimum. Another
    autoscaler's too: it is told that so many fewer are wanted. Not while a load that failed there will be tried again:
    nothing else may do, and the replica would come back."""
    may_go, left, excess = _is_there(table) & ~_is_awaited(table), _staying(table, changes), _excess(table)
    for spot in np.flatnonzero(may_go).tolist():
        pool = int(table.problem.spots.pool[spot])
        least = table.problem.pools[pool].min_replicas
        if table.models_in[spot] or spot in changes.gone:
            continue
        if excess[pool] > 0:  # it goes already
            table.takes[spot] = False
            excess[pool] -= 1
        elif left[pool] > least:
            why = f"empty, {left[pool]} replicas, the pool's minimum is {least}"
            _give_up(table, changes, spot, Reason("replica_spare", why))
            left[pool] -= 1


def over_maximum(table: Table, changes: Changes) -> bool:
    """Replicas beyond their pool's maximum go, the emptiest first, once their copies fit elsewhere."""
    found = False
    left = _staying(table, changes)
    most = np.array([pool.max_replicas for pool in table.problem.pools])
    may_go = _may_go(table) & (left > most)[table.problem.spots.pool] & ~_is_bound(table)
    for spot in sorted(np.flatnonzero(may_go).tolist(), key=lambda s: (len(table.models_in[s]), s)):
        pool = int(table.problem.spots.pool[spot])
        if left[pool] > most[pool] and _move_out(table, changes, spot, 0.0):
            why = f"{left[pool]} replicas, the pool's maximum is {most[pool]}"
            _give_up(table, changes, spot, Reason("pool_max", why))
            left[pool] -= 1
            found = True
    return found


def consolidate(table: Table, changes: Changes) -> None:
    """The replicas whose copies can go elsewhere for the largest saving, their copies moved on the table.

    Few in a tick, and none comes in their place: so this ends. Where none can go as they are, one may by exchanges. As
    little as an empty one does one go where a failed load will be tried again: what is moved here would move back.
    """
    rule, spots, is_awaited = Rule(table, changes), table.problem.spots, _is_awaited(table)
    may_go = _may_go(table) & ~_is_bound(table) & ~is_awaited
    # nor is one emptied into another that is empty, and kept for a retry alone
    table.takes &= ~(is_awaited & np.array([not models for models in table.models_in], dtype=bool))
    candidates = [spot for spot in np.flatnonzero(may_go).tolist() if table.models_in[spot]]
    candidates = sorted(candidates, key=lambda spot: (_content(table, spot), spot))[:TRIED]
    models = np.unique([model for spot in candidates for model in table.models_in[spot]]).astype(np.int64)
    stuck = set(models[~may_find(table, models, table.problem.margin)].tolist())
    most = max(1, int(rule.replicas * DRAINED_SHARE))
    for spot in sorted(candidates, key=lambda s: (-spots.cost_per_hour[s], len(table.models_in[s]), s)):
        moved = len(table.models_in[spot])
        is_worth_it = rule.most_loads(spot) >= moved and stuck.isdisjoint(table.models_in[spot])
        if is_worth_it and _move_out(table, changes, spot, table.problem.margin):
            rule.give_up(spot, moved)
            most -= 1
        if most == 0:
            return
    if changes.gone or len(changes.placed) >= table.problem.loads:
        return
    costs = np.maximum(spots.cost_per_hour, 1e-9).tolist()
    candidates.sort(key=lambda spot: (_content(table, spot) / costs[spot], spot))
    most_loads = {spot: int(rule.most_loads(spot) / EXCHANGE_FACTOR) for spot in candidates}
    for spot in [spot for spot in candidates if most_loads[spot] >= len(table.models_in[spot])][:CLEARED]:
        loads = clear(table, changes, spot, most_loads[spot])
        if loads is not None:
            rule.give_up(spot, loads)
            return


class Rule:
    """A replica may go when the share of the fleet's cost that it saves is at least ``saving_factor`` times the share
    of the copies that must be loaded elsewhere: the rule by which Karpenter weighs a disruption
    (kubernetes-sigs/karpenter, ``pkg/controllers/disruption``)."""

    def __init__(self, table: Table, changes: Changes) -> None:
        spots = table.problem.spots
        on = [spot for spot in np.flatnonzero(table.is_on).tolist() if spot not in changes.gone]
        self._table, self._changes, self._left = table, changes, _staying(table, changes)
        self._copies = max(1, sum(len(table.models_in[spot]) for spot in on))
        self._saving: Floats = spots.cost_per_hour / max(float(spots.cost_per_hour[on].sum()), 1e-9)
        self.replicas = len(on)

    def most_loads(self, spot: int) -> int:
        """For the replica to go; -1: it may not."""
        problem, pool = self._table.problem, int(self._table.problem.spots.pool[spot])
        if spot in self._changes.gone or self._left[pool] <= problem.pools[pool].min_replicas:
            return -1
        if problem.saving_factor <= 0:
            return self._copies
        return int(self._saving[spot] / problem.saving_factor * self._copies + 1e-9)

    def give_up(self, spot: int, loads: int) -> None:
        saving, moving, factor = self._saving[spot], loads / self._copies, self._table.problem.saving_factor
        text = (
            f"saves {saving:.0%} of the fleet's cost, moves {moving:.0%} of its copies "
            f"({saving:.0%} >= {factor:g} x {moving:.0%})"
        )
        _give_up(self._table, self._changes, spot, Reason("consolidated", text))
        self._left[self._table.problem.spots.pool[spot]] -= 1


def _content(table: Table, spot: int) -> float:
    """The larger of the shares of memory and of compute that are taken."""
    spots = table.problem.spots
    memory = 1 - table.free_bytes[spot] / max(spots.room_bytes[spot], 1.0)
    return float(max(memory, 1 - table.free_compute[spot] / max(spots.room_compute[spot], 1e-9)))


def _move_out(table: Table, changes: Changes, spot: int, margin: float) -> bool:
    """Move all copies, which are all there, elsewhere; or none, and False."""
    footprint = table.problem.wants.footprint_bytes[:, table.problem.spots.pool[spot]]
    mark, moves = table.mark(), []
    takes = bool(table.takes[spot])
    table.takes[spot] = False
    for model in sorted(table.models_in[spot], key=lambda model: (-footprint[model], model)):
        to = find(table, model, extra=0, margin=margin)
        if to is None:
            table.undo(mark)
            table.takes[spot] = takes
            return False
        table.remove(model, spot)
        table.add(model, to)
        moves.append((model, to))
    names = table.problem.spots.names
    for model, to in moves:
        changes.placed.pop((model, spot), None)
        changes.placed[model, to] = Reason("moved", f"so that {names[spot]} can go")
    return True


def _give_up(table: Table, changes: Changes, spot: int, reason: Reason) -> None:
    changes.gone[spot] = reason
    table.takes[spot] = False


def _is_there(table: Table) -> Flags:
    """Ready, and in a pool that is not to grow: none both grows and shrinks."""
    spots = table.problem.spots
    grows = np.unique(spots.pool[table.is_on & spots.is_new & ~spots.is_asked])
    return table.takes & spots.is_ready & ~spots.is_new & ~np.isin(spots.pool, grows)


def _may_go(table: Table) -> Flags:
    return _is_there(table) & table.problem.spots.is_ours


def _is_awaited(table: Table) -> Flags:
    is_awaited = np.zeros(len(table.models_in), dtype=bool)
    is_awaited[[replica for model in table.problem.failures_by_model for replica, _ in awaited(table, model)]] = True
    return is_awaited


def _is_bound(table: Table) -> Flags:
    bound = np.zeros(len(table.models_in), dtype=bool)
    for model in np.flatnonzero(table.problem.wants.is_pinned).tolist():
        bound[table.replicas_of[model]] = True
    return bound


def _staying(table: Table, changes: Changes) -> Ints:
    """(P,) replicas of each pool that are there and stay; those beyond what is asked for go already, and what is yet to
    come makes up for none."""
    stays, pools = _stays(table), len(table.problem.pools)
    stays[list(changes.gone)] = False
    left: Ints = np.bincount(table.problem.spots.pool[stays], minlength=pools) - _excess(table)
    return left


def _excess(table: Table) -> Ints:
    """(P,) replicas of each pool beyond what is asked for: their count was lowered, and as many go already."""
    pools = table.problem.pools
    there = np.bincount(table.problem.spots.pool[_stays(table)], minlength=len(pools))
    excess: Ints = np.maximum(0, there - np.array([pool.replicas for pool in pools]))
    return excess


def _stays(table: Table) -> Flags:
    spots = table.problem.spots
    stays: Flags = table.is_on & ~spots.is_new & np.array([why != "it is leaving" for why in spots.closed], dtype=bool)
    return stays
