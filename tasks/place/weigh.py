"""Replicas over their compute target are relieved without a load: their copies get a smaller share of their models'
requests, copies in replicas with room a larger one. Only where the gateway splits requests by weight."""

from __future__ import annotations

import numpy as np

from tasks.decision import Reason
from tasks.place.changes import Changes
from tasks.place.problem import Floats
from tasks.place.shares import Shares, capacity
from tasks.place.table import SLACK, Table


def weigh(shares: Shares, changes: Changes) -> None:
    """Equal shares where they fit with room; then shares move to where there is room, of copies over their capacity by
    more than noise, and of copies in replicas over their target by more, the worst first. No other replica is brought
    near its target, no copy near its capacity.

    What fits with less room than noise keeps its weights: demand that trembles changes none.
    """
    table, spots = shares.table, shares.table.problem.spots
    if not table.problem.splits_by_weight:
        return
    for model in sorted(table.weights):
        _even(table, changes, model)
    for model in table.uneven(table.problem.noise).tolist():
        if shares.slim(model):
            changes.weigh(
                shares.take(), f"its {table.count(model)} copies get what each can serve within the objective"
            )
    limit = -(spots.room_compute * table.problem.noise + SLACK)
    over = np.flatnonzero(table.is_on & spots.keeps & (table.free_compute < limit))
    for spot in over[np.argsort(table.free_compute[over], kind="stable")].tolist():
        lighten(shares, changes, spot)


def lighten(shares: Shares, changes: Changes, spot: int) -> None:
    """Where a replica is over its target by more than noise, shares of its models shift to where there is room."""
    table = shares.table
    over, spots = -float(table.free_compute[spot]), table.problem.spots
    if table.problem.splits_by_weight and over > spots.room_compute[spot] * table.problem.noise + SLACK:
        shares.relieve(spot, over)
        changes.weigh(shares.take(), f"{spots.names[spot]} is over its compute target by {over:.2f}")


def ease(table: Table, floor: Floats) -> set[int]:
    """After copies came where there was only the memory for them: shift shares until no replica has less compute free
    than ``floor``, (R,), or one is found for which that cannot be; the models whose shares were shifted."""
    if not table.problem.splits_by_weight:
        return set()
    shares = Shares(table, floor)
    for spot in np.flatnonzero(table.is_on & (table.free_compute < floor - SLACK)).tolist():
        shares.relieve(spot, float(floor[spot] - table.free_compute[spot]))
        if table.free_compute[spot] < floor[spot] - SLACK:
            break
    return shares.take()


def _even(table: Table, changes: Changes, model: int) -> None:
    """Equal weights, if no replica that gets more then is left with less room than noise."""
    held = np.array(table.replicas_of[model], dtype=np.int64)
    mark, before = table.mark(), table.compute_in(model, held)
    table.weigh(model, None)
    grown = table.compute_in(model, held) > before
    noise, spots = table.problem.noise, table.problem.spots
    has_room = table.free_compute[held] >= spots.room_compute[held] * noise - SLACK
    fits = has_room & (table.rate_rps(model, held) <= capacity(table, model, held) * (1 - noise + SLACK))
    if (fits | ~grown).all():
        changes.weighed[model] = Reason("evened", f"its {len(held)} copies fit with equal shares, and room")
    else:
        table.undo(mark)
