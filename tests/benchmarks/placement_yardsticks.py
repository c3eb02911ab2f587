"""What a placement's cost is held against: first-fit decreasing, HiGHS' linear program, HiGHS' exact optimum."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.place.bound import BARRED, Market, market, rooms
from tasks.place.problem import Problem

HAS_HIGHS = importlib.util.find_spec("highspy") is not None
EXACT_UP_TO = 50
"""Models: beyond them a proof takes hours."""


def first_fit_decreasing(m: Market) -> float:
    """Cost of the fleet when copies, one replica's compute at most, go largest first into the first replica of the
    pool that is cheapest for them with all of it paid."""
    paid = m.cost * np.maximum(m.taken, m.load)
    bins: dict[int, list[list[float]]] = {}
    items = []
    for model, pool in enumerate(paid.argmin(axis=1).tolist()):
        count = max(1, int(np.ceil(m.load[model, pool])))
        items += [(m.taken[model, pool] / count, m.load[model, pool] / count, pool)] * count
    for memory, compute, pool in sorted(items, key=lambda item: -max(item[:2])):
        for free in bins.setdefault(pool, []):
            if free[0] >= memory and free[1] >= compute:
                free[0] -= memory
                free[1] -= compute
                break
        else:
            bins[pool].append([1 - memory, 1 - compute])
    return float(sum(m.cost[pool] * len(those) for pool, those in bins.items()))


def linear_program(m: Market) -> float:
    """HiGHS' optimum of the linear program that the bound relaxes to."""
    import highspy

    models, pools = m.load.shape
    program = highspy.HighsLp()
    program.num_col_, program.num_row_ = models * pools + pools, models + 2 * pools
    program.col_cost_ = np.concatenate([np.zeros(models * pools), m.cost])
    program.col_lower_ = np.concatenate([np.zeros(models * pools), m.fewest])
    program.col_upper_ = np.concatenate([(m.taken < BARRED / 10).ravel().astype(float), m.most])
    program.row_lower_ = np.concatenate([np.ones(models), np.full(2 * pools, -np.inf)])
    program.row_upper_ = np.concatenate([np.ones(models), np.zeros(2 * pools)])
    i, p = (axis.ravel() for axis in np.indices(m.load.shape))
    rows = np.column_stack([i, models + p, models + pools + p])
    values = np.column_stack([np.ones(i.size), m.taken.ravel(), m.load.ravel()])
    own = np.arange(pools)
    rows_of_pools = np.column_stack([models + own, models + pools + own])
    program.a_matrix_.index_ = np.concatenate([rows.ravel(), rows_of_pools.ravel()])
    program.a_matrix_.value_ = np.concatenate([values.ravel(), -np.ones(2 * pools)])
    program.a_matrix_.start_ = np.concatenate([np.arange(i.size) * 3, i.size * 3 + np.arange(pools + 1) * 2])
    return _optimum(program)


def most_served(problem: Problem) -> float:
    """Requests a second that no placement on the pools' most replicas serves more of, with all their compute and the
    memory below their headroom: HiGHS' optimum of the linear program in which each model may be served in part."""
    import highspy

    m, pools = market(problem), problem.pools
    models, count = m.load.shape
    is_possible = m.taken < BARRED / 10
    program = highspy.HighsLp()
    program.num_col_, program.num_row_ = models * count, models + 2 * count
    program.col_cost_ = -np.repeat(np.nan_to_num(problem.wants.demand_rps[m.models]), count)
    program.col_lower_, program.col_upper_ = np.zeros(models * count), is_possible.ravel().astype(float)
    program.row_lower_ = np.full(models + 2 * count, -np.inf)
    all_compute = m.most / np.array([1 - pool.headroom for pool in pools])
    program.row_upper_ = np.concatenate([np.ones(models), m.most, all_compute])
    i, p = (axis.ravel() for axis in np.indices(m.load.shape))
    values = np.column_stack([np.ones(i.size), np.where(is_possible, m.taken, 0.0).ravel(), m.load.ravel()])
    program.a_matrix_.index_ = np.column_stack([i, models + p, models + count + p]).ravel()
    program.a_matrix_.value_ = values.ravel()
    program.a_matrix_.start_ = np.arange(i.size + 1) * 3
    return -_optimum(program)


def _optimum(program: Any) -> float:
    """The least that the linear program's objective can be."""
    import highspy

    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.passModel(program)
    solver.run()
    return float(solver.getInfo().objective_function_value)


@dataclass(frozen=True, slots=True)
class Exact:
    """What HiGHS found and proved, cost an hour."""

    cost: float
    """Of the best fleet found; infinite: none."""
    proven: float
    """No fleet costs less."""


def exact(problem: Problem, most_cost: float, limit_s: float) -> Exact:
    """The cheapest fleet of whole replicas and whole copies, each copy's share of the requests free, as a gateway with
    weights can split them, by branch and cut. ``most_cost``: of a fleet that is known; dearer ones are not looked at.

    A copy takes its model's memory whole, of the compute what its share of the requests takes, and no more requests
    than its capacity. The replicas of a pool are alike, so they open in order.
    """
    import highspy

    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("time_limit", limit_s)
    m, wants = market(problem), problem.wants
    memory = (wants.footprint_bytes / rooms(problem)[0])[m.models]
    most_share = np.minimum(1.0, wants.capacity_rps[m.models] / np.maximum(wants.demand_rps[m.models], 1e-9)[:, None])
    shares: list[list[Any]] = [[] for _ in m.models]
    total = 0.0
    for pool, cost in enumerate(m.cost.tolist()):
        fits = np.flatnonzero(memory[:, pool] <= 1).tolist()
        before = None
        for _ in range(int(min(m.most[pool], most_cost // cost))):
            is_open = solver.addBinary()
            copies = {i: solver.addBinary() for i in fits}
            served = {i: solver.addVariable(0.0, 1.0) for i in fits}
            solver.addConstr(sum(float(memory[i, pool]) * copies[i] for i in fits) <= is_open)
            solver.addConstr(sum(float(m.load[i, pool]) * served[i] for i in fits) <= is_open)
            for i in fits:
                solver.addConstr(served[i] <= float(most_share[i, pool]) * copies[i])
                shares[i].append(served[i])
            if before is not None:
                solver.addConstr(is_open <= before)
            before, total = is_open, total + cost * is_open
    for those in shares:
        solver.addConstr(sum(those) == 1.0)
    solver.minimize(total)
    info = solver.getInfo()
    is_found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    return Exact(float(info.objective_function_value) if is_found else float("inf"), float(info.mip_dual_bound))
