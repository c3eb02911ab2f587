"""Random fleets: no rule is broken, the same input gives the same answer, and a fleet that does as it is told is at
rest."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tasks.decision import Assignment, Placement
from tasks.place import place
from tasks.world import Limits, Observation, ReplicaState
from tests.place.checker import broken
from tests.place.fleets import World, applied, worlds

TICKS = 8
"""To rest: a tick moves things, another one uses the memory that this freed, and each replica given up takes one."""
quick = settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
long = settings(max_examples=5_000, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False)


def keeps_every_rule(world: World) -> None:
    seen, sizings = world
    placed = place(seen, sizings, Limits())
    assert broken(seen, sizings, placed) == []
    assert placed == place(seen, sizings, Limits())


def comes_to_rest(world: World) -> None:
    seen, sizings = world
    before: object = None
    for _ in range(TICKS):
        placed = place(seen, sizings, Limits())
        assert broken(seen, sizings, placed) == []
        if {(a.model, a.replica) for a in placed.assignments} == before and not placed.leaving:
            return
        before, seen = _named_as_applied(seen, placed), applied(seen, placed)
    pytest.fail(f"still moving after {TICKS} ticks")


def _named_as_applied(seen: Observation, placed: Placement) -> object:
    """What the next placement must be for the fleet to be at rest."""
    after = applied(seen, placed)
    readable = {r.name for r in after.fleet.replicas if r.state is not ReplicaState.UNREACHABLE}
    keys = {(c.model, c.replica) for c in after.fleet.copies if c.is_serving and c.replica in readable}
    # what another autoscaler has to add stays wanted under its name to come
    return keys | {(a.model, a.replica) for a in placed.assignments if "+" in a.replica and _is_theirs(seen, a)}


def _is_theirs(seen: Observation, assignment: Assignment) -> bool:
    return not seen.fleet.pool_by_name[assignment.replica.rpartition("+")[0]].is_scaled_by_us


@quick
@given(worlds())
def test_keeps_every_rule(world: World) -> None:
    keeps_every_rule(world)


@quick
@given(worlds())
def test_comes_to_rest(world: World) -> None:
    comes_to_rest(world)


@pytest.mark.nightly
@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(10))
@long
@given(world=worlds())
def test_keeps_every_rule_at_length(part: int, world: World) -> None:
    keeps_every_rule(world)


@pytest.mark.nightly
@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(10))
@long
@given(world=worlds())
def test_comes_to_rest_at_length(part: int, world: World) -> None:
    comes_to_rest(world)
