"""What a user asks of the replay, one parameter each: the answer moves the way that it must."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.replay import edited, scenario_of
from tasks.config import Config
from tasks.simulate.policies.ours import Ours
from tasks.simulate.policies.per_model import PerModel
from tasks.simulate.run import Run, simulate
from tasks.simulate.scenario import Costs, Failure
from tests.simulate.small import flat, model, rising, scenario

SECONDS = 3600.0
RATES = {"busy": 30.0, "calm": 2.0, "gone": 0.0}
"""Requests a second; ``gone`` is asked for in the first tenth only."""
SPARE = {"spare": {"memory": "1GB", "gpu_type": "fast", "min_replicas": 0, "max_replicas": 0}}
"""A GPU type that is known, and of which there is none."""


def config(**busy: Any) -> Config:
    """20 ms: 50 requests a second at full load. Two copies of 400 MB fit into a replica (900 MB with headroom)."""
    need = {"footprint": "400MB", "service_ms": 20, "queue_ms": 200, "idle_s": 300, "load_s": 10}
    return Config.model_validate(
        {
            "pools": {"small": {"memory": "1GB", "max_replicas": 12, "start_s": 30}, **SPARE},
            "models": {"busy": {**need, **busy}, "calm": need, "gone": need},
            "limits": {"stabilisation_s": 120, "budget": 10},
            "metrics": {"step_s": 30, "history_s": 900, "window_s": 60},
        }
    )


def trace() -> pd.DataFrame:
    times = np.arange(0, SECONDS, 30)
    parts = [pd.DataFrame({"timestamp": times, "model": name, "requests": 30 * rps}) for name, rps in RATES.items()]
    made = pd.concat(parts)
    made.loc[(made["model"] == "gone") & (made["timestamp"] < SECONDS / 10), "requests"] = 30.0
    return made


def run(settings: Config, *failures: Failure) -> Run:
    made = scenario_of(settings, trace(), 86_400, failures)
    return simulate(made, Ours(made.limits))


@pytest.fixture(scope="module")
def as_it_is() -> Run:
    return run(config())


def test_the_fleet_as_it_is(as_it_is: Run) -> None:
    """At 200 ms a copy of 20 ms serves 38 a second, of which 30 come: three copies of 0.4 GB in replicas of 0.9 GB."""
    assert (as_it_is.minutes[-1].copies, as_it_is.minutes[-1].replicas) == (3, 2)
    assert (as_it_is.within, as_it_is.failed, as_it_is.cold) == (1.0, 0.0, 0.0)


def test_a_tighter_objective_costs_more(as_it_is: Run) -> None:
    """At 20 ms a copy serves 11 a second, not 38: the busy model takes three copies or more."""
    tight = run(edited(config(), 20, None, None))
    assert tight.minutes[-1].copies >= 5
    assert tight.cost > 1.4 * as_it_is.cost
    assert tight.in_time > run_within(as_it_is, 20)


def run_within(done: Run, queue_ms: float) -> float:
    """The share that the fleet as it is would have served within another objective."""
    made = scenario_of(config(), trace(), 86_400)
    again = simulate(made, Ours(made.limits), np.full((1, len(made.models)), queue_ms / 1000))
    assert again.cost == done.cost
    return again.in_time


def test_scale_to_zero_takes_the_copy_that_nobody_asks_for(as_it_is: Run) -> None:
    """Two copies of 0.4 GB are one replica of 0.9 GB."""
    off = run(edited(config(), None, True, None))
    assert (off.minutes[-1].copies, off.minutes[-1].replicas) == (2, 1)
    assert off.cost < 0.6 * as_it_is.cost
    assert off.failed == 0


def test_no_scale_to_zero_keeps_it(as_it_is: Run) -> None:
    asleep = config().model_dump(mode="json")
    for section in asleep["models"].values():
        section["min_copies"] = 0
    sleeping = Config.model_validate(asleep)
    assert run(sleeping).minutes[-1].copies == 2
    awake = run(edited(sleeping, None, False, None))
    assert (awake.minutes[-1].copies, awake.cost) == (3, as_it_is.cost)


@pytest.mark.parametrize(
    ("cost_per_hour", "is_cheaper"),
    [(1.5, True), (3.0, False)],
)
def test_a_larger_gpu_takes_fewer_replicas_and_costs_what_it_costs(
    as_it_is: Run, cost_per_hour: float, is_cheaper: bool
) -> None:
    """Three copies of 0.4 GB: two replicas of 0.9 GB for 1 an hour each, or one of 1.8 GB."""
    larger = run(edited(config(), None, None, {"small": {"memory": "2GB", "cost_per_hour": cost_per_hour}}))
    assert larger.minutes[-1].replicas == 1
    assert larger.cost == pytest.approx(larger.gpu_hours * cost_per_hour)
    assert larger.gpu_hours == pytest.approx(as_it_is.gpu_hours / 2)
    assert (larger.cost < as_it_is.cost) is is_cheaper


def test_a_faster_gpu_type_takes_fewer_copies() -> None:
    """60 ms at 200 ms: 10.4 a second a copy, 31 to 35 forecast: four copies; three times as fast, one serves 38. The
    other two models have one each."""
    slow = config(service_ms=60, on={"fast": {"footprint": "400MB", "service_ms": 20}})
    fast = edited(slow, None, None, {"small": {"gpu_type": "fast", "cost_per_hour": 1.5}})
    assert [run(one).minutes[-1].copies for one in (slow, fast)] == [6, 3]


def test_replicas_that_die_are_missed_until_there_are_others(as_it_is: Run) -> None:
    """Both die: 10 s until others are started, 30 s start, up to a tick of 30 s, a load of 10 s or two; each 32 a
    second. Times spread by a fifth."""
    struck = run(config(), Failure(600, "small"), Failure(600, "small"))
    assert 32 * 0.8 * 50 <= struck.failed <= 32 * 1.2 * 90
    assert (struck.counters.starts, struck.counters.loads) == (2, 3)
    assert struck.minutes[-1].copies == as_it_is.minutes[-1].copies
    assert struck.within < as_it_is.within


def test_start_up_and_load_times_spread_around_what_is_declared() -> None:
    """Each of 60 models waits for a start of 60 s and a load of 10 s at 2 requests a second: 140 fail of each. With a
    coefficient of variation of 0.2 the wait deviates by sqrt(12^2 + 2^2) = 12.2 s: 24 requests."""
    models = tuple(model(f"m{i}") for i in range(60))
    lost = []
    for spread in (0.0, 0.2):
        made = scenario(models, flat(*[2.0] * 60), warmup_s=0.0, duration_s=600.0, costs=Costs(spread=spread))
        lost.append(simulate(made, PerModel()).score.failed)
    assert set(lost[0].tolist()) == {140.0}
    # the mean of 60 deviates by 24 / sqrt(60) = 3.2, time in steps of 5 s adds 2.5 s at most
    assert lost[1].mean() == pytest.approx(140, abs=3 * 3.2 + 5)
    assert lost[1].std() == pytest.approx(24, rel=0.3)


def test_a_rise_is_felt_for_as_long_as_a_start_lasts() -> None:
    """From 4 to 24 a second, which takes replicas: the longer they start, the more requests wait too long."""
    in_time = []
    for start_s in (10.0, 300.0):
        made = scenario((model("a", 6),), rising(4, 24, 300))
        made = replace(made, pools=tuple(replace(pool, start_s=start_s) for pool in made.pools))
        in_time.append(simulate(made, Ours(made.limits)).in_time)
    # 24 a second on a copy or two of 20: nearly all wait too long until there are three, 290 s more of 1800 s
    assert in_time[0] - in_time[1] > 0.5 * 290 / 1800
