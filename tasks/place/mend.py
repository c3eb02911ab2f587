"""Replicas over their compute target are mended by exchanges: a copy moves, two change places, or a model gets one copy
more, so that all of its copies become smaller. What no single move can do, a few together often can."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.decision import Reason
from tasks.place.changes import Changes, Move
from tasks.place.problem import Flags, Floats, Ints
from tasks.place.seek import find_busy
from tasks.place.table import SLACK, Table

Step = tuple[float, list[Move]]
"""By how much it changes the sum of the squared excesses; its moves."""
LOAD = 1e-9
"""A load more is worth a squared excess of so much: of two exchanges that mend as well, the one of fewer loads."""
NONE: Step = (np.inf, [])
MOVES = 4
"""In the place of a new replica, at most."""
SEARCHES = 20
"""In one tick: its time is bounded."""
PARTNERS = 50
"""Replicas, the least busy, that a copy is exchanged with."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The table around one replica that is over its target."""

    spot: int
    models: Ints
    """(K,) in the replica, that may leave it."""
    compute: Floats
    """(M, P) device-seconds a second of one copy of average weight."""
    goes: Floats
    """(K,) device-seconds a second of each copy there, by its weight."""
    excess: Floats
    """(R,) compute over what is allowed, as a share of the target; negative: below."""
    room: Floats
    """(R,) the target, device-seconds a second."""
    fits: Flags
    """(K, R) whether a copy of each could go there, whatever the compute."""
    loads: Floats
    """(K,) what its move costs: ``LOAD`` where it is there now, 0 where it is still to be loaded anyway."""


def make_room(table: Table, changes: Changes, model: int) -> bool:
    """Place one more copy where there is the memory, and exchange others until all fit; or False."""
    if (spot := find_busy(table, model)) is None:
        return False
    mark, before = table.mark(), excess(table)
    table.add(model, spot)
    if (moves := _search(table, changes, np.maximum(before, 0.0))) is None:
        table.undo(mark)
        return False
    names, spots = table.problem.wants.names, table.problem.spots.names
    changes.placed[model, spot] = Reason("placed", f"{len(moves)} exchanges made room in {spots[spot]}")
    changes.move(table.present, moves, Reason("moved", f"so that one more {names[model]} fits"))
    return True


def relieve_by_exchange(table: Table, changes: Changes, spot: int, why: Reason) -> bool:
    """Bring a replica down to its target by a few moves; or False."""
    allowed = np.maximum(excess(table), 0.0)
    allowed[spot] = 0.0
    if (moves := _search(table, changes, allowed)) is None:
        return False
    changes.move(table.present, moves, why)
    return True


def _search(table: Table, changes: Changes, allowed: Floats) -> list[Move] | None:
    changes.searches += 1
    spare = min(MOVES, table.problem.loads - len(changes.placed) - 1)
    return None if changes.searches > SEARCHES or spare < 1 else mend(table, spare, allowed)


def mend(table: Table, most: int, allowed: Floats | float = 0.0) -> list[Move] | None:
    """The moves, about ``most`` at most, after which no replica is over what it is allowed; None, and the table as it
    was: none were found. ``allowed``: (R,) share of the target by which each may be over it; negative: what is to stay
    free.

    Steepest descent on the sum of the squared excesses, from the worst replica each time; so it ends.
    """
    mark, moves = table.mark(), list[Move]()
    while (spot := _worst(table, allowed)) is not None:
        step = _best(table, spot, allowed) if len(moves) < most else []
        if not step:
            table.undo(mark)
            return None
        for move in step:
            table.move(*move)
        moves += step
    return moves


def excess(table: Table) -> Floats:
    """(R,) compute over the target, as a share of it; negative: below."""
    share: Floats = -table.free_compute / np.maximum(table.problem.spots.room_compute, 1e-12)
    return share


def _worst(table: Table, allowed: Floats | float) -> int | None:
    over = np.where(table.is_on, excess(table) - allowed, -np.inf)
    spot = int(over.argmax())
    return spot if over[spot] > SLACK else None


