"""Many copies get a place at once: each model in the pool where it is cheapest, large copies first, side by side with
what they leave room for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.decision import Reason
from tasks.place.bound import BARRED, Prices, rooms
from tasks.place.changes import Changes
from tasks.place.problem import Floats, Ints
from tasks.place.table import SLACK, Table

SLIVER = 0.1
"""A pool that is to serve less than this share of a model gets none of it: a copy more would cost more than it
saves."""


@dataclass(slots=True)
class Bins:
    """The replicas of one pool that take copies: those that are on, then those that could be added."""

    replicas: Ints
    opened: int
    memory: Floats
    """Free memory, as a share of a replica's below its headroom."""
    compute: Floats
    """Free compute, as a share of a replica's below its target."""
    on: int
    """How many are on."""

    def limit(self, new: int) -> None:
        """So many could be added, and all of them are open."""
        self.opened = self.on + new
        self.replicas = self.replicas[: self.opened]
        self.memory, self.compute = self.memory[: self.opened], self.compute[: self.opened]


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """Copies to place, largest first, as struct of arrays of one length; memory and compute as shares of a replica."""

    model: Ints
    pool: Ints
    """Where it is cheapest."""
    memory: Floats
    """(M, P) of one copy; above 1 where it must not be."""
    compute: Floats
    """(M, P) of one copy."""
    count: Ints
    """(M,) copies that the model is to have."""


def construct(table: Table, changes: Changes, prices: Prices, most_compute: float, fleet: Ints | None = None) -> None:
    """Place what models miss. ``most_compute``: share of a replica's compute that one copy of a hot model may take;
    with less the model gets more copies, smaller ones. ``fleet``: (P,) new replicas that there are to be, no more;
    None: as many as it takes.

    What finds no place is left to those who may displace. The fit is the copy's direction: of the replicas where it has
    room, the one whose free memory and compute are in the proportion that it takes (Panigrahy et al., *Heuristics for
    vector bin packing*, 2011).
    """
    items = _items(table, prices, most_compute)
    bins = [_bins(table, pool) for pool in range(len(table.problem.pools))]
    for pool, those in enumerate(bins):
        mine = items.model[items.pool == pool]
        if fleet is not None:
            those.limit(int(fleet[pool]))
        _open(those, float(items.memory[mine, pool].sum()), float(items.compute[mine, pool].sum()))
    paid = prices.memory * np.minimum(items.memory, BARRED) + prices.compute * items.compute
    left: list[tuple[int, int]] = []
    for model, pool in zip(items.model.tolist(), items.pool.tolist(), strict=True):
        if not _put(table, changes, bins, items, (model, pool)):
            left.append((model, pool))
    for model, _ in left:
        order = [pool for pool in np.argsort(paid[model], kind="stable").tolist() if items.memory[model, pool] <= 1]
        if any(_put(table, changes, bins, items, (model, pool)) for pool in order):
            continue
        for pool in order:
            if bins[pool].opened < len(bins[pool].replicas):
                bins[pool].opened += 1
                if _put(table, changes, bins, items, (model, pool)):
                    break
                bins[pool].opened -= 1


def _items(table: Table, prices: Prices, most_compute: float) -> Items:
    problem = table.problem
    wants, room_bytes, room_compute = problem.wants, *rooms(problem)
    missing = np.array([max(0, c - table.count(m)) for m, c in enumerate(wants.copies.tolist())])
    memory = np.where(wants.is_allowed, wants.footprint_bytes / room_bytes, np.inf)
    per_rps = wants.device_s / room_compute
    count = np.maximum(wants.copies, 1)
    compute = np.array([table.compute_by_pool(m) for m in range(len(missing))]).reshape(memory.shape) / room_compute
    model: list[int] = []
    pool: list[int] = []
    for m in np.flatnonzero((missing > 0) & (memory <= 1).any(axis=1)).tolist():
        weight = np.where(memory[m] <= 1, prices.share[m] + 1e-9, 0.0)
        home = int(weight.argmax())
        parts = np.zeros(len(weight), dtype=int)
        if table.count(m) or np.isnan(wants.demand_rps[m]):
            parts[home] = missing[m]
        else:
            one = np.minimum(most_compute, wants.capacity_rps[m] * per_rps[m])
            parts = _parts(weight, wants.demand_rps[m] * per_rps[m], one, (int(missing[m]), int(wants.max_copies[m])))
            count[m] = parts.sum()
            compute[m] = wants.demand_rps[m] / count[m] * per_rps[m]
        for p in np.flatnonzero(parts).tolist():
            model += [m] * int(parts[p])
            pool += [p] * int(parts[p])
    models, homes = np.array(model, dtype=np.int64), np.array(pool, dtype=np.int64)
    order = np.argsort(-np.maximum(memory[models, homes], compute[models, homes]), kind="stable")
    return Items(models[order], homes[order], memory, np.minimum(compute, 1.0), count)


