"""Placement at fleet scale: time, loads, and cost above the lower bound. ``python -m tests.benchmarks.bench_placement``

The instance: demand by Zipf's law with exponent 1, footprints log-normal around 1 GB, four GPU types that differ in
memory, speed and cost, a target of 0.75 of memory and of compute, and as much demand as about so many replicas serve as
the size says. Drift: each model's demand by 10 % (standard deviation of its logarithm) a tick, the sum unchanged; once
with requests split evenly over a model's copies, once by weights. No tolerance for noise: a replica over its target is
relieved in the same tick. What Meta's Rebalancer makes of a tick and of the loss of replicas is told beside ours where
it is installed."""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from tasks.decision import Placement, Reason, Sizing
from tasks.place import place
from tasks.place.answer import answer
from tasks.place.bound import market, prices
from tasks.place.changes import Changes
from tasks.place.collector import collector_paused
from tasks.place.engine import improve, repair, solve
from tasks.place.keep import keep
from tasks.place.problem import Problem
from tasks.place.read import read
from tasks.place.shares import Shares
from tasks.place.table import Table
from tasks.place.weigh import weigh
from tasks.size.capacity import Capacity
from tasks.size.home import home
from tasks.size.queueing import Station
from tasks.world import Copy, CopyState, Fleet, Limits, Model, Need, Objective, Observation, Pool, Replica
from tests.benchmarks.placement_yardsticks import (
    EXACT_UP_TO,
    HAS_HIGHS,
    exact,
    first_fit_decreasing,
    linear_program,
    most_served,
)
from tests.benchmarks.rebalancing import side_by_side

GPUS = {"t4": (16e9, 1.0, 0.53), "l4": (24e9, 2.2, 0.80), "a10g": (24e9, 2.8, 1.01), "a100": (80e9, 8.0, 3.67)}
"""Memory (bytes), speed, cost an hour."""
SIZES = {(50, 12): 850.0, (500, 100): 9_900.0, (5_000, 1_000): 95_000.0, (10_000, 2_000): 210_000.0}
"""Requests a second that about so many replicas serve, by models and replicas."""
LIMITS = Limits()
LOADS, LOADS_SHARE = 8, 0.03
"""In a tick, at most; the larger of the two. Repairs that need more take more."""


def instance(models: int, replicas: int) -> tuple[tuple[Pool, ...], tuple[Model, ...], NDArray[np.float64]]:
    """Pools, models, and each model's share of the demand."""
    rng = np.random.default_rng(0)
    footprint = np.clip(rng.lognormal(np.log(1e9), 1.0, models), 0.1e9, 11e9)
    service_ms = np.clip(rng.lognormal(np.log(20), 0.7, models), 2, 300)
    share = rng.permutation(1 / np.arange(1, models + 1))
    most = round(replicas * 0.4)
    pools = tuple(
        Pool(gpu, gpu, int(memory), 1.0, 0, most, 0, cost_per_hour=cost, headroom=0.25)
        for gpu, (memory, _, cost) in GPUS.items()
    )
    needs = {
        gpu: (footprint * rng.uniform(0.9, 1.15, models), service_ms / speed * rng.lognormal(0, 0.2, models))
        for gpu, (_, speed, _) in GPUS.items()
    }
    made = tuple(
        Model(
            f"m{i:05d}",
            {gpu: Need(int(bytes_[i]), float(ms[i])) for gpu, (bytes_, ms) in needs.items()},
            Objective(50.0),
            max_copies=max(8, replicas),
        )
        for i in range(models)
    )
    return pools, made, share / share.sum()


def sizings(pools: tuple[Pool, ...], models: tuple[Model, ...], demand: NDArray[np.float64]) -> tuple[Sizing, ...]:
    """As the tick sizes: by the capacity, 70 % of its device, of the GPU type where a request costs least."""
    found = []
    for model, rps in zip(models, demand.tolist(), strict=True):
        capacity = {gpu: 700 / need.service_ms for gpu, need in model.need_by_gpu_type.items()}
        known = {
            gpu: Capacity(Station(need.service_ms / 1000), capacity[gpu], need.source)
            for gpu, need in model.need_by_gpu_type.items()
        }
        copies = max(1, int(np.ceil(rps / capacity[home(model, pools, known)] - 1e-9)))
        found.append(Sizing(model.name, copies, rps, capacity, Reason("demand", "drawn")))
    return tuple(found)


