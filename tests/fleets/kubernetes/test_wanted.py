"""What an HPA is told: the count that a pool should have, above and below what it has."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tasks.decision import Placement, Plan, StepKind
from tasks.forecast import forecast
from tasks.place import place
from tasks.plan import plan
from tasks.size import size
from tasks.world import Copy, CopyState, Fleet, Limits, Model, Need, Objective, Observation, Pool, Replica
from tests.worlds import NOW, demand

LIMITS = Limits(stabilisation_s=0.0, budget=8)
HALF_FULL = 400_000_000
"""Two of these fill a replica of 1 GB, of which 100 MB are headroom."""


def told(replicas: int, copies: Mapping[str, str], wanted_by_model: Mapping[str, int]) -> tuple[Placement, Plan]:
    """A tick on an HPA's pool of 1 to 4 replicas. ``copies``: models by replica; each model is wanted so often."""
    need = {"small": Need(HALF_FULL, 20.0)}
    models = tuple(Model(m, need, Objective(100.0), min_copies=n) for m, n in wanted_by_model.items())
    pool = Pool("small", "small", 10**9, 8.0, 1, 4, replicas, is_scaled_by_us=False)
    fleet = Fleet(
        models,
        (pool,),
        tuple(Replica(f"small-{i}", "small", "small", 10**9, 8.0) for i in range(replicas)),
        tuple(Copy(m, name, CopyState.READY, is_routed=True) for name, held in copies.items() for m in held),
    )
    observation = Observation(NOW, fleet, demand(dict.fromkeys(wanted_by_model, 1.0)))
    forecasts = forecast(observation, LIMITS)
    sizings = size(observation, forecasts, LIMITS)
    placement = place(observation, sizings, LIMITS)
    return placement, plan(observation, placement, sizings, LIMITS)


@pytest.mark.parametrize(
    ("replicas", "copies", "wanted_by_model", "count"),
    [
        pytest.param(1, {"small-0": "a"}, {"a": 1}, 1, id="as many as there are"),
        pytest.param(1, {"small-0": "a"}, {"a": 3}, 3, id="one copy a replica, three wanted"),
        pytest.param(1, {"small-0": "ab"}, {"a": 1, "b": 1, "c": 1}, 2, id="a third model that does not fit"),
        pytest.param(1, {"small-0": "a"}, {"a": 8}, 4, id="no more than the pool may have"),
        pytest.param(3, {"small-0": "ab"}, {"a": 1, "b": 1}, 1, id="two of three are empty"),
        pytest.param(2, {"small-0": "a", "small-1": "a"}, {"a": 1}, 1, id="a copy too many"),
    ],
)
def test_the_count_that_is_wanted_is_published_and_never_written(
    replicas: int, copies: Mapping[str, str], wanted_by_model: Mapping[str, int], count: int
) -> None:
    placement, steps = told(replicas, copies, wanted_by_model)
    assert placement.replicas_by_pool == {"small": count}
    assert placement.leaving == ()
    assert not {step.kind for step in steps.steps} & {StepKind.SCALE_UP, StepKind.SCALE_DOWN}


def test_the_reason_is_held_where_more_is_wanted() -> None:
    _, steps = told(1, {"small-0": "a"}, {"a": 3})
    assert "not_scaled_by_us: 3 replicas wanted, 1 there: a fit in none of the 1 replicas there are" in {
        str(hold.reason) for hold in steps.holds
    }
