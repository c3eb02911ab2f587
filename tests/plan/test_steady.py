"""Rail 3: nothing moves under steady load. Ticks of forecast, size, place and plan, each step done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pandas as pd
import pytest

from tasks.decision import Plan, Sizing
from tasks.forecast import forecast
from tasks.place import place
from tasks.plan import plan
from tasks.size import size
from tasks.world import Fleet, Limits, Observation, Replica
from tests.play import World, play
from tests.worlds import NOW, demand, small_fleet

LIMITS = Limits()
TICKS = 15
"""Longer than the stabilisation window of ten ticks, and the few moves that there are to make after it."""


def tick(now: float, fleet: Fleet, history: pd.DataFrame, wanted: pd.DataFrame) -> tuple[tuple[Sizing, ...], Plan]:
    observation = Observation(now, fleet, history, wanted=wanted)
    sizings = size(observation, forecast(observation, LIMITS), LIMITS)
    return sizings, plan(observation, place(observation, sizings, LIMITS), sizings, LIMITS)


def run(fleet: Fleet, rps_by_model: dict[str, float], noise: float) -> tuple[list[str], list[Plan]]:
    """The steps of the ticks in which the fleet comes to rest, and the plans of as many after, 30 s apart."""
    world, choice, plans = World(fleet), Random(1), list[Plan]()
    wanted: list[tuple[float, str, float]] = []
    flat = demand(rps_by_model, bins=120, step_s=30.0)
    for n in range(2 * TICKS):
        now = NOW + LIMITS.interval_s * n
        history = flat.assign(time=flat["time"] + LIMITS.interval_s * n)
        history["demand_rps"] *= [choice.uniform(1 - noise, 1 + noise) for _ in range(len(history))]
        past = pd.DataFrame(wanted, columns=["time", "model", "copies"])
        sizings, found = tick(now, world.fleet, history, past)
        wanted += [(now, sizing.model, float(sizing.needed_copies or 0)) for sizing in sizings]
        plans.append(found)
        play(world, found, choice)
        world.settle()
    return [str(step) for found in plans[:TICKS] for step in found.steps], plans[TICKS:]


def crowded() -> Fleet:
    """A copy of every model in every replica, which is what a fleet is before it comes under management."""
    fleet = small_fleet()
    copies = tuple(
        replace(copy, replica=name, is_routed=True)
        for name in ("small-0", "small-1")
        for copy in fleet.copies_in("small-0")
    )
    return replace(fleet, copies=copies)


def empty() -> Fleet:
    return replace(small_fleet(), copies=())


def larger() -> Fleet:
    """Another replica, of which nothing needs to be in."""
    fleet = small_fleet()
    pool = replace(fleet.pools[0], replicas=3)
    return replace(
        fleet, pools=(pool,), replicas=(*fleet.replicas, Replica("small-2", "small", "small", 500_000_000, 1.0))
    )


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("start", [small_fleet, crowded, empty, larger])
def test_a_fleet_under_steady_load_comes_to_rest_and_stays(start: Callable[[], Fleet], noise: float) -> None:
    done, later = run(start(), {"a": 10.0, "b": 4.0, "c": 1.0}, noise)
    assert done != []  # there was something to do
    assert [str(step) for found in later for step in found.steps] == []