class World:
    """A fleet that does at once what it is told."""

    def __init__(self, pools: tuple[Pool, ...], models: tuple[Model, ...], splits_by_weight: bool) -> None:
        self.pools, self.models, self.started = pools, models, 0
        self.splits_by_weight = splits_by_weight
        self.replicas: list[Replica] = []
        self.copies: dict[tuple[str, str], float] = {}
        """The weight of each."""

    def seen(self) -> Observation:
        counts = {pool.name: sum(r.pool == pool.name for r in self.replicas) for pool in self.pools}
        pools = tuple(replace(pool, replicas=counts[pool.name]) for pool in self.pools)
        copies = tuple(Copy(m, r, CopyState.READY, is_routed=True, weight=w) for (m, r), w in self.copies.items())
        return Observation(1e9, Fleet(self.models, pools, tuple(self.replicas), copies, self.splits_by_weight))

    def apply(self, placed: Placement) -> None:
        leaving = {name for name, _ in placed.leaving}
        self.replicas = [r for r in self.replicas if r.name not in leaving]
        by_name = {pool.name: pool for pool in self.pools}
        name_by_new: dict[str, str] = {}
        for a in placed.assignments:
            if "+" in a.replica and a.replica not in name_by_new:
                pool = by_name[a.replica.partition("+")[0]]
                name_by_new[a.replica] = name = f"{pool.name}-{self.started:05d}"
                self.started += 1
                self.replicas.append(Replica(name, pool.name, pool.gpu_type, pool.memory_bytes, pool.compute))
        self.copies = {(a.model, name_by_new.get(a.replica, a.replica)): a.weight for a in placed.assignments}

    def lose(self, share: float) -> int:
        """Every so-many-th replica and its copies; how many copies that is."""
        lost = {r.name for r in self.replicas[:: round(1 / share)]}
        self.replicas = [r for r in self.replicas if r.name not in lost]
        before = len(self.copies)
        self.copies = {(m, r): weight for (m, r), weight in self.copies.items() if r not in lost}
        return before - len(self.copies)

    def loads(self, placed: Placement) -> int:
        return sum((a.model, a.replica) not in self.copies for a in placed.assignments)


def cost(pools: tuple[Pool, ...], placed: Placement) -> float:
    return sum(pool.cost_per_hour * placed.replicas_by_pool[pool.name] for pool in pools)


def yardsticks(problem: Problem, ours: float) -> str:
    """What other ways come to, as shares above the bound."""
    m, bound = market(problem), prices(problem).bound_per_hour
    told = [f"first-fit decreasing {first_fit_decreasing(m) / bound - 1:.1%}"]
    if not HAS_HIGHS:
        return "; ".join([*told, "highspy not installed: no linear program, no exact optimum"])
    told.append(f"linear program {linear_program(m) / bound - 1:.2%}")
    if len(m.models) <= EXACT_UP_TO:
        start = perf_counter()
        best = exact(problem, ours, limit_s=120.0)
        told.append(
            f"optimum with weighted routing {best.cost / bound - 1:.1%}, proven {best.proven / bound - 1:.1%}, in "
            f"{perf_counter() - start:.1f} s: ours is {ours / best.proven - 1:.1%} above what is proven"
        )
    return "; ".join(told)


def bench(size: tuple[int, int], ticks: int) -> None:
    pools, models, share = instance(*size)
    demand = share * SIZES[size]
    for splits_by_weight in (False, True):
        world = World(pools, models, splits_by_weight)
        sized = sizings(pools, models, demand)
        start = perf_counter()
        placed = place(world.seen(), sized, LIMITS)
        scratch_s = perf_counter() - start
        problem = read(world.seen(), sized, LIMITS)
        gap = cost(pools, placed) / prices(problem).bound_per_hour - 1
        told = "" if splits_by_weight else f" ({yardsticks(problem, cost(pools, placed))})"
        print(
            f"{size[0]} x {size[1]}, {'by weights' if splits_by_weight else 'evenly'}: from scratch {scratch_s:.2f} s, "
            f"{len(placed.assignments)} copies, cost over the bound {gap:.1%}{told}"
        )
        world.apply(placed)
        shortage(deepcopy(world), demand)
        drift(world, demand, ticks)


