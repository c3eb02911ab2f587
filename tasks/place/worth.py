"""What a copy costs in each pool: hot models on a GPU type where a request costs twice as much take replicas more."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from tasks.place.bound import prices, rooms
from tasks.place.problem import Floats, Problem

ROUNDS, EVALUATIONS = 40, 10_000
"""Of the price search, see there. Only which pool is cheaper matters here: in 150 ticks of drift 50 and 500 models cost
as much, and took as many loads, with 25, 50, 100 and 300 rounds."""


class Worth:
    """The bound's prices of a byte and of a device-second a second, by pool. They are sought when first asked for: a
    tick that moves nothing pays nothing. Whatever is there now, they are the same, so that no move changes them."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    @cached_property
    def _unit(self) -> tuple[Floats, Floats]:
        """(P,) and (P,)"""
        room_bytes, room_compute = rooms(self._problem)
        found = prices(self._problem, evaluations=EVALUATIONS, least=ROUNDS)
        return found.memory / np.maximum(room_bytes, 1.0), found.compute / np.maximum(room_compute, 1e-9)

    def cost_by_pool(self, model: int | list[int], compute: Floats) -> Floats:
        """(P,) cost an hour of the room that one copy takes; infinite where it may not be. ``compute``: (P,)
        device-seconds a second that it takes. Of K models: (K, P)."""
        wants, (byte, second) = self._problem.wants, self._unit
        is_possible = wants.is_allowed[model] & np.isfinite(wants.footprint_bytes[model])
        footprint = np.where(is_possible, wants.footprint_bytes[model], 0.0)
        return np.where(is_possible, footprint * byte + compute * second, np.inf)