def _parts(weight: Floats, load: Floats, one: Floats, between: tuple[int, int]) -> Ints:
    """(P,) copies of one model in each pool. ``load``: (P,) replicas whose compute all its requests take there;
    ``one``: (P,) of these, what one copy may take; ``between``: fewest and most copies.

    Requests are split evenly, so that each copy, wherever, takes the same rate.
    """
    fewest, most = between
    home = int(weight.argmax())
    share = np.where(weight / weight.sum() >= SLIVER, weight, 0.0)
    share /= share.sum()
    parts = np.ceil(load * share / np.maximum(one, 1e-9) - SLIVER).astype(int)
    parts[home] += max(0, fewest - parts.sum())
    if parts.sum() <= 1:
        parts[:] = 0
        parts[home] = 1
    used = parts > 0
    parts[home] += max(0, int(np.ceil((load[used] / np.maximum(one[used], 1e-9)).max() - 1e-9)) - parts.sum())
    while parts.sum() > most:
        parts[parts.argmax()] -= parts.sum() - most if parts.max() > parts.sum() - most else parts.max()
    return parts


def _bins(table: Table, pool: int) -> Bins:
    spots = table.problem.spots
    room_bytes, room_compute = rooms(table.problem)
    mine = spots.pool == pool
    on = np.flatnonzero(mine & table.takes)
    off = np.flatnonzero(mine & ~table.is_on & spots.is_ours)
    asked = int(spots.is_asked[off].sum())
    replicas = np.concatenate([on, off])
    free = table.free_bytes[replicas] - table.going_bytes[replicas]
    compute = table.free_compute[replicas] / room_compute[pool]
    return Bins(replicas, len(on) + asked, free / room_bytes[pool], compute, len(on))


def _open(bins: Bins, memory: float, compute: float) -> None:
    """Open what the pool's copies need at least beside what is open."""
    there = slice(0, bins.opened)
    need = max(memory - bins.memory[there].clip(0).sum(), compute - bins.compute[there].clip(0).sum())
    bins.opened = min(len(bins.replicas), bins.opened + max(0, int(np.ceil(need - 1e-9))))


def _put(table: Table, changes: Changes, bins: list[Bins], items: Items, copy: tuple[int, int]) -> bool:
    model, pool = copy
    wants, those = table.problem.wants, bins[pool]
    memory, compute = items.memory[model, pool], items.compute[model, pool]
    rate = wants.demand_rps[model] / items.count[model]
    if memory > 1 or rate > wants.capacity_rps[model, pool] * (1 + SLACK):
        return False
    free_memory, free_compute = those.memory[: those.opened], those.compute[: those.opened]
    fine = (free_memory >= memory) & (free_compute >= compute - SLACK)
    if held := table.replicas_of[model]:
        fine &= ~np.isin(those.replicas[: those.opened], held)
    for replica, _, at in table.problem.failures_by_model.get(model, ()):
        fine &= (those.replicas[: those.opened] != replica) | (at <= table.problem.now)
    if not fine.any():
        return False
    length = np.sqrt(free_memory**2 + free_compute**2) + 1e-12
    n = int(np.where(fine, (free_memory * memory + free_compute * compute) / length, -1.0).argmax())
    replica = int(those.replicas[n])
    name = table.problem.pools[pool].name
    where = (
        f"{memory:.0%} of the memory into {free_memory[n]:.0%}, {compute:.0%} of the compute into {free_compute[n]:.0%}"
    )
    if not table.is_on[replica]:
        table.switch_on(replica)
    if table.problem.spots.is_new[replica]:
        changes.placed[model, replica] = Reason("replica_wanted", f"{where}, in a new {name}")
    else:
        changes.placed[model, replica] = Reason("placed", f"{where}, a copy costs least in {name}")
    those.memory[n] -= memory
    those.compute[n] -= compute
    table.add(model, replica)
    return True
