"""Meta's Rebalancer on one fleet, in an interpreter of its own: ``rebalancer_child.py < fleet.json > answer.json``.

It needs Python 3.12 and the package ``rebalancer``, nothing else. Enumerations are numbers to its binding.
"""

from __future__ import annotations

import json
import sys
from time import perf_counter
from typing import Any

from rebalancer import ProblemSolver

ABSOLUTE = 0
MOVES = ("singleGreedyMoveTypeSpec", "swapMoveTypeSpec")
"""Of those that were tried on fleets of 500 and 5,000 models, what left least undone after 10 s: one copy to the first
replica that does, and two exchanged. One copy to the best of all replicas does not get far in a large fleet."""


def solved(fleet: dict[str, Any]) -> dict[str, Any]:
    """The replica of each copy, by local search, and the seconds that took with the setting up.

    Copies that start in ``nowhere`` are to get a place; memory and compute are limits; a model is at most once in a
    replica; as few copies as that takes are moved.
    """
    start = perf_counter()
    solver = ProblemSolver(service_name="benchmark", service_scope="placement")
    solver.set_object_name("copy").set_container_name("replica")
    solver.set_assignment(fleet["copies_by_replica"])
    solver.add_scope("pool", fleet["pool_by_replica"])
    solver.add_partition("model", fleet["copies_by_model"])
    for what in ("memory", "compute"):
        solver.add_dynamic_object_dimension_by_partition(what, "pool", "model", fleet[f"{what}_by_pool"])
        solver.add_container_dimension(what, fleet[f"{what}_by_replica"])
        solver.add_constraint({"capacitySpec": {"name": what, "scope": "replica", "dimension": what}})
    once = {"name": "once", "scope": "replica", "partitionName": "model"}
    solver.add_constraint({"groupCountSpec": once | {"limit": {"type": ABSOLUTE, "globalLimit": 1}}})
    solver.add_constraint({"toFreeSpec": {"name": "placed", "containers": [fleet["nowhere"]]}})
    moved = {"name": "moved", "scope": "replica", "dimension": "copy_count", "doNotNormalize": True}
    solver.add_goal({"minimizeMovementSpec": moved})
    search = {"solveTime": fleet["limit_s"], "moveTypeList": [{move: {}} for move in MOVES]}
    solver.add_solver({"localSearchSolverSpec": search})
    assignment = solver.solve()["assignment"]
    return {"seconds": perf_counter() - start, "replica_by_copy": assignment}


if __name__ == "__main__":
    json.dump(solved(json.load(sys.stdin)), sys.stdout)
