"""What a simulated tick sees of demand: rates as Prometheus gives them, some seconds old."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.simulate.demand import Demand
from tasks.simulate.fleet import SimulatedFleet
from tasks.simulate.observe import Observer
from tasks.simulate.scenario import Costs, Scenario
from tasks.simulate.traffic import Gateway
from tests.simulate.small import START, model, scenario

BEFORE_RPS, AFTER_RPS = 1e6, 4e6
"""So many that chance, a thousandth of a second's, does not show."""
RISE_S = 60.0
"""After the start."""


def made(**changes: float) -> Scenario:
    """A jump on a grid of seconds."""
    rates = np.full((7200 + 600, 1), BEFORE_RPS, dtype=np.float32)
    rates[7200 + round(RISE_S) :] = AFTER_RPS
    usual = {"bin_s": 5.0, "history_s": 300.0, "warmup_s": 0.0, "duration_s": 300.0} | changes
    return scenario((model("a"),), Demand(START - 7200, 1.0, rates), costs=Costs(step_s=1.0, spread=0.0), **usual)


def seen(what: Scenario, at_s: float) -> tuple[list[float], list[float]]:
    """Times after the start, and millions of requests a second, of the newest four bins."""
    fleet = SimulatedFleet(what, what.start, np.random.default_rng(0))
    gateway = Gateway(fleet, np.array([[0.1]]), False)
    observer = Observer(fleet, gateway)
    for step in range(round(at_s)):
        gateway.step(1.0)
        fleet.advance(what.start + step + 1)
    demand = observer.observe().demand.tail(4)
    return (demand["time"] - what.start).tolist(), (demand["demand_rps"] / 1e6).tolist()


@pytest.mark.parametrize(
    ("window_s", "lag_s", "rates", "why"),
    [
        (5.0, 0.0, [1, 1, 4, 4], "each bin by itself"),
        (15.0, 0.0, [1, 1, 2, 3], "5 and 10 of 15 s after the jump: 1 + 3 / 3, 1 + 3 x 2 / 3"),
        (15.0, 2.0, [1, 1, 1.6, 2.6], "3 and 8 of them: the newest scrape is 2 s old"),
        (20.0, 5.0, [1, 1, 1, 1.75], "none, then 5 of 20 s: as old as the bin is wide"),
    ],
)
def test_a_jump_is_seen_as_far_as_window_and_scrapes_have_it(
    window_s: float, lag_s: float, rates: list[float], why: str
) -> None:
    """Ten seconds after the jump."""
    times, found = seen(made(window_s=window_s, lag_s=lag_s), RISE_S + 10)
    assert times == [55, 60, 65, 70], "dated by when they are asked"
    assert found == pytest.approx(rates, rel=0.003), why


def test_what_was_not_recorded_in_full_is_not_known() -> None:
    """Recorded from 40 s on: a window of 15 s that ends 2 s before is in it from 57 s on."""
    times, found = seen(made(window_s=15.0, lag_s=2.0, recorded_from=START + 40), RISE_S + 10)
    assert times == [55, 60, 65, 70]
    assert np.isnan(found).tolist() == [True, False, False, False]