def _best(table: Table, spot: int, allowed: Floats | float) -> list[Move]:
    """The moves that lower the sum of the squared excesses most; empty: none do."""
    models = [model for model in table.models_in[spot] if not table.problem.wants.is_pinned[model]]
    if not models:
        return []
    view = View(
        spot,
        np.array(models, dtype=np.int64),
        table.compute_of_all(),
        np.array([table.compute_at(model, spot) for model in models]),
        excess(table) - allowed,
        np.maximum(table.problem.spots.room_compute, 1e-12),
        np.array([table.has_memory(model) & table.has_capacity(model, extra=0) for model in models]),
        np.array([LOAD * ((model, spot) in table.present) for model in models]),
    )
    gain, moves = min((_move(table, view), _swap(table, view), _more(table, view)), key=lambda step: step[0])
    return moves if gain < 0 else []


def _square(excess: Floats) -> Floats:
    over: Floats = np.maximum(excess, 0.0)
    return over * over


def _move(table: Table, view: View) -> Step:
    pool, spot = table.problem.spots.pool, view.spot
    compute = view.compute[view.models]
    here = _square(view.excess[spot] - view.goes / view.room[spot]) - _square(view.excess[spot])
    there = _square(view.excess + compute[:, pool] / view.room) - _square(view.excess)
    gain = np.where(view.fits, (here + view.loads)[:, None] + there, np.inf)
    k, target = np.unravel_index(int(gain.argmin()), gain.shape)
    return float(gain[k, target]), [(int(view.models[k]), spot, int(target))]


def _swap(table: Table, view: View) -> Step:
    """One copy goes, another comes in its stead; both must fit beside what is there now."""
    pool, spot, excess = table.problem.spots.pool, view.spot, view.excess
    others = np.flatnonzero(table.takes & view.fits.any(axis=0))
    others = others[np.argsort(excess[others], kind="stable")[:PARTNERS]].tolist()
    comes = np.array([model for other in others for model in table.models_in[other]], dtype=np.int64)
    at = np.repeat(np.array(others, dtype=np.int64), [len(table.models_in[other]) for other in others])
    fine = table.may_come(spot)[comes]
    comes, at = comes[fine], at[fine]
    if not comes.size:
        return NONE
    goes = view.compute[view.models]
    gone = view.goes[:, None] / view.room[spot]
    here = _square(excess[spot] - gone + view.compute[comes, pool[spot]] / view.room[spot]) - _square(excess[spot])
    here = (
        here
        + view.loads[:, None]
        + [LOAD * (copy in table.present) for copy in zip(comes.tolist(), at.tolist(), strict=True)]
    )
    change = (goes[:, pool[at]] - view.compute[comes, pool[at]]) / view.room[at]
    gain = np.where(view.fits[:, at], here + _square(excess[at] + change) - _square(excess[at]), np.inf)
    k, n = np.unravel_index(int(gain.argmin()), gain.shape)
    other = int(at[n])
    return float(gain[k, n]), [(int(view.models[k]), spot, other), (int(comes[n]), other, spot)]


def _more(table: Table, view: View) -> Step:
    wants, pool, best = table.problem.wants, table.problem.spots.pool, NONE
    for k, model in enumerate(view.models.tolist()):
        if not table.is_hot[model] or not wants.demand_rps[model] > 0:
            continue
        if table.count(model) >= wants.max_copies[model] or table.divisor(model, 1) == table.divisor(model):
            continue
        smaller = table.compute_by_pool(model, 1)
        held = np.array(table.replicas_of[model], dtype=np.int64)
        shrink = table.compute_in(model, held, 1) - table.compute_in(model, held)
        shrunk = view.excess[held] + shrink / view.room[held]
        mine = float((_square(shrunk) - _square(view.excess[held])).sum())
        there = _square(view.excess + smaller[pool] / view.room) - _square(view.excess)
        gain = np.where(view.fits[k], mine + there + LOAD, np.inf)
        target = int(gain.argmin())
        best = min(best, (float(gain[target]), [(model, -1, target)]), key=lambda step: step[0])
    return best
