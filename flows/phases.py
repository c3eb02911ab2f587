"""How the flow runs the arrows of a tick: each a Prefect task of its own, and timed without Prefect's share."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

P = ParamSpec("P")
R = TypeVar("R")

DECISIONS = ("forecast", "size", "place", "plan")


class Phases:
    """Call it with a function and its arguments: ``run(observe, config, live, now)``."""

    def __init__(self) -> None:
        self._seconds_by_phase: dict[str, float] = {}

    def __call__(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result, from a task that carries its name. Never cached: the same arguments a tick later meet
        another fleet."""

        def timed() -> R:
            start = perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                self._seconds_by_phase[work.__name__] = perf_counter() - start

        return task(name=work.__name__, cache_policy=NO_CACHE)(timed)()

    @property
    def seconds_by_phase(self) -> dict[str, float]:
        """Seconds of each phase, and ``decide``: what the pure ones took together."""
        decide = sum(self._seconds_by_phase.get(phase, 0.0) for phase in DECISIONS)
        return {**self._seconds_by_phase, "decide": decide}
