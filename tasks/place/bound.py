"""A lower bound of the fleet's cost, and with it what memory and compute are worth in each pool.

Lagrangian relaxation: the replicas' limits become prices of memory and of compute, two a pool; each model then buys
what is cheapest for it alone, and each pool opens the count of replicas that pays. Whatever the prices, that costs no
more than any placement (weak duality; Geoffrion, *Lagrangean relaxation for integer programming*, 1974). The best
prices are sought by the volume algorithm (Barahona and Anbil, *Mathematical Programming* 87, 2000), whose average of
the models' purchases is nearly an optimal fractional placement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.place.problem import Flags, Floats, Ints, Problem

ROUNDS = 200
"""Steps of the price search: after them the bound of a large fleet is within about 0.1 % of the linear program's."""
EVALUATIONS = 1_000_000
"""Prices of a model in a pool, at least as many in all, up to ``MOST_ROUNDS``: a small fleet needs more steps, and they
are cheap."""
MOST_ROUNDS = 600
"""Steps, at most: after them the bound of 50 models is within 1e-7 of what 2,000 give. The purchases are less so: of
ten fleets of 50 to 250 models two came out dearer from scratch, 0.2 % in the mean of all."""
FRESH = 0.1
"""Weight of the newest purchases in their average."""
BARRED = 1e6
"""Replicas that a model takes where it may not be."""
STEP = 0.05
"""First step, as a share of the bound, by Polyak's rule."""


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """What a pool's replica is worth, by what it gives, and what that means for the fleet."""

    memory: Floats
    """(P,) cost an hour of all memory of a replica, below its headroom."""
    compute: Floats
    """(P,) cost an hour of all compute of a replica, below its target."""
    bound_per_hour: float
    """No placement that serves every model costs less."""
    share: Floats
    """(M, P) how much of each model's load is best served in each pool; rows sum to 1; 0: no pool may hold it."""


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """Everything in units of one replica of a pool."""

    taken: Floats
    """(M, P) replicas whose memory the model's copies take when all are in the pool; huge: it may not be there."""
    load: Floats
    """(M, P) replicas whose compute all of the model's requests take; an unknown demand's copies at their capacity."""
    models: Ints
    """(M,) which models of the problem these are."""
    cost: Floats
    """(P,) of one replica an hour."""
    fewest: Floats
    """(P,) replicas that there must be."""
    most: Floats
    """(P,) replicas that there may be."""


def rooms(problem: Problem) -> tuple[Floats, Floats]:
    """(P,) bytes below the headroom and device-seconds a second below the target of a new replica of each pool."""
    bytes_ = np.array([np.floor(pool.memory_bytes * (1 - pool.headroom)) for pool in problem.pools])
    return bytes_, np.array([pool.compute * (1 - pool.headroom) for pool in problem.pools])


def market(problem: Problem, models: Flags | None = None) -> Market:
    """The problem for the bound; ``models``: (M,) only these."""
    wants, pools, (room_bytes, room_compute) = problem.wants, problem.pools, rooms(problem)
    is_known = np.isfinite(wants.demand_rps)[:, None]
    capacity = np.where(np.isfinite(wants.capacity_rps), wants.capacity_rps, 0.0)
    demand = np.where(is_known, np.nan_to_num(wants.demand_rps)[:, None], capacity * wants.copies[:, None])
    load = demand * wants.device_s / room_compute
    one = np.minimum(1.0, np.where(wants.device_s > 0, wants.capacity_rps * wants.device_s / room_compute, 1.0))
    memory = wants.footprint_bytes / room_bytes
    copies = np.maximum(1.0, load / np.maximum(one, 1e-12))
    is_possible = wants.is_allowed & (memory <= 1)
    chosen = is_possible.any(axis=1) & (wants.copies > 0)
    if models is not None:
        chosen &= models
    return Market(
        taken=np.where(is_possible, np.where(is_possible, memory, 0.0) * copies, BARRED)[chosen],
        load=load[chosen],
        models=np.flatnonzero(chosen),
        cost=np.array([pool.cost_per_hour for pool in pools]),
        fewest=np.array([float(pool.min_replicas) for pool in pools]),
        most=np.array([float(max(pool.max_replicas, pool.replicas)) for pool in pools]),
    )


def prices(
    problem: Problem,
    models: Flags | None = None,
    evaluations: int = EVALUATIONS,
    least: int = ROUNDS,
    enough_per_hour: float = np.inf,
) -> Prices:
    """The best prices found; ``models``: (M,) for these alone, in an empty fleet. ``least``: steps at least, up to
    ``MOST_ROUNDS``. ``enough_per_hour``: a bound above it is as good as any.

    A demand that is not known counts as what its copies may take.
    """
    m = market(problem, models)
    shape = problem.wants.footprint_bytes.shape
    if not m.load.size:
        return Prices(0.5 * m.cost, 0.5 * m.cost, float((m.fewest * m.cost).sum()), np.zeros(shape))
    rounds = min(MOST_ROUNDS, max(least, evaluations // m.load.size))
    memory, compute = 0.5 * m.cost, 0.5 * m.cost
    best, best_memory, best_compute = -np.inf, memory, compute
    slope_memory, slope_compute, share = np.zeros_like(memory), np.zeros_like(memory), np.zeros_like(m.load)
    scale, misses = m.cost**2, 0
    step = STEP
    for n in range(rounds):
        choice, value, over_memory, over_compute = _buy(m, memory, compute)
        fresh = max(FRESH, 1 / (n + 1))
        slope_memory += fresh * (over_memory - slope_memory)
        slope_compute += fresh * (over_compute - slope_compute)
        share *= 1 - fresh
        share.reshape(-1)[choice] += fresh
        if value > best:
            best, best_memory, best_compute, misses = value, memory, compute, 0
            if (slope_memory * over_memory + slope_compute * over_compute).sum() > 0:
                step = min(2 * STEP, step * 1.1)
        elif (misses := misses + 1) % 10 == 0:
            step *= 0.66
        length = (scale * (slope_memory**2 + slope_compute**2)).sum()
        if length <= 1e-18 or best > enough_per_hour:
            break
        reach = step * max(abs(best), 1e-9) / length * scale
        memory = np.maximum(0.0, best_memory + reach * slope_memory)
        compute = np.maximum(0.0, best_compute + reach * slope_compute)
    whole = np.zeros(shape)
    whole[m.models] = share
    return Prices(best_memory, best_compute, best, whole)


def _buy(m: Market, memory: Floats, compute: Floats) -> tuple[Ints, float, Floats, Floats]:
    """Each model's pool at these prices, as a place in the flat (M, P) arrays, the bound that they give, and by how
    many replicas the purchases are over what each pool then opens, in memory and in compute: the bound's slope."""
    paid, pools = m.load * compute + m.taken * memory, len(m.cost)
    pool = paid.argmin(axis=1)
    choice = np.arange(0, paid.size, pools) + pool
    gain = m.cost - memory - compute
    opened = np.where(gain >= 0, m.fewest, m.most)
    value = float(paid.take(choice).sum() + (opened * gain).sum())
    memory_wanted: Floats = np.bincount(pool, m.taken.take(choice), pools).astype(np.float64)
    compute_wanted: Floats = np.bincount(pool, m.load.take(choice), pools).astype(np.float64)
    return choice, value, memory_wanted - opened, compute_wanted - opened
