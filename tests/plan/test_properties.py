"""Random fleets: what holds for every plan, whatever fails and wherever the tick is killed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings

from tasks.decision import Placement, Plan
from tasks.place import place
from tasks.plan import plan
from tasks.plan.check import check
from tasks.world import Fleet
from tests.plan.drawn import Drawn, resized, worlds
from tests.play import FILLED, World, play

ORDINARY = settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
NIGHTLY = settings(max_examples=5_000, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False)


def decide(drawn: Drawn, fleet: Fleet) -> tuple[Placement, Plan]:
    observation, sizings = replace(drawn.observation, fleet=fleet), resized(drawn.sizings, fleet)
    placement = place(observation, sizings, drawn.limits)
    steps = plan(observation, placement, sizings, drawn.limits)
    # a plan that broke a rail was thrown away: that is a fault of the plan too
    assert [str(hold.reason) for hold in steps.holds if hold.reason.code == "unplanned"] == []
    assert check(steps, observation, placement, sizings, drawn.limits) == ()
    return placement, steps


class Watch:
    """What must hold at every instant of one tick, reckoned from the fleet alone."""

    def __init__(self, drawn: Drawn, fleet: Fleet, placement: Placement) -> None:
        self._footprints = {
            (model.name, replica): need.footprint_bytes
            for model in fleet.models
            for replica, gpu_type in ((r.name, r.gpu_type) for r in fleet.replicas)
            if (need := model.need_by_gpu_type.get(gpu_type))
        }
        self._memory = {replica.name: replica.memory_bytes for replica in fleet.replicas}
        serving = _serving(fleet)
        placed = Counter(assignment.model for assignment in placement.assignments)
        self._least = {
            s.model: serving[s.model] if s.demand_rps is None else min(serving[s.model], max(placed[s.model], 1))
            for s in drawn.sizings
            if s.demand_rps != 0
        }

    def __call__(self, world: World) -> None:
        fleet = world.fleet
        used: Counter[str] = Counter()
        for copy in fleet.copies:
            if copy.state in FILLED:
                used[copy.replica] += self._footprints.get((copy.model, copy.replica), 0)
        assert {name: n for name, n in used.items() if n > self._memory[name]} == {}
        serving = _serving(fleet)
        assert {model: (serving[model], least) for model, least in self._least.items() if serving[model] < least} == {}


def _serving(fleet: Fleet) -> Counter[str]:
    return Counter(copy.model for copy in fleet.copies if copy.is_serving)


def keeps_the_rails_and_converges(drawn: Drawn) -> None:
    """Two ticks in which steps fail and the run is killed, then undisturbed ones until nothing is left to do."""
    choice, world = Random(drawn.seed), World(drawn.observation.fleet)
    copies = len(world.copies) + sum(sizing.copies for sizing in drawn.sizings)
    for tick in range(8 + 3 * (copies + len(world.replicas))):
        fleet = world.fleet
        placement, steps = decide(drawn, fleet)
        if not steps.steps and world.is_settled():
            return
        failing, kill_after = (0.3, choice.randrange(30)) if tick < 2 else (0.0, 10_000)
        play(world, steps, choice, Watch(drawn, fleet, placement), failing, kill_after)
        if tick > 0 or choice.random() < 0.5:
            world.settle()
    raise AssertionError(f"{tick + 1} ticks and still: {', '.join(map(str, steps.steps))}")


@ORDINARY
@given(worlds())
def test_every_plan_keeps_the_rails_and_the_fleet_comes_to_rest(drawn: Drawn) -> None:
    keeps_the_rails_and_converges(drawn)


@pytest.mark.nightly
@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(20))
@NIGHTLY
@given(drawn=worlds())
def test_the_same_on_a_hundred_thousand_fleets(part: int, drawn: Drawn) -> None:
    """In parts, each with its own randomness, so that every core works and a fault names its part."""
    keeps_the_rails_and_converges(drawn)
