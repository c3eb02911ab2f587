"""The working table of a placement: which copies should be where, and what that takes of each replica."""

from __future__ import annotations

import numpy as np

from tasks.place.problem import Flags, Floats, Ints, Problem

HOT = 2
"""Copies that make a model hot."""
SLACK = 1e-9
"""Sums of floats are compared with this share of room: 0.1 + 0.2 fits into 0.3."""


class Table:
    """Copies that should be, by model and by replica, with running sums; every change can be undone.

    Requests are split evenly over a model's copies, as a gateway does that sends to the least busy: one more copy makes
    every copy smaller, one less makes every one larger.
    """

    def __init__(self, problem: Problem) -> None:
        wants, spots = problem.wants, problem.spots
        self.problem = problem
        self.replicas_of: list[list[int]] = [[] for _ in wants.names]
        self.models_in: list[list[int]] = [[] for _ in spots.names]
        self.is_on: Flags = ~spots.is_new
        """(R,) there, or to be added."""
        self.takes: Flags = self.is_on & np.array([not why for why in spots.closed], dtype=bool)
        """(R,) whether a new copy may go there."""
        self.free_bytes: Floats = spots.room_bytes.copy()
        """(R,) room that no copy takes that should be there; negative: over."""
        self.free_compute: Floats = spots.room_compute.copy()
        """(R,) below the target; negative: over."""
        self.going_bytes: Floats = np.zeros(len(spots.names))
        """(R,) of copies that are there and should not be: taken until they are unloaded."""
        self.going_of: dict[int, set[int]] = {}
        """By model, the replicas of those."""
        self.present: set[tuple[int, int]] = set()
        """(model, replica) of the copies that are there."""
        self._asked_bytes: Floats = np.where(wants.is_allowed, wants.footprint_bytes, np.inf)
        is_possible = wants.is_allowed & np.isfinite(wants.footprint_bytes)
        self._best_rps: Floats = np.where(is_possible, wants.capacity_rps, 0.0).max(axis=1, initial=0.0)
        """(M,) capacity of a copy where it is largest: what is more than that must go somewhere all the same."""
        least_rps = np.where(is_possible, wants.capacity_rps, np.inf).min(axis=1, initial=np.inf)
        self.is_hot: Flags = (wants.copies >= HOT) | (wants.demand_rps > least_rps)
        """(M,) whether the model may get more and smaller copies; one of which one will do anywhere keeps one."""
        self._journal: list[tuple[int, int, bool]] = []
        there = problem.there
        for model, replica in zip(there.model.tolist(), there.replica.tolist(), strict=True):
            self.present.add((model, replica))
            self.going_of.setdefault(model, set()).add(replica)
        footprint = wants.footprint_bytes[there.model, spots.pool[there.replica]]
        self.going_bytes += np.bincount(there.replica, footprint, len(spots.names))

    def count(self, model: int) -> int:
        return len(self.replicas_of[model])

    def divisor(self, model: int, extra: int = 0) -> int:
        """Copies that the model's requests are split over; copies that it still misses count, they are to come."""
        return max(1, int(self.problem.wants.copies[model]), len(self.replicas_of[model]) + extra)

    def compute_by_pool(self, model: int, extra: int = 0) -> Floats:
        """(P,) device-seconds a second of each copy with so many copies more. Unknown demand counts as what a copy may
        take."""
        wants = self.problem.wants
        demand = wants.demand_rps[model]
        rate: Floats | float = float(demand) / self.divisor(model, extra)
        if np.isnan(demand):
            rate = np.where(np.isfinite(wants.capacity_rps[model]), wants.capacity_rps[model], 0.0)
        return np.asarray(rate * wants.device_s[model], dtype=np.float64)

    def rate_of_all(self) -> Floats:
        """(M,) requests a second of each copy; NaN: unknown."""
        wants = self.problem.wants
        count = np.array([len(held) for held in self.replicas_of])
        rate: Floats = wants.demand_rps / np.maximum(1, np.maximum(count, wants.copies))
        return rate

    def uneven(self, noise: float = SLACK) -> Ints:
        """Models of which a copy gets more requests than it can serve where it is: a gateway gives the slow copy as
        many as the fast one. ``noise``: see :meth:`has_capacity`."""
        capacity, pool = self.problem.wants.capacity_rps, self.problem.spots.pool
        least = [capacity[model, pool[held]].min() if held else np.inf for model, held in enumerate(self.replicas_of)]
        rate = np.minimum(self.rate_of_all(), self._best_rps)
        return np.flatnonzero(rate > np.array(least) * (1 + noise))

    def compute_of_all(self) -> Floats:
        """(M, P) the same of every model, with the copies that it has."""
        wants = self.problem.wants
        rate = self.rate_of_all()[:, None]
        capacity = np.where(np.isfinite(wants.capacity_rps), wants.capacity_rps, 0.0)
        compute: Floats = np.where(np.isnan(rate), capacity, rate) * wants.device_s
        return compute

    def compute_in(self, model: int, replicas: Ints | list[int], extra: int = 0) -> Floats:
        """(len(replicas),) the same, by replica: at most all that a replica has."""
        spots = self.problem.spots
        share: Floats = self.compute_by_pool(model, extra)[spots.pool[replicas]]
        return np.minimum(share, spots.room_compute[replicas])

    def keep(self, models: Ints, replicas: Ints) -> None:
        """Copies that are there should be, all at once, on a table that has none yet. This cannot be undone."""
        wants, spots, size = self.problem.wants, self.problem.spots, len(self.problem.spots.names)
        for model, replica in zip(models.tolist(), replicas.tolist(), strict=True):
            self.replicas_of[model].append(replica)
            self.models_in[replica].append(model)
            self.going_of[model].remove(replica)
        divisor = np.maximum(1, np.maximum(wants.copies, np.bincount(models, minlength=len(wants.names))))
        capacity = np.where(np.isfinite(wants.capacity_rps), wants.capacity_rps, 0.0)[models, spots.pool[replicas]]
        rate = wants.demand_rps[models] / divisor[models]
        compute = np.where(np.isnan(rate), capacity, rate) * wants.device_s[models, spots.pool[replicas]]
        footprint = wants.footprint_bytes[models, spots.pool[replicas]]
        self.free_compute -= np.bincount(replicas, np.minimum(compute, spots.room_compute[replicas]), size)
        self.free_bytes -= np.bincount(replicas, footprint, size)
        self.going_bytes -= np.bincount(replicas, footprint, size)

    def add(self, model: int, replica: int) -> None:
        """The copy should be there."""
        self._journal.append((model, replica, True))
        held = self.replicas_of[model]
        if held and self.divisor(model, 1) != self.divisor(model):
            self.free_compute[held] += self.compute_in(model, held) - self.compute_in(model, held, 1)
        held.append(replica)
        self.models_in[replica].append(model)
        self.free_compute[replica] -= self.compute_in(model, [replica])[0]
        footprint = self.problem.wants.footprint_bytes[model, self.problem.spots.pool[replica]]
        self.free_bytes[replica] -= footprint
        if replica in self.going_of.get(model, ()):
            self.going_of[model].remove(replica)
            self.going_bytes[replica] -= footprint

    def remove(self, model: int, replica: int) -> None:
        """The copy should not be there; if it is there now, its memory stays taken for this tick."""
        self._journal.append((model, replica, False))
        held = self.replicas_of[model]
        self.free_compute[replica] += self.compute_in(model, [replica])[0]
        held.remove(replica)
        self.models_in[replica].remove(model)
        if held and self.divisor(model, 1) != self.divisor(model):
            self.free_compute[held] += self.compute_in(model, held, 1) - self.compute_in(model, held)
        footprint = self.problem.wants.footprint_bytes[model, self.problem.spots.pool[replica]]
        self.free_bytes[replica] += footprint
        if (model, replica) in self.present:
            self.going_of.setdefault(model, set()).add(replica)
            self.going_bytes[replica] += footprint

    def mark(self) -> int:
        """A point to come back to."""
        return len(self._journal)

    def undo(self, mark: int) -> None:
        """Take back every change since the mark, but for the order of lists."""
        while len(self._journal) > mark:
            model, replica, is_added = self._journal.pop()
            (self.remove if is_added else self.add)(model, replica)
            self._journal.pop()

    def switch_on(self, replica: int) -> None:
        """The pool should get this replica."""
        self.is_on[replica] = self.takes[replica] = True

    def fits(self, model: int, extra: int = 1, margin: float = 0.0, counts_going: bool = True) -> Flags:
        """(R,) where one more copy fits: open, memory, compute, capacity, no copy yet, no load that failed lately.

        ``extra``: the copies by which the model grows, 0 when the copy replaces one. ``margin``: more compute by this
        share. ``counts_going``: memory of copies that are to be unloaded counts as taken.
        """
        return (
            self.has_memory(model, counts_going)
            & self.has_compute(model, extra, margin)
            & self.has_capacity(model, extra)
        )

    def has_memory(self, model: int, counts_going: bool = True) -> Flags:
        """(R,) the same, whatever compute it takes."""
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
        ``noise``: over its capacity by this share counts as within."""
        wants = self.problem.wants
        rate = min(wants.demand_rps[model] / self.divisor(model, extra), self._best_rps[model])
        # NaN, an unknown demand, is not greater
        fine: Flags = ~(rate > wants.capacity_rps[model] * (1 + noise))
        return fine[self.problem.spots.pool]

    def over_capacity(self, model: int, noise: float = SLACK) -> list[int]:
        """The replicas of its copies that get more requests than they can serve within the objective there."""
        capable = self.has_capacity(model, 0, noise)
        return [replica for replica in self.replicas_of[model] if not capable[replica]]

    def has_compute(self, model: int, extra: int = 1, margin: float = 0.0) -> Flags:
        """(R,) whether the target leaves room for a copy's compute."""
        spots = self.problem.spots
        need = np.minimum(self.compute_by_pool(model, extra)[spots.pool], spots.room_compute) * (1 + margin)
        return need <= self.free_compute + SLACK

    def fullness(self, model: int, replicas: Ints) -> Floats:
        """(len(replicas),) the larger of the shares of memory and compute that are taken with a copy of the model."""
        spots = self.problem.spots
        footprint = self.problem.wants.footprint_bytes[model][spots.pool[replicas]]
        used = spots.room_bytes[replicas] - self.free_bytes[replicas] + self.going_bytes[replicas]
        busy = spots.room_compute[replicas] - self.free_compute[replicas]
        compute = self.compute_in(model, replicas)
        share = np.maximum(spots.compute[replicas], 1e-9)
        full: Floats = np.maximum(
            (used + footprint) / np.maximum(spots.memory_bytes[replicas], 1.0), (busy + compute) / share
        )
        return full
