"""Replicas that are not needed go: those that are empty, and those whose copies fit elsewhere, if it pays."""

from __future__ import annotations

import numpy as np

from tasks.decision import Reason
from tasks.place.fill import Changes
from tasks.place.problem import Flags, Ints
from tasks.place.seek import awaited, find
from tasks.place.table import Table

DRAINED_SHARE = 0.01
"""Of the replicas, that are given up for a saving in one tick, at least one: a fleet follows a falling demand, and a
tick moves about this share of the copies."""
TRIED = 40
"""Replicas that are tried in one tick, those with the least in them first: a tick's time is bounded."""


def spare(table: Table, changes: Changes) -> None:
    """The replicas that nothing should be in go, as far as their pools have more than their minimum. Another
    autoscaler's too: it is told that so many fewer are wanted. Not those that a retry waits for."""
    may_go, left = _is_there(table), _staying(table, changes)
    may_go[[replica for model in changes.refused for replica, _ in awaited(table, model)]] = False
    for spot in np.flatnonzero(may_go).tolist():
        pool = int(table.problem.spots.pool[spot])
        least = table.problem.pools[pool].min_replicas
        if not table.models_in[spot] and left[pool] > least and spot not in changes.gone:
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

    One goes when the share of the fleet's cost that it saves is at least ``saving_factor`` times the share of the
    copies that must move: the rule by which Karpenter weighs a disruption (kubernetes-sigs/karpenter,
    ``pkg/controllers/disruption``). Few in a tick, and none comes in their place: so this ends.
    """
    spots, problem = table.problem.spots, table.problem
    on = [spot for spot in np.flatnonzero(table.is_on).tolist() if spot not in changes.gone]
    cost = float(spots.cost_per_hour[on].sum())
    copies = sum(len(table.models_in[spot]) for spot in on)
    may_go = _may_go(table) & ~_is_bound(table)
    candidates = [spot for spot in np.flatnonzero(may_go).tolist() if table.models_in[spot]]
    if len(candidates) > TRIED:
        candidates = sorted(candidates, key=lambda spot: (_content(table, spot), spot))[:TRIED]
    most = max(1, int(len(on) * DRAINED_SHARE))
    left = _staying(table, changes)
    for spot in sorted(candidates, key=lambda s: (-spots.cost_per_hour[s], len(table.models_in[s]), s)):
        pool = int(spots.pool[spot])
        if left[pool] <= problem.pools[pool].min_replicas:
            continue
        saving, moving = spots.cost_per_hour[spot] / max(cost, 1e-9), len(table.models_in[spot]) / max(copies, 1)
        if saving < problem.saving_factor * moving:
            continue
        if _move_out(table, changes, spot, problem.margin):
            text = (
                f"saves {saving:.0%} of the fleet's cost, moves {moving:.0%} of its copies "
                f"({saving:.0%} >= {problem.saving_factor:g} x {moving:.0%})"
            )
            _give_up(table, changes, spot, Reason("consolidated", text))
            left[pool] -= 1
            most -= 1
        if most == 0:
            return


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
    spots = table.problem.spots
    return table.takes & spots.is_ready & ~spots.is_new


def _may_go(table: Table) -> Flags:
    return _is_there(table) & table.problem.spots.is_ours


def _is_bound(table: Table) -> Flags:
    bound = np.zeros(len(table.models_in), dtype=bool)
    for model in np.flatnonzero(table.problem.wants.is_pinned).tolist():
        bound[table.replicas_of[model]] = True
    return bound


def _staying(table: Table, changes: Changes) -> Ints:
    """(P,) replicas of each pool that stay; those that are there beyond what is asked for go already."""
    spots, pools = table.problem.spots, table.problem.pools
    stays = table.is_on & np.array([why != "it is leaving" for why in spots.closed], dtype=bool)
    there = np.bincount(spots.pool[stays & ~spots.is_new], minlength=len(pools))
    excess = np.maximum(0, there - np.array([pool.replicas for pool in pools]))
    stays[list(changes.gone)] = False
    left: Ints = np.bincount(spots.pool[stays], minlength=len(pools)) - excess
    return left
