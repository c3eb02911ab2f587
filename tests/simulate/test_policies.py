"""Each policy does what its documentation says, on demand that shows it."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.simulate.policies import own, peers
from tasks.simulate.policies.dynamo import Dynamo
from tasks.simulate.policies.everywhere import Everywhere
from tasks.simulate.policies.modelmesh import ModelMesh
from tasks.simulate.policies.ours import Ours, foresight, last_seen
from tasks.simulate.policies.per_model import PerModel
from tasks.simulate.policies.sagemaker import SageMaker
from tasks.simulate.run import Policy, Run, simulate
from tests.simulate.small import flat, model, rising, scenario

SIX = tuple(model(f"m{i}") for i in range(6))
"""2 GB each: four fit into a replica of 9 GB."""


def run(policy: Policy, *rates: float) -> Run:
    models = tuple(model(f"m{i}") for i in range(len(rates)))
    return simulate(scenario(models, flat(*rates)), policy)


@pytest.mark.parametrize(
    ("policy", "replicas", "why"),
    [
        (Everywhere(0.5), 2, "two groups of at most four models, a pod each"),
        (PerModel(0.5), 6, "a pod a model"),
        (Dynamo(), 6, "a pod a model"),
        (SageMaker(0.5), 2, "6 x 2 GB on replicas of 9 GB"),
        (ModelMesh(1.0), 2, "6 x 2 GB on replicas of 9 GB"),
        (Ours(scenario(SIX, flat(*(1.0,) * 6)).limits), 2, "6 x 2 GB on replicas of 9 GB"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_six_quiet_models(policy: Policy, replicas: int, why: str) -> None:
    done = run(policy, *(1.0,) * 6)
    assert done.minutes[-1].replicas == replicas, why
    assert (done.within, done.failed) == (1.0, 0.0)
    assert done.gpu_hours == pytest.approx(replicas * 0.5)


@pytest.mark.parametrize(
    ("policy", "copies", "why"),
    [
        (Everywhere(0.5), 2, "20 x 50 ms = 1.0 busy, of 0.5 each"),
        (PerModel(0.25), 4, "1.0 busy, of 0.25 each"),
        (Dynamo(), 3, "20 / 9.01 = 2.2"),
        (Dynamo(0.5), 5, "20 / (9.01 x 0.5) = 4.4"),
        (SageMaker(0.5), 5, "20 / (9.01 x 0.5) = 4.4"),
        (ModelMesh(3.0, 400.0), 3, "1200 a minute, at most 400 a copy"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_one_busy_model(policy: Policy, copies: int, why: str) -> None:
    made = scenario((model("a", 1),), flat(20.0), warmup_s=3600.0)
    assert abs(simulate(made, policy).minutes[-1].copies - copies) <= (1 if isinstance(policy, ModelMesh) else 0), why


def test_hpa_reacts_within_its_sync_and_a_start() -> None:
    """16 a second instead of 4, from 300 s on: a sync (15 s), half of the 30 s of its metric, 60 s start, 10 s load."""
    done = simulate(scenario((model("a"),), rising(4, 16, 300)), PerModel(0.5))
    assert done.minutes[4].copies == 1
    assert done.minutes[7].copies >= 2


def test_sagemaker_waits_for_three_minutes_above_its_target() -> None:
    """Two copies are wanted from 300 s on; the alarm needs three whole minutes above the target."""
    done = simulate(scenario((model("a", 1),), rising(3, 7, 300)), SageMaker(0.5))
    copies = [minute.copies for minute in done.minutes]
    assert set(copies[:7]) == {1}
    assert copies[9] == 2


def test_sagemaker_gives_copies_back_after_fifteen_quiet_minutes() -> None:
    """8.6 / 2 a second a copy is 0.95 of the target; from 300 s on it is far below 0.9."""
    done = simulate(scenario((model("a", 1),), rising(8.6, 1, 300), warmup_s=1800.0), SageMaker(0.5))
    copies = [minute.copies for minute in done.minutes]
    assert set(copies[: 5 + 14]) == {2}
    assert copies[5 + 17] == 1


def test_modelmesh_loads_what_is_asked_for_and_drops_what_was_used_longest_ago() -> None:
    """Three models of 4 GB in replicas of 9 GB, one replica: the third asked pushes out the first."""
    demand = flat(5.0, 5.0, 0.0)
    demand.rates_rps[240 + 10 :, 0] = 0  # a is asked until 300 s
    demand.rates_rps[240 + 20 :, 2] = 5  # c from 600 s on
    models = tuple(model(name, 4) for name in "abc")
    made = scenario(models, demand, duration_s=900.0)
    policy = ModelMesh(0.5)  # half of two replicas
    done = simulate(made, policy)
    assert (done.counters.loads, done.counters.unloads) == (1, 1)
    assert 0 < done.cold < 5 * 60
    assert {index for index, _ in policy._fleet.row_by_copy} == {1, 2}


def test_ours_holds_still_under_steady_load() -> None:
    done = run(Ours(scenario(SIX, flat(*(3.0,) * 6)).limits), *(3.0,) * 6)
    assert (done.counters.loads, done.counters.unloads, done.counters.starts) == (0, 0, 0)


def test_foresight_has_the_copies_before_the_demand() -> None:
    made = scenario((model("a", 1),), rising(3, 24, 900))
    foreseen = simulate(made, Ours(made.limits, foresight(made.demand), "foresight"))
    reactive = simulate(made, Ours(made.limits, last_seen(), "reactive"))
    assert foreseen.within > reactive.within
    assert foreseen.minutes[14].copies > foreseen.minutes[10].copies == 1
    assert foreseen.failed == 0


def test_all_meet_the_same_arrivals() -> None:
    made = scenario(SIX, flat(*(3.0,) * 6), duration_s=300.0)
    runs = [simulate(made, policies[0]) for policies in (*peers(), *own(made))]
    assert len({run.requests for run in runs}) == 1
    assert np.isclose(runs[0].requests, 6 * 3 * 300)
