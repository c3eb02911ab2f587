"""The run: what is scored, what fails, what a death costs."""

from __future__ import annotations

import pandas as pd
import pytest

from tasks.simulate.bound import lower_bound
from tasks.simulate.demand import read_demand, scaled, with_bursts
from tasks.simulate.fleet import Counters
from tasks.simulate.picture import picture
from tasks.simulate.policies.ours import Ours
from tasks.simulate.policies.per_model import PerModel
from tasks.simulate.report import best, markdown, rows, text, tuned
from tasks.simulate.run import Outcome, Policy, simulate
from tasks.simulate.scenario import Failure
from tests.simulate.small import START, flat, model, scenario


def test_requests_without_a_copy_fail_or_are_cold() -> None:
    made = scenario((model("a"),), flat(2.0), warmup_s=0.0, duration_s=600.0)
    done = simulate(made, PerModel())
    # its first pod starts at the start of scoring: 60 s start and 10 s load at 2 a second
    assert (done.failed, done.cold) == (140.0, 0.0)
    waiting = scenario((model("a", min_copies=0),), flat(2.0), warmup_s=0.0, duration_s=600.0)
    assert (simulate(waiting, PerModel()).cold, simulate(waiting, PerModel()).failed) == (140.0, 0.0)


def test_a_minute_counts_only_when_its_model_meets_its_objective_in_it() -> None:
    """70 s without a copy: the first two minutes are lost in full, 240 of 1200 requests."""
    done = simulate(scenario((model("a"),), flat(2.0), warmup_s=0.0, duration_s=600.0), PerModel())
    assert done.within == pytest.approx(1 - 240 / 1200)
    # of the other 1060, 1 - 0.9 exp(2 x 50 ms) = 0.54 % wait longer than 50 ms, exp(-(20 - 2) x 50 ms x 2) of these
    # longer than 100 ms: 0.09 %
    assert done.in_time == pytest.approx(1 - (140 + 1060 * 0.0009) / 1200, abs=0.0001)


def test_a_replica_that_dies_is_made_up_for() -> None:
    models = (model("a"), model("b"))
    made = scenario(models, flat(3.0, 3.0), failures=(Failure(300.0, "gpu"),))
    done = simulate(made, Ours(made.limits))
    # 10 s to notice, 60 s start, a tick, and two loads of 10 s one after the other
    assert 6 * 70 <= done.failed <= 6 * 130
    assert done.counters.loads == 2
    assert done.minutes[-1].copies == 2


def test_a_trace_becomes_rates_and_its_gaps_straight_lines() -> None:
    trace = pd.DataFrame(
        {"timestamp": [0, 60, 180, 0, 60, 120, 180], "model": list("aaabbbb"), "requests": [60, 60, 120, 6, 6, 6, 6]}
    )
    names, demand = read_demand(trace, 60.0, START)
    assert names == ("a", "b")
    assert demand.rates_rps[:, 0].tolist() == [1.0, 1.0, 1.5, 2.0]
    assert demand.at(START + 30)[0] == 1.0
    assert demand.at(START + 180)[0] == pytest.approx(1.75)
    assert demand.peak(START + 90, START + 210).tolist() == [2.0, pytest.approx(0.1)]


def test_bursts_keep_the_mean_and_scaling_sets_it() -> None:
    demand = flat(4.0, 0.0, seconds=3_000_000)
    varied = with_bursts(demand, 0.2, 60.0, seed=1)
    assert varied.rates_rps[:, 0].mean() == pytest.approx(4.0, rel=0.01)
    assert varied.rates_rps[:, 0].std() == pytest.approx(0.8, rel=0.05)
    assert scaled(varied, [10.0, 10.0], demand.first, demand.end).rates_rps.mean(axis=0).tolist() == [
        pytest.approx(10.0, rel=0.001),
        0.0,
    ]


def test_table_and_picture_name_every_policy() -> None:
    made = scenario((model("a"),), flat(2.0), duration_s=600.0)
    runs = [simulate(made, PerModel(0.5, "dear")), simulate(made, PerModel(0.5, "cheap"))]
    bound = lower_bound(made)
    table = rows(runs, bound, 1 / 6)
    assert [row["policy"] for row in table] == ["lower bound", "dear", "cheap"]
    assert table[1]["cost / bound"] == "1.00"
    assert all(name in picture("title", runs, bound) for name in ("dear", "cheap", "title"))
    assert text(table).count("\n") == 3
    assert markdown(table).startswith("| policy | GPU-hours |")
    assert best(runs).policy == "dear"


@pytest.mark.parametrize(
    ("outcomes", "chosen", "tried", "why"),
    [
        ([(5, 0.99), (6, 0.9995), (8, 1.0), (9, 1.0)], 1, 3, "8 is dearer than 6, which is enough"),
        ([(5, 0.99), (7, 0.9991), (6, 0.9992), (8, 1.0)], 2, 4, "a more careful one may cost less"),
        ([(5, 0.95), (6, 0.98), (8, 0.97)], 1, 3, "none keeps enough: the one that keeps most"),
    ],
)
def test_settings_are_tried_until_they_only_cost_more(
    outcomes: list[tuple[float, float]], chosen: int, tried: int, why: str
) -> None:
    policies = [PerModel(0.5, str(i)) for i in range(len(outcomes))]
    seen: list[str] = []

    def run(policy: Policy) -> Outcome:
        seen.append(policy.name)
        cost, within = outcomes[int(policy.name)]
        return Outcome(policy.name, cost, cost, 1.0, within, within, 0.0, 0.0, Counters(), ())

    assert (tuned(policies, run).policy, len(seen)) == (str(chosen), tried), why
