"""Why each copy is where it is, why another is not, and what the fleet costs against the least that it could."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from tasks.decision import FleetCost, Placement, Sizing
from tasks.place.answer import answer
from tasks.place.bound import prices
from tasks.place.engine import solve
from tasks.place.problem import Problem
from tasks.place.read import read
from tasks.place.seek import refusals
from tasks.world import Limits, Observation


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """A placement laid open."""

    placement: Placement
    copies: pd.DataFrame
    """One row a copy that should be: ``model``, ``replica``, ``code``, ``why``, ``memory_bytes``, ``compute``
    (device-seconds a second)."""
    refusals: pd.DataFrame
    """One row a model and replica that does not get a copy (more) of it: ``model``, ``replica``, ``why``; an empty why:
    it would take one."""
    cost: FleetCost


def explain(
    observation: Observation, sizings: Sequence[Sizing], limits: Limits, models: Sequence[str] | None = None
) -> Explanation:
    """Place, and say why. ``models``: those whose refusals are wanted; None: those with fewer copies than they need.

    Raises:
        KeyError: a name in ``models`` is not a model with a sizing.
    """
    problem = read(observation, sizings, limits)
    table, changes = solve(problem)
    placement = answer(table, observation.fleet, changes)
    index = {name: n for n, name in enumerate(problem.wants.names)}
    spot_index = {name: n for n, name in enumerate(problem.spots.names)}
    rows = []
    for a in placement.assignments:
        model, spot = index[a.model], spot_index[a.replica]
        footprint = problem.wants.footprint_bytes[model, problem.spots.pool[spot]]
        compute = table.compute_at(model, spot)
        rows.append((a.model, a.replica, a.reason.code, a.reason.text, int(footprint), compute))
    asked = [index[name] for name in models] if models is not None else sorted(changes.refused)
    refused = [
        (problem.wants.names[model], problem.spots.names[spot], why)
        for model in asked
        for spot, why in refusals(table, model)
    ]
    return Explanation(
        placement,
        pd.DataFrame(rows, columns=["model", "replica", "code", "why", "memory_bytes", "compute"]),
        pd.DataFrame(refused, columns=["model", "replica", "why"]),
        _cost(problem, placement),
    )


def cost(observation: Observation, placement: Placement, sizings: Sequence[Sizing], limits: Limits) -> FleetCost:
    """Of a placement of this fleet, against the least that any could cost."""
    return _cost(read(observation, sizings, limits), placement)


def _cost(problem: Problem, placement: Placement) -> FleetCost:
    per_hour = sum(pool.cost_per_hour * placement.replicas_by_pool[pool.name] for pool in problem.pools)
    return FleetCost(per_hour, prices(problem).bound_per_hour)