def drift(world: World, demand: NDArray[np.float64], ticks: int) -> None:
    """A walk of the demand, the same for each world, and the loss of replicas at its end."""
    pools, models, rng, problem = world.pools, world.models, np.random.default_rng(1), None
    total = float(demand.sum())
    repair_s, tick_s, loads, gaps, over = [], [], [], [], []
    for _ in range(ticks):
        demand = demand * np.exp(rng.normal(0, 0.1, len(demand)))
        demand *= total / demand.sum()
        seen, sized = world.seen(), sizings(pools, models, demand)
        start = perf_counter()
        loads_most = max(LOADS, int(LOADS_SHARE * len(world.copies)))
        with collector_paused():  # as place does it
            problem = replace(read(seen, sized, LIMITS), noise=0.0, loads=loads_most)
            middle = perf_counter()
            table, changes, shares = repair(problem)
            end = perf_counter()
            improve(table, changes, shares)
            placed = answer(table, seen.fleet, changes)
        repair_s.append(end - middle)
        tick_s.append(perf_counter() - start)
        loads.append(world.loads(placed) / len(placed.assignments))
        gaps.append(cost(pools, placed) / prices(problem).bound_per_hour - 1)
        over.append(over_target(problem))
        world.apply(placed)
    assert problem is not None
    before, weighed = np.mean(over, axis=0)
    print(
        f"  {ticks} ticks: repair p50 {np.median(repair_s) * 1e3:.1f}, p99 {np.quantile(repair_s, 0.99) * 1e3:.1f} ms; "
        f"whole p50 {np.median(tick_s) * 1e3:.0f}, p99 {np.quantile(tick_s, 0.99) * 1e3:.0f} ms; loads "
        f"{np.mean(loads):.2%} of the copies a tick; cost over the bound {np.mean(gaps):.1%}, {gaps[-1]:.1%} at the "
        f"end; load over target after drift {before:.2%}, with new weights alone {weighed:.2%}"
    )
    print(f"  the last of these again: {side_by_side(problem)}")
    lost = world.lose(0.05)
    seen, sized = world.seen(), sizings(pools, models, demand)
    start = perf_counter()
    placed = place(seen, sized, LIMITS)
    took_ms = (perf_counter() - start) * 1e3
    print(f"  5 % of replicas lost: {took_ms:.0f} ms, {world.loads(placed) / lost:.2f} loads a copy")
    print(f"  the same again: {side_by_side(replace(read(seen, sized, LIMITS), noise=0.0))}")


def shortage(world: World, demand: NDArray[np.float64]) -> None:
    """The demand grows by half in ticks of a tenth, and no pool may add a replica: how much of it is served."""
    counts = {pool.name: sum(r.pool == pool.name for r in world.replicas) for pool in world.pools}
    world.pools = tuple(replace(pool, max_replicas=counts[pool.name], min_replicas=0) for pool in world.pools)
    for growth in (1.1, 1.2, 1.3, 1.4, 1.5):
        sized = sizings(world.pools, world.models, demand * growth)
        seen = world.seen()
        problem = read(seen, sized, LIMITS)
        table, changes = solve(problem)
        placed = answer(table, seen.fleet, changes)
        loads = world.loads(placed)
        world.apply(placed)
        total = float(problem.wants.demand_rps.sum())
        most = f"{most_served(problem) / total:.1%}" if HAS_HIGHS else "not known without highspy"
        print(
            f"  no more replicas, {growth:.1f} times the demand: served {served(table) / total:.1%}, at most {most}; "
            f"{loads} loads, {len(changes.refused)} models get fewer copies than they should"
        )


def served(table: Table) -> float:
    """Requests a second, when each replica does what its compute allows of each model alike."""
    wants, spots = table.problem.wants, table.problem.spots
    rates = {}
    for model, held in enumerate(table.replicas_of):
        if held:
            rate = table.rate_rps(model, held)
            rates[model] = rate / rate.sum() * wants.demand_rps[model]
    busy = np.zeros(len(spots.names))
    for model, rate in rates.items():
        held = table.replicas_of[model]
        busy[held] += rate * wants.device_s[model, spots.pool[held]]
    share = np.minimum(1.0, spots.compute / np.maximum(busy, 1e-12))
    return float(sum((rate * share[table.replicas_of[model]]).sum() for model, rate in rates.items()))


def over_target(problem: Problem) -> tuple[float, float]:
    """Share of the load that is over the replicas' targets before anything is done, and with new weights alone."""
    table, found = Table(problem), []
    keep(table)
    for _ in range(2):
        asked = (problem.spots.room_compute - table.free_compute)[table.is_on].sum()
        found.append(float(np.maximum(-table.free_compute, 0.0).sum() / asked))
        weigh(Shares(table), Changes())
    return found[0], found[1]


if __name__ == "__main__":
    for size in SIZES:
        bench(size, int(sys.argv[1]) if len(sys.argv) > 1 else 100)
