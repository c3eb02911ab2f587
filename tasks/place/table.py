"""The working table of a placement: which copies should be where, and what that takes of each replica."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import chain

import numpy as np

from tasks.place.journal import Before
from tasks.place.problem import Flags, Floats, Ints, Problem
from tasks.place.worth import Worth

HOT = 2
"""Copies that make a model hot."""
EQUAL = 0.005
"""Weights, 1 on average, that differ from it by less are equal: what a gateway keeps of them is rounded."""
SLACK = 1e-9
"""Sums of floats are compared with this share of room: 0.1 + 0.2 fits into 0.3."""


class Table:
    """Copies that should be, by model and by replica, with running sums; every change can be undone.

    Requests are split evenly over a model's copies, as a gateway does that sends to the least busy, or by weights where
    the gateway can: one more copy makes every copy smaller, one less makes every one larger. A copy that comes weighs
    1, the mean of the others.
    """

    def __init__(self, problem: Problem, worth: Worth | None = None) -> None:
        """``worth``: the problem's, where another table of it is there already."""
        wants, spots, there = problem.wants, problem.spots, problem.there
        self.problem, self.worth = problem, worth or Worth(problem)
        self.replicas_of: list[list[int]] = [[] for _ in wants.names]
        self.counts: Ints = np.zeros(len(wants.names), dtype=np.int64)
        """(M,) copies that should be: the lengths of those lists."""
        self.models_in: list[list[int]] = [[] for _ in spots.names]
        self.is_on: Flags = ~spots.is_new
        """(R,) there, or to be added."""
        self.takes: Flags = self.is_on & np.array([not why for why in spots.closed], dtype=bool)
        """(R,) whether a new copy may go there."""
        self.free_bytes: Floats = spots.room_bytes.copy()
        """(R,) room that no copy takes that should be there; negative: over."""
        self.free_compute: Floats = spots.room_compute.copy()
        """(R,) below the target; negative: over."""
        taken = wants.footprint_bytes[there.model, spots.pool[there.replica]]
        self.going_bytes: Floats = np.bincount(there.replica, taken, len(spots.names)).astype(float)
        """(R,) of copies that are there and should not be: taken until they are unloaded."""
        self.going_of: dict[int, set[int]] = defaultdict(set)
        """By model, the replicas of those."""
        self.present = set(zip(there.model.tolist(), there.replica.tolist(), strict=True))
        """(model, replica) of the copies that are there."""
        self.weights: dict[int, Floats] = {}
        """By model whose copies do not all weigh the same: (count,) 1 on average, in the order of its replicas. Never
        changed in place."""
        # single elements of a list are read several times faster than those of an array
        self._copies: list[int] = wants.copies.tolist()
        self._demand_rps: list[float] = wants.demand_rps.tolist()
        self._pool: list[int] = spots.pool.tolist()
        self._room_compute: list[float] = spots.room_compute.tolist()
        self._asked_bytes: Floats = np.where(wants.is_allowed, wants.footprint_bytes, np.inf)
        is_possible = wants.is_allowed & np.isfinite(wants.footprint_bytes)
        self._best_rps: Floats = np.where(is_possible, wants.capacity_rps, 0.0).max(axis=1, initial=0.0)
        """(M,) capacity of a copy where it is largest: what is more than that must go somewhere all the same."""
        least_rps = np.where(is_possible, wants.capacity_rps, np.inf).min(axis=1, initial=np.inf)
        self.is_hot: Flags = (wants.copies >= HOT) | (wants.demand_rps > least_rps)
        """(M,) whether the model may get more and smaller copies; one of which one will do anywhere keeps one."""
        self._journal: list[Before] = []
        for model, replica in self.present:
            self.going_of[model].add(replica)

    def count(self, model: int) -> int:
        return len(self.replicas_of[model])

    def divisor(self, model: int, extra: int = 0) -> int:
        """Copies that the model's requests are split over; copies that it still misses count, they are to come."""
        return max(1, self._copies[model], len(self.replicas_of[model]) + extra)

    def compute_by_pool(self, model: int, extra: int = 0) -> Floats:
        """(P,) device-seconds a second of a copy, with so many copies more. Unknown demand: as much as one may take."""
        wants = self.problem.wants
        rate: Floats | float = self._demand_rps[model] / self.divisor(model, extra)
        if math.isnan(rate):
            rate = np.where(np.isfinite(wants.capacity_rps[model]), wants.capacity_rps[model], 0.0)
        compute: Floats = rate * wants.device_s[model]
        return compute

    def rate_of_all(self) -> Floats:
        """(M,) requests a second of each copy; NaN: unknown."""
        wants = self.problem.wants
        rate: Floats = wants.demand_rps / np.maximum(1, np.maximum(self.counts, wants.copies))
        return rate

    def uneven(self, noise: float = SLACK) -> Ints:
        """Models of which a copy gets more requests than it can serve where it is: without weights a gateway gives the
        slow copy as many as the fast one. ``noise``: see :meth:`has_capacity`."""
        models = np.repeat(np.arange(len(self.counts)), self.counts)
        held = np.fromiter(chain.from_iterable(self.replicas_of), np.int64, len(models))
        capacity = self.problem.wants.capacity_rps[models, self.problem.spots.pool[held]]
        rate = np.minimum(self.rate_of_all(), self._best_rps)[models]
        is_over = np.bincount(models[rate > capacity * (1 + noise)], minlength=len(self.counts)) > 0
        for model in self.weights:
            is_over[model] = bool(self.over_capacity(model, noise))
        return np.flatnonzero(is_over)

    def compute_of_all(self) -> Floats:
        """(M, P) the same of every model, with the copies that it has."""
        wants = self.problem.wants
        rate = self.rate_of_all()[:, None]
        capacity = np.where(np.isfinite(wants.capacity_rps), wants.capacity_rps, 0.0)
        compute: Floats = np.where(np.isnan(rate), capacity, rate) * wants.device_s
        return compute

    def compute_in(self, model: int, replicas: Ints | list[int], extra: int = 0) -> Floats:
        """(len(replicas),) the same, by replica: at most all that a replica has."""
        rows, spots, compute = np.asarray(replicas), self.problem.spots, self.compute_by_pool(model, extra)
        share: Floats = np.minimum(compute[spots.pool[rows]] * self._weight(model, replicas), spots.room_compute[rows])
        return share

    def rate_at(self, model: int, replica: int, extra: int = 0) -> float:
        """Requests a second that a copy there gets, with so many copies more; NaN: unknown."""
        return self._demand_rps[model] / self.divisor(model, extra) * self.weight(model, replica)

    def weight(self, model: int, replica: int) -> float:
        """Of one copy, 1 on average; 1 if it is yet to come."""
        weights, held = self.weights.get(model), self.replicas_of[model]
        return 1.0 if weights is None or replica not in held else weights.item(held.index(replica))

    def compute_at(self, model: int, replica: int, extra: int = 0) -> float:
        """Device-seconds a second of a copy in one replica: numbers take a fraction of the time of arrays of one."""
        pool, rate = self._pool[replica], self.rate_at(model, replica, extra)
        if math.isnan(rate):
            capacity: float = self.problem.wants.capacity_rps.item(model, pool)
            rate = capacity if math.isfinite(capacity) else 0.0
        device_s: float = self.problem.wants.device_s.item(model, pool)
        return min(rate * device_s, self._room_compute[replica])

    def relief(self, model: int, replicas: Ints) -> Floats:
        """(len(replicas),) what a copy there would give up, if the model got one copy more."""
        spots, weight = self.problem.spots, self._weight(model, replicas)
        pool, room = spots.pool[replicas], spots.room_compute[replicas]
        smaller = np.minimum(self.compute_by_pool(model, 1)[pool] * weight, room)
        given: Floats = np.minimum(self.compute_by_pool(model)[pool] * weight, room) - smaller
        return given

    def rate_rps(self, model: int, replicas: Ints | list[int]) -> Floats:
        """(len(replicas),) requests a second that a copy of the model gets there; NaN: unknown demand."""
        return np.full(len(replicas), self._demand_rps[model] / self.divisor(model) * self._weight(model, replicas))

    def _weight(self, model: int, replicas: Ints | list[int]) -> Floats | float:
        weights = self.weights.get(model)
        if weights is None or math.isnan(self._demand_rps[model]):
            return 1.0
        if replicas is self.replicas_of[model]:
            return weights
        found = np.ones(len(self.models_in))
        found[self.replicas_of[model]] = weights
        return found[replicas]

    def weigh(self, model: int, weights: Floats | None) -> None:
        """Split the model's requests over its copies by these weights, (count,) 1 on average; None: evenly."""
        self._journal.append(Before.weigh(self, model))
        self._split(model, weights)

    def _split(self, model: int, weights: Floats | None) -> None:
        held = self.replicas_of[model]
        if (weights is None and model not in self.weights) or not held:
            return
        spots, before = self.problem.spots, self._weight(model, held)
        if weights is None:
            self.weights.pop(model)
        else:
            self.weights[model] = weights
        even, room = self.compute_by_pool(model)[spots.pool[held]], spots.room_compute[held]
        self.free_compute[held] += np.minimum(even * before, room) - np.minimum(even * self._weight(model, held), room)

    def keep(self, models: Ints, replicas: Ints, weights: Floats) -> None:
        """Copies that are there should be, all at once, on a table that has none yet. This cannot be undone."""
        wants, spots, size = self.problem.wants, self.problem.spots, len(self.models_in)
        self.counts = np.bincount(models, minlength=len(wants.names))
        mean = np.bincount(models, weights, len(wants.names)) / np.maximum(self.counts, 1)
        weight = weights / mean[models]
        is_uneven = np.isin(models, models[np.abs(weight - 1) > EQUAL])
        shares: dict[int, list[float]] = defaultdict(list)
        rows = (models.tolist(), replicas.tolist(), weight.tolist(), is_uneven.tolist())
        for model, replica, share, is_weighed in zip(*rows, strict=True):
            self.replicas_of[model].append(replica)
            self.models_in[replica].append(model)
            self.going_of[model].remove(replica)
            if is_weighed:
                shares[model].append(share)
        self.weights.update((model, np.array(its)) for model, its in shares.items())
        weight[np.isnan(wants.demand_rps[models]) | ~is_uneven] = 1.0
        compute = self.compute_of_all()[models, spots.pool[replicas]] * weight
        footprint = wants.footprint_bytes[models, spots.pool[replicas]]
        self.free_compute -= np.bincount(replicas, np.minimum(compute, spots.room_compute[replicas]), size)
        self.free_bytes -= np.bincount(replicas, footprint, size)
        self.going_bytes -= np.bincount(replicas, footprint, size)

    def add(self, model: int, replica: int) -> None:
        """The copy should be there."""
        self._journal.append(Before.add(self, model, replica))
        self._resize(model, 1)
        self.replicas_of[model].append(replica)
        if (weights := self.weights.get(model)) is not None:
            self.weights[model] = np.append(weights, 1.0)
        self.counts[model] += 1
        self.models_in[replica].append(model)
        self.free_compute[replica] -= self.compute_at(model, replica)
        footprint = self.problem.wants.footprint_bytes[model, self.problem.spots.pool[replica]]
        self.free_bytes[replica] -= footprint
        if replica in self.going_of.get(model, ()):
            self.going_of[model].remove(replica)
            self.going_bytes[replica] -= footprint

    def remove(self, model: int, replica: int) -> None:
        """The copy should not be there; if it is there now, its memory stays taken for this tick."""
        self._journal.append(Before.remove(self, model, replica))
        held = self.replicas_of[model]
        self.free_compute[replica] += self.compute_at(model, replica)
        if (weights := self.weights.get(model)) is not None:
            self.weights[model] = weights = np.delete(weights, held.index(replica))
        held.remove(replica)
        self.counts[model] -= 1
        self.models_in[replica].remove(model)
        self._resize(model, -1)
        footprint = self.problem.wants.footprint_bytes[model, self.problem.spots.pool[replica]]
        self.free_bytes[replica] += footprint
        if (model, replica) in self.present:
            self.going_of[model].add(replica)
            self.going_bytes[replica] += footprint
        if weights is None:
            return
        if held:
            left = weights / weights.mean()
            self._split(model, left if (np.abs(left - 1) > EQUAL).any() else None)
        else:
            self.weights.pop(model)

    def _resize(self, model: int, sign: int) -> None:
        """The model's copies become smaller, since one more comes, or larger (-1), since one has gone."""
        if self.replicas_of[model] and self.divisor(model, 1) != self.divisor(model):
            held = np.array(self.replicas_of[model])
            self.free_compute[held] += sign * self.relief(model, held)

    def move(self, model: int, source: int, target: int) -> None:
        """The copy should be elsewhere; ``source`` -1: one copy more comes."""
        if source >= 0:
            self.remove(model, source)
        self.add(model, target)

    def mark(self) -> int:
        """A point to come back to."""
        return len(self._journal)

    def touched(self, mark: int) -> set[int]:
        """Replicas whose copies or compute have changed since the mark."""
        return {replica for before in self._journal[mark:] for replica in before.touched}

    def given_up(self) -> list[tuple[int, int]]:
        """(model, replica) of the copies that were taken off and are off, in that order."""
        found: dict[tuple[int, int], None] = {}
        for before in self._journal:
            if before.replica >= 0:
                found.pop(copy := (before.model, before.replica), None)
                if not before.is_added:
                    found[copy] = None
        return list(found)

    def undo(self, mark: int) -> None:
        """Take back every change since the mark: nothing of it is left."""
        while len(self._journal) > mark:
            self._journal.pop().restore(self)

    def switch_on(self, replica: int) -> None:
        """The pool should get this replica."""
        self.is_on[replica] = self.takes[replica] = True

    def has_memory(self, model: int, counts_going: bool = True) -> Flags:
        """(R,) where there is the memory for one more copy, whatever compute it takes: open, no copy yet, no load that
        failed lately. ``counts_going``: memory of copies that are to be unloaded counts as taken."""
        free = self.free_bytes - self.going_bytes if counts_going else self.free_bytes
        need = self._asked_bytes[model][self.problem.spots.pool]
        fine: Flags = need <= free
        for replica in self.going_of.get(model, ()) if counts_going else ():  # its own memory is there for it
            fine[replica] |= bool(np.isfinite(need[replica]) and free[replica] >= 0)
        fine &= self.takes
        fine[self.replicas_of[model]] = False
        for replica, _, at in self.problem.failures_by_model.get(model, ()):
            fine[replica] &= at <= self.problem.now
        return fine

    def may_come(self, replica: int) -> Flags:
        """(M,) the other way round: which models that are not pinned may send a copy to the replica, beside what is
        there now."""
        wants, pool = self.problem.wants, self.problem.spots.pool[replica]
        fine = wants.is_allowed[:, pool] & ~wants.is_pinned & bool(self.takes[replica])
        fine &= wants.footprint_bytes[:, pool] <= self.free_bytes[replica] - self.going_bytes[replica]
        fine[self.models_in[replica]] = False
        fine &= ~(np.minimum(self.rate_of_all(), self._best_rps) > wants.capacity_rps[:, pool] * (1 + SLACK))
        for model, failures in self.problem.failures_by_model.items():
            fine[model] &= all(failed != replica or at <= self.problem.now for failed, _, at in failures)
        return fine

    def has_capacity(self, model: int, extra: int = 1, noise: float = SLACK) -> Flags:
        """(R,) where a copy can serve its share of the requests within the objective, or as much as any could.
        ``extra``: the copies by which the model grows, 0 when the copy replaces one. ``noise``: over its capacity by
        this share counts as within."""
        wants = self.problem.wants
        rate = min(wants.demand_rps[model] / self.divisor(model, extra), self._best_rps[model])
        # NaN, an unknown demand, is not greater
        fine: Flags = ~(rate > wants.capacity_rps[model] * (1 + noise))
        return fine[self.problem.spots.pool]

    def over_capacity(self, model: int, noise: float = SLACK) -> list[int]:
        """The replicas of its copies that get more requests than they can serve within the objective there."""
        held = self.replicas_of[model]
        capacity = self.problem.wants.capacity_rps[model][self.problem.spots.pool[held]]
        over = np.minimum(self.rate_rps(model, held), self._best_rps[model]) > capacity * (1 + noise)
        return [replica for replica, is_over in zip(held, over.tolist(), strict=True) if is_over]

    def has_compute(self, model: int, extra: int = 1, margin: float = 0.0) -> Flags:
        """(R,) whether the target leaves room for a copy's compute. ``margin``: for more of it by this share."""
        spots = self.problem.spots
        need = np.minimum(self.compute_by_pool(model, extra)[spots.pool], spots.room_compute) * (1 + margin)
        return need <= self.free_compute + SLACK
