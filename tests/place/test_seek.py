"""Where may a copy go? One table a rule: each replica's verdict and its arithmetic."""

from __future__ import annotations

import pytest

from tasks.decision import Sizing
from tasks.place import cost, explain
from tasks.place.read import read, retry_at
from tasks.place.seek import refusals, spread
from tasks.place.table import Table
from tasks.world import Limits, LoadFailure, Observation
from tests.plan import POOL, WHY, fleet
from tests.worlds import NOW


def table(*copies: str, rps: float = 4.0, failures: tuple[LoadFailure, ...] = (), **states: str) -> Table:
    """Replicas of 500 MB and 1 device-second a second, 10 % of both stay free; what is there is to stay. Each copy
    takes 4 req/s x 50 ms = 0.2 of the compute."""
    sizings = [Sizing(m, 1, rps, {"small": 20.0}, WHY) for m in "abcde"]
    seen = Observation(NOW, fleet(*copies, pool=POOL, **states), load_failures=failures)
    found = Table(read(seen, sizings, Limits()))
    there = found.problem.there
    found.keep(there.model, there.replica, there.weight)
    return found


def verdict(found: Table, model: str, replica: str = "small-0") -> str:
    spots = found.problem.spots.names
    return {spots[spot]: why for spot, why in refusals(found, found.problem.wants.names.index(model))}[replica]


REFUSALS = [
    ("a good place", (), 4.0, ""),
    ("one copy of a model in a replica", ("a small-0 serving",), 4.0, "it holds a copy"),
    ("400 + 100 MB > 450 MB", ("c small-0 serving",), 4.0, "100 MB > 450 - 400 MB"),
    ("0.5 + 0.5 > 0.9", ("b small-0 serving",), 10.0, "compute 0.50 > 0.90 - 0.50"),
]


@pytest.mark.parametrize(("copies", "rps", "why"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_each_refusal_has_its_arithmetic(copies: tuple[str, ...], rps: float, why: str) -> None:
    assert verdict(table(*copies, rps=rps), "a") == why


def test_a_failed_load_waits() -> None:
    """After 10 s of 30 s x 2."""
    failure = LoadFailure("a", "small-0", 1, NOW - 10)
    assert verdict(table(failures=(failure,)), "a") == "its load failed, next try in 50 s"


@pytest.mark.parametrize(("count", "wait_s"), [(1, 60), (2, 120), (4, 480), (5, 600), (10_000, 600)])
def test_the_wait_doubles_up_to_ten_minutes(count: int, wait_s: float) -> None:
    """30 s between ticks: 30 x 2, 30 x 4, 30 x 16, and 30 x 32 = 960 > 600."""
    assert retry_at(LoadFailure("a", "small-0", count, NOW), 30.0) == NOW + wait_s


@pytest.mark.parametrize(("rps", "most", "count"), [(16.0, 3, 1), (30.0, 3, 2), (50.0, 3, 3), (50.0, 2, 0)])
def test_the_fewest_small_copies_that_fit(rps: float, most: int, count: int) -> None:
    """A replica takes 0.9 / 50 ms = 18 req/s: 16 in one, 30 as 2 x 15, 50 as 3 x 16.7."""
    assert len(spread(table(rps=rps), 0, most)) == count


def test_changes_can_be_taken_back() -> None:
    found = table("a small-0 serving", "b small-1 serving")
    before = found.free_bytes.copy(), found.free_compute.copy(), found.going_bytes.copy()
    mark = found.mark()
    found.remove(0, 0)
    found.add(0, 1)
    found.add(2, 2)
    found.undo(mark)
    for was, now in zip(before, (found.free_bytes, found.free_compute, found.going_bytes), strict=True):
        assert now == pytest.approx(was)


def test_the_explanation_names_cost_bound_and_each_refusal() -> None:
    """Two to three replicas at 1 an hour each; one model of 400 MB fits beside nothing, so all three are needed."""
    sizings = [Sizing(m, 1, 4.0, {"small": 20.0}, WHY) for m in "abcde"]
    seen = Observation(NOW, fleet("c small-0 serving", pool=POOL))
    told = explain(seen, sizings, Limits(), models=["c"])
    assert told.cost.per_hour == 3.0
    assert told.cost == cost(seen, told.placement, sizings, Limits())
    assert told.cost.bound_per_hour <= told.cost.per_hour
    assert told.refusals.set_index("replica").why["small-0"] == "it holds a copy"
    assert set(told.copies.model) == set("abcde")
