"""Shares of models' requests, shifted from copy to copy: no load, and no replica near its target, no copy near its
capacity for it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np

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


class Shares:
    """Shifts shares of models' requests from replica to replica."""

    def __init__(self, table: Table, floor: Floats | float = 0.0) -> None:
        """``floor``: (R,) compute that stays free in a replica that takes more; at least what demand trembles by."""
        self.table = table
        self.floor: Floats = np.maximum(floor, table.problem.noise * table.problem.spots.room_compute)
        self.shifted = set[int]()
        """Models."""
        self.full = set[int]()
        """Models of which no copy could take more from the one that was relieved: until there is room in a replica that
        has one."""
        self.left, self._mark = SHIFTS, table.mark()

    def take(self) -> set[int]:
        """The models whose shares were shifted since the last time."""
        shifted, self.shifted = self.shifted, set()
        return shifted

    def relieve(self, spot: int, least: float) -> None:
        """Take so many device-seconds a second from the replica, as far as possible."""
        self._changed(self.table.touched(self._mark))
        self.left = SHIFTS
        self._relieve(spot, least, frozenset({spot}))
        self._mark = self.table.mark()

    def _relieve(self, spot: int, least: float, passed: frozenset[int]) -> None:
        """To where there is room; then to where others can be moved on from, as far as that then takes something.
        ``passed``: replicas that are being relieved already."""
        table = self.table
        enough = float(table.free_compute[spot]) + least
        models = [m for m in table.models_in[spot] if table.count(m) > 1 and table.problem.wants.demand_rps[m] > 0]
        share = {model: table.compute_at(model, spot) for model in models}
        models.sort(key=lambda model: (-share[model], model))
        for model in models:
            if model not in self.full and self._shift(model, spot, enough):
                return
        for model in models if len(passed) < HOPS else ():
            for other in self._next(model, spot, passed):
                if self.left <= 0:
                    return
                if not self._hands_on(other, model):
                    continue
                mark, shifted, before = table.mark(), set(self.shifted), float(table.free_compute[spot])
                self._relieve(other, enough - before, passed | {other})
                if table.free_compute[other] > self.floor[other] + SLACK and self._shift(model, spot, enough):
                    return
                if table.free_compute[spot] <= before + SLACK:
                    undone = table.touched(mark)
                    table.undo(mark)
                    self.shifted = shifted
                    self._changed(undone)

    def _changed(self, replicas: Iterable[int]) -> None:
        """These may have got room, or other copies."""
        table = self.table
        for replica in replicas:
            if table.free_compute[replica] > self.floor[replica] + SLACK:
                pool = table.problem.spots.pool.item(replica)
                for model in self.full.intersection(table.models_in[replica]):
                    most = MOST * table.problem.wants.capacity_rps.item(model, pool)
                    if table.rate_at(model, replica) < most:
                        self.full.discard(model)

    def _next(self, model: int, spot: int, passed: frozenset[int]) -> list[int]:
        """The least busy replicas whose copy could take a share of the model's requests from this one, with room."""
        table, held = self.table, self.table.replicas_of[model]
        rate = table.rate_rps(model, held)
        mean = float(rate.mean())
        if rate[held.index(spot)] <= (LEAST + SLACK) * mean:
            return []
        replicas = np.array(held, dtype=np.int64)
        replicas = replicas[rate < MOST * capacity(table, model, replicas) - SLACK * mean]
        least_busy = replicas[np.lexsort((replicas, -table.free_compute[replicas]))].tolist()
        return list(islice((other for other in least_busy if other not in passed), NEIGHBOURS))

    def _hands_on(self, replica: int, model: int) -> bool:
        """Whether another model's requests could be moved on from there."""
        others = self.table.models_in[replica]
        return any(other != model and other not in self.full and self.table.count(other) > 1 for other in others)

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
        has_room = table.free_compute[held] > self.floor[held] + SLACK
        has_room[mine] = False
        if not has_room.any():
            self.full.add(model)
            return False
        rate = table.rate_rps(model, table.replicas_of[model])
        mean = float(rate.mean())
        most = float(rate[mine]) - LEAST * mean
        if most <= SLACK * mean:
            return False
        takes = self._takes(model, held, rate)
        takes[mine] = 0.0
        free, device_s = float(takes.sum()), table.problem.wants.device_s.item(model, table.problem.spots.pool[spot])
        if free <= SLACK * mean:
            self.full.add(model)
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
        excess = np.maximum(rate - capacity(self.table, model, held), 0.0)
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
        takes: Floats = np.maximum(np.minimum(room, MOST * capacity(table, model, held) - rate), 0.0)
        return takes

    def _split(self, model: int, held: Ints, rate: Floats) -> None:
        before = self.table.free_compute[held]
        self.table.weigh(model, rate / rate.mean())
        self.shifted.add(model)
        self._changed(held[self.table.free_compute[held] > before].tolist())


def capacity(table: Table, model: int, replicas: Ints) -> Floats:
    """(len(replicas),) requests a second that a copy can serve there within the objective."""
    most: Floats = table.problem.wants.capacity_rps[model][table.problem.spots.pool[replicas]]
    return most
