"""Replicas over their compute target are relieved without a load: their copies get a smaller share of their models'
requests, copies in replicas with room a larger one. Only where the gateway splits requests by weight."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tasks.decision import Reason
from tasks.place.changes import Changes
from tasks.place.problem import Floats, Ints
from tasks.place.table import SLACK, Table

LEAST = 0.1
"""Weight of a copy, 1 on average: one that gets hardly a request tells nothing of its queue, and saves little more."""
MOST = 0.6
"""Of a copy's capacity, that shares may bring it to. At its capacity it just meets the objective, and a larger share of
its model's requests is there than elsewhere: 200 models replayed for 90 minutes kept 97 % of requests within their
objective with copies brought up to it, 99.6 % up to 0.87 of it, 100 % up to this, as with an even split."""
HOPS = 2
"""A replica without room may be relieved first, so that it can take something; so often in a row."""
NEIGHBOURS = 4
"""Replicas, the least busy, that are tried for that."""
SHIFTS = 20
"""For one replica, at most: what is not mended by so many is not mended by more of the same."""


def weigh(table: Table, changes: Changes) -> None:
    """Equal shares where they fit with room; then shares move to where there is room, of copies over their capacity by
    more than noise, and of copies in replicas over their target by more, the worst first. No other replica is brought
    near its target, no copy near its capacity.

    What fits with less room than noise keeps its weights: demand that trembles changes none.
    """
    if not table.problem.splits_by_weight:
        return
    for model in sorted(table.weights):
        _even(table, changes, model)
    spots = table.problem.spots
    shares = Shares(table, np.zeros(len(spots.names)))
    for model in table.uneven(table.problem.noise).tolist():
        if shares.slim(model):
            changes.weigh(
                shares.take(), f"its {table.count(model)} copies get what each can serve within the objective"
            )
    limit = -(spots.room_compute * table.problem.noise + SLACK)
    over = np.flatnonzero(table.is_on & spots.keeps & (table.free_compute < limit))
    for spot in over[np.argsort(table.free_compute[over], kind="stable")].tolist():
        lighten(table, changes, spot)


def lighten(table: Table, changes: Changes, spot: int) -> None:
    """Where a replica is over its target by more than noise, shares of its models shift to where there is room."""
    over, spots = -float(table.free_compute[spot]), table.problem.spots
    if table.problem.splits_by_weight and over > spots.room_compute[spot] * table.problem.noise + SLACK:
        shares = Shares(table, np.zeros(len(spots.names)))
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
    table.weigh(model, {})
    grown = table.compute_in(model, held) > before
    noise, spots = table.problem.noise, table.problem.spots
    has_room = table.free_compute[held] >= spots.room_compute[held] * noise - SLACK
    fits = has_room & (table.rate_rps(model, held) <= _capacity(table, model, held) * (1 - noise + SLACK))
    if (fits | ~grown).all():
        changes.weighed[model] = Reason("evened", f"its {len(held)} copies fit with equal shares, and room")
    else:
        table.undo(mark)


@dataclass(slots=True, eq=False)
class Shares:
    """Shifts shares of models' requests from replica to replica."""

    table: Table
    floor: Floats
    """(R,) compute that stays free in a replica that takes more: at least what demand trembles by."""
    shifted: set[int] = field(default_factory=set)
    left: int = SHIFTS

    def __post_init__(self) -> None:
        self.floor = np.maximum(self.floor, self.table.problem.noise * self.table.problem.spots.room_compute)

    def take(self) -> set[int]:
        """The models whose shares were shifted since the last time."""
        shifted, self.shifted = self.shifted, set()
        return shifted

    def relieve(self, spot: int, least: float) -> None:
        """Take so many device-seconds a second from the replica, as far as possible."""
        self.left = SHIFTS
        self._relieve(spot, least, frozenset({spot}))

    def _relieve(self, spot: int, least: float, passed: frozenset[int]) -> None:
        """To where there is room; then to where others can be moved on from, as far as that then takes something.
        ``passed``: replicas that are being relieved already."""
        table = self.table
        enough = float(table.free_compute[spot]) + least
        models = [m for m in table.models_in[spot] if table.count(m) > 1 and table.problem.wants.demand_rps[m] > 0]
        share = {model: table.compute_at(model, spot) for model in models}
        models.sort(key=lambda model: (-share[model], model))
        for model in models:
            if self._shift(model, spot, enough):
                return
        for model in models if len(passed) < HOPS else ():
            others = [replica for replica in table.replicas_of[model] if replica not in passed]
            for other in sorted(others, key=lambda replica: (-table.free_compute[replica], replica))[:NEIGHBOURS]:
                if self.left <= 0:
                    return
                mark, shifted, before = table.mark(), set(self.shifted), float(table.free_compute[spot])
                self._relieve(other, enough - before, passed | {other})
                if self._shift(model, spot, enough):
                    return
                if table.free_compute[spot] <= before + SLACK:
                    table.undo(mark)
                    self.shifted = shifted

    def _shift(self, model: int, spot: int, enough: float) -> bool:
        """Move the model's requests from a replica to the others, to each in proportion to what it can take, until the
        replica has enough free; whether it has.

        Worked example: 10 req/s too many; others with room for 15 and 5 req/s get 7.5 and 2.5.
        """
        table = self.table
        self.left -= 1
        need = enough - float(table.free_compute[spot])
        if need <= SLACK:
            return True
        held, mine = np.array(table.replicas_of[model], dtype=np.int64), table.replicas_of[model].index(spot)
        has_room = table.free_compute[held] > self.floor[held]
        has_room[mine] = False
        if not has_room.any():
            return False
        rate = table.rate_rps(model, table.replicas_of[model])
        mean = float(rate.mean())
        most = float(rate[mine]) - LEAST * mean
        if most <= SLACK * mean:
            return False
        takes = self._takes(model, held, rate)
        takes[mine] = 0.0
        free, device_s = float(takes.sum()), table.problem.wants.device_s.item(model, table.problem.spots.pool[spot])
        moved = min(need / max(device_s, 1e-12), most, free)
        if moved > SLACK * mean:
            rate += takes * (moved / free)
            rate[mine] -= moved
            self._split(model, held, rate)
        return bool(enough - float(table.free_compute[spot]) <= SLACK)

    def slim(self, model: int) -> bool:
        """Give each copy of the model no more than its capacity, the rest to the others; or change nothing, and False.

        Worked example: 20 req/s over copies of capacity 6 and 30, 10 each: 4 go over, 6 and 14.
        """
        held = np.array(self.table.replicas_of[model], dtype=np.int64)
        rate = self.table.rate_rps(model, held)
        excess = np.maximum(rate - _capacity(self.table, model, held), 0.0)
        takes = self._takes(model, held, rate)
        if excess.sum() > takes.sum() or (rate - excess < LEAST * rate.mean()).any():
            return False
        self._split(model, held, rate - excess + takes * (excess.sum() / takes.sum()))
        return True

    def _takes(self, model: int, held: Ints, rate: Floats) -> Floats:
        """(len(held),) requests a second that each copy can take beside what it gets, within ``MOST`` of its capacity
        and its replica's target less noise."""
        table = self.table
        device_s = np.maximum(table.problem.wants.device_s[model][table.problem.spots.pool[held]], 1e-12)
        room = (table.free_compute[held] - self.floor[held]) / device_s
        takes: Floats = np.maximum(np.minimum(room, MOST * _capacity(table, model, held) - rate), 0.0)
        return takes

    def _split(self, model: int, held: Ints, rate: Floats) -> None:
        self.table.weigh(model, dict(zip(held.tolist(), (rate / rate.mean()).tolist(), strict=True)))
        self.shifted.add(model)


def _capacity(table: Table, model: int, replicas: Ints) -> Floats:
    capacity: Floats = table.problem.wants.capacity_rps[model][table.problem.spots.pool[replicas]]
    return capacity
