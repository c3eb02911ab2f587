"""Our repair of a fleet beside the one of Meta's Rebalancer (OSDI'24), on the same instance in the same run.

Rebalancer moves copies; it makes none and opens no replica. So it gets as many copies as the models are sized for,
those without a place, too, and beside the replicas that there are those that ours opened. Its local search runs for
``LIMIT_S`` at most, in an interpreter of its own, a Python 3.12 that ``REBALANCER_PYTHON`` names:
``uv venv --python 3.12 DIR && uv pip install --python DIR/bin/python rebalancer``, then ``DIR/bin/python``.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tasks.place.engine import solve
from tasks.place.keep import keep
from tasks.place.problem import Floats, Problem
from tasks.place.table import Table

PYTHON = os.environ.get("REBALANCER_PYTHON", "")
LIMIT_S = 10
NOWHERE = "nowhere"
NO_ROOM = 1e6
"""GB, or device-seconds a second: what may not be in a pool, and the room of what has no place."""
CLOSE = 1e-6
"""Share of a target by which a sum may be over it: Rebalancer's own tolerance."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of a fleet that has to be repaired."""

    seconds: float
    loads: int
    missing: int
    """Copies that models are sized for and do not have."""
    over: int
    """Replicas over their target of compute or memory."""

    def __str__(self) -> str:
        return (
            f"{self.seconds * 1e3:.0f} ms, {self.loads} loads, {self.missing} copies missing, {self.over} replicas over"
        )


def side_by_side(problem: Problem) -> str:
    """What ours and Rebalancer's come to."""
    start = perf_counter()
    table, _ = solve(problem)
    ours = _repair(problem, table, perf_counter() - start)
    if not PYTHON:
        return f"ours {ours}; Rebalancer not installed: {Path(__file__).name} tells how"
    return f"ours {ours}; Rebalancer {_rebalanced(problem, np.flatnonzero(table.is_on).tolist())}"


def _repair(problem: Problem, table: Table, seconds: float) -> Repair:
    spots = problem.spots
    placed = {(model, replica) for model, held in enumerate(table.replicas_of) for replica in held}
    missing = sum(max(0, count - table.count(m)) for m, count in enumerate(problem.wants.copies.tolist()))
    over = (table.free_compute < -CLOSE * spots.room_compute) | (table.free_bytes < -CLOSE * spots.room_bytes)
    return Repair(seconds, len(placed - table.present), missing, int((over & table.is_on).sum()))


def _rebalanced(problem: Problem, on: list[int]) -> Repair:
    here = str(Path(__file__).with_name("rebalancer_child.py"))
    fleet = _fleet(problem, on)
    done = subprocess.run(
        [PYTHON, here], input=json.dumps(fleet), capture_output=True, text=True, timeout=10 * LIMIT_S, check=True
    )
    answer = json.loads(done.stdout)
    table = Table(problem)
    index = {name: n for n, name in enumerate(problem.wants.names)}
    spot_index = {name: n for n, name in enumerate(problem.spots.names)}
    for replica in on:
        table.switch_on(replica)
    for copy, replica in answer["replica_by_copy"].items():
        if replica != NOWHERE:
            table.add(index[copy.partition("#")[0]], spot_index[replica])
    return _repair(problem, table, answer["seconds"])


def _fleet(problem: Problem, on: list[int]) -> dict[str, Any]:
    """As the child reads it: copies, where they are, what they take in each pool and what each replica has of it (GB,
    device-seconds a second)."""
    wants, spots, table = problem.wants, problem.spots, Table(problem)
    keep(table)
    copies_by_replica: dict[str, list[str]] = {name: [] for name in (*(spots.names[r] for r in on), NOWHERE)}
    copies_by_model: dict[str, list[str]] = {}
    for model, name in enumerate(wants.names):
        places = [spots.names[replica] for replica in table.replicas_of[model]]
        places += [NOWHERE] * (int(wants.copies[model]) - len(places))
        copies_by_model[name] = [f"{name}#{n}" for n in range(len(places))]
        for copy, place in zip(copies_by_model[name], places, strict=True):
            copies_by_replica[place].append(copy)
    compute = np.array([table.compute_by_pool(model) for model in range(len(wants.names))])
    memory = np.where(wants.is_allowed, wants.footprint_bytes / 1e9, NO_ROOM)
    pool_by_replica = {spots.names[replica]: problem.pools[spots.pool[replica]].name for replica in on}
    return {
        "nowhere": NOWHERE,
        "limit_s": LIMIT_S,
        "copies_by_replica": copies_by_replica,
        "copies_by_model": copies_by_model,
        "pool_by_replica": pool_by_replica | {NOWHERE: NOWHERE},
        "memory_by_pool": _by_pool(problem, on, memory),
        "compute_by_pool": _by_pool(problem, on, compute),
        "memory_by_replica": {spots.names[r]: spots.room_bytes[r] / 1e9 for r in on} | {NOWHERE: NO_ROOM},
        "compute_by_replica": {spots.names[r]: float(spots.room_compute[r]) for r in on} | {NOWHERE: NO_ROOM},
    }


def _by_pool(problem: Problem, on: list[int], takes: Floats) -> dict[str, dict[str, float]]:
    """(M, P) as numbers by pool, of those that have a replica, and model."""
    return {
        problem.pools[pool].name: dict(zip(problem.wants.names, takes[:, pool].tolist(), strict=True))
        for pool in np.unique(problem.spots.pool[on]).tolist()
    }
