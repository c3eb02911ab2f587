"""place: which models should sit in which replicas, from where they are today."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.decision import Placement, Sizing
from tasks.place.answer import answer
from tasks.place.consolidate import consolidate, over_maximum, spare
from tasks.place.fill import Changes, fill
from tasks.place.keep import keep, trim
from tasks.place.problem import Problem
from tasks.place.read import read
from tasks.place.relieve import relieve
from tasks.place.table import Table
from tasks.world import Limits, Observation

__all__ = ["place"]


def place(observation: Observation, sizings: Sequence[Sizing], limits: Limits) -> Placement:
    """Keep what is there and good, place what is missing, then give up the replicas that are not needed.

    Incremental and deterministic: the same fleet and sizings give the same placement, and a fleet that is as the
    placement wants it gives no change.
    """
    table, changes = solve(read(observation, sizings, limits))
    return answer(table, observation.fleet, changes)


def solve(problem: Problem) -> tuple[Table, Changes]:
    """The placement as arrays: the table of the copies that should be, and what changes for which reason."""
    table, changes = Table(problem), Changes()
    keep(table)
    trim(table)
    fill(table, changes)
    relieve(table, changes)
    spare(table, changes)
    if not changes.placed and not changes.refused and not over_maximum(table, changes):
        consolidate(table, changes)
    return table, changes
