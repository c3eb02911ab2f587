"""place: which models should sit in which replicas, from where they are today."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.decision import Placement, Sizing
from tasks.place.answer import answer
from tasks.place.collector import collector_paused
from tasks.place.engine import solve
from tasks.place.explain import cost, explain
from tasks.place.read import read
from tasks.world import Limits, Observation

__all__ = ["cost", "explain", "place"]


@collector_paused()
def place(observation: Observation, sizings: Sequence[Sizing], limits: Limits) -> Placement:
    """Keep what is there and good, place what is missing, then give up the replicas that are not needed.

    Incremental and deterministic: the same fleet and sizings give the same placement, and a fleet that is as the
    placement wants it gives no change.
    """
    table, changes = solve(read(observation, sizings, limits))
    return answer(table, observation.fleet, changes)
