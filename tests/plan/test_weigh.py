"""Shares of requests in the plan: when they change, what they wait for, and what the checker refuses.

A request takes 50 ms of a replica's one device; a copy's capacity is 10 req/s. 12 req/s over two copies of equal weight
are 6 a copy, 0.3 of its replica; with weights 0.5 and 1.5 they are 3 and 9, 0.15 and 0.45. Demand is 4 req/s where none
is given.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from tasks.decision import Plan
from tasks.plan import plan
from tasks.plan.check import check
from tasks.world import Limits, Observation
from tests.plan import fleet, placement, sizings, step
from tests.plan.cases import Case
from tests.worlds import NOW


@dataclass(frozen=True)
class Planned:
    copies: tuple[str, ...]
    wanted: tuple[str, ...]
    steps: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    demand: dict[str, float | None] = field(default_factory=dict)
    budget: int = 4
    splits_by_weight: bool = True


TWO = ("a small-0 serving", "a small-1 serving")
PLANNED = {
    "both shares change in one step": Planned(
        TWO, ("a small-0 0.5", "a small-1 1.5"), ("0 weigh a small-0 0.5 small-1 1.5",)
    ),
    "what is so is left alone": Planned(
        ("a small-0 serving 0.5", "a small-1 serving 1.5"), ("a small-0 0.501", "a small-1 1.499")
    ),
    "only the proportion matters": Planned(
        ("a small-0 serving 0.25", "a small-1 serving 0.75"), ("a small-0 0.5", "a small-1 1.5")
    ),
    "equal again": Planned(
        ("a small-0 serving 0.5", "a small-1 serving 1.5"),
        ("a small-0", "a small-1"),
        ("0 weigh a small-0 1 small-1 1",),
    ),
    "a copy that comes is routed first": Planned(
        TWO[:1],
        ("a small-0 0.5", "a small-1 1.5"),
        ("0 load a small-1", "1 route a small-1 < 0", "2 weigh a small-0 0.5 small-1 1.5 < 1"),
    ),
    "a copy that cannot come yet is waited for": Planned(
        TWO,
        ("a small-0 0.4", "a small-1 1.0", "a small-2 1.6"),
        holds=("model:a budget", "model:a weights_wait"),
        budget=0,
    ),
    "a copy that goes keeps its weight until then": Planned(
        (*TWO, "a small-2 serving"),
        ("a small-0 0.5", "a small-1 1.5"),
        (
            "0 unroute a small-2",
            "1 drain a small-2 < 0",
            "2 unload a small-2 < 1",
            "3 weigh a small-0 0.5 small-1 1.5",
        ),
    ),
    "unknown demand: held": Planned(TWO, ("a small-0 0.5", "a small-1 1.5"), demand={"a": None}),
    "a gateway that splits evenly": Planned(TWO, ("a small-0 0.5", "a small-1 1.5"), splits_by_weight=False),
    # 26 req/s of b are 0.65 in each; a's part in small-1 would grow from 0.3 to 0.45: 1.1 > 1
    "a replica that others fill": Planned(
        (*TWO, "b small-0 serving", "b small-1 serving"),
        ("a small-0 0.5", "a small-1 1.5", "b small-0", "b small-1"),
        holds=("model:a weights_wait",),
        demand={"a": 12.0, "b": 26.0},
    ),
    # small-1 has 0.3 of a, 0.4 of b, 0.25 of c, and a's part would grow by 0.15: 1.1 > 1. b's part shrinks by 0.1, so
    # that 1.0 would do, but b's step may fail: one tick after the other
    "a replica that others leave first": Planned(
        (*TWO, "b small-1 serving", "b small-2 serving", "c small-1 serving"),
        ("a small-0 0.5", "a small-1 1.5", "b small-1 0.75", "b small-2 1.25", "c small-1"),
        ("0 weigh b small-1 0.75 small-2 1.25",),
        holds=("model:a weights_wait",),
        demand={"a": 12.0, "b": 16.0, "c": 5.0},
    ),
    # 24 req/s: 6 and 18 now, 12 each then; both are over 10, but the worst is so by less
    "what is too much for all copies may be split better": Planned(
        ("a small-0 serving 0.5", "a small-1 serving 1.5"),
        ("a small-0", "a small-1"),
        ("0 weigh a small-0 1 small-1 1",),
        demand={"a": 24.0},
    ),
    "a copy's capacity": Planned(
        TWO, ("a small-0 0.5", "a small-1 1.5"), holds=("model:a weights_wait",), demand={"a": 18.0}
    ),
}


@pytest.mark.parametrize("case", PLANNED.values(), ids=PLANNED)
def test_shares_are_planned(case: Planned) -> None:
    observation = Observation(NOW, replace(fleet(*case.copies), splits_by_weight=case.splits_by_weight))
    wanted, known, limits = placement(*case.wanted), sizings(**case.demand), Limits(budget=case.budget)
    found = plan(observation, wanted, known, limits)
    assert check(found, observation, wanted, known, limits) == ()
    assert [(s.kind, s.model, s.replica, s.weights, s.needs) for s in found.steps] == [
        (s.kind, s.model, s.replica, s.weights, s.needs) for s in map(step, case.steps)
    ]
    named = (hold for hold in found.holds if hold.subject.startswith("model:") and hold.reason.code != "demand_unknown")
    assert tuple(f"{hold.subject} {hold.reason.code}" for hold in named) == case.holds
    assert found.churn == sum("load" in text for text in case.steps)


WEIGH = "1 weigh a small-0 0.5 small-1 1.5"
SAID = "step 1 (weigh a: small-0 0.5, small-1 1.5)"
BOTH = ("a small-0", "a small-1")
REFUSED = {
    "unknown demand": (
        Case((WEIGH,), TWO, BOTH, demand={"a": None}),
        (f"{SAID}: the demand of a is unknown",),
    ),
    "no weight": (
        Case(("1 weigh a small-0 0 small-1 1.5",), TWO, BOTH),
        ("step 1 (weigh a: small-0 0, small-1 1.5): 0.0 is no weight",),
    ),
    "a copy that does not serve": (
        Case((WEIGH,), TWO[:1], BOTH),
        (f"{SAID}: no copy serves in small-1, and it does not need a route there",),
    ),
    "a route that it does not wait for": (
        Case((WEIGH, "2 route a small-1"), (*TWO[:1], "a small-1"), BOTH),
        (f"{SAID}: no copy serves in small-1, and it does not need a route there",),
    ),
    "a copy that is to go": (
        Case((WEIGH,), TWO, BOTH[:1]),
        (f"{SAID}: the placement has none in small-1",),
    ),
    "the same model twice": (
        Case((WEIGH, "2 weigh a small-0 1 small-1 1"), TWO, BOTH),
        ("steps 1, 2: weigh the same, weigh a: small-0 0.5, small-1 1.5",),
    ),
    "a copy beyond its capacity": (
        Case((WEIGH,), TWO, BOTH, demand={"a": 18.0}),
        (f"{SAID}: 13.5 req/s > 10 of a copy in small-1, which gets 9",),
    ),
    # 24 req/s: 12 each now, then 6 and 18
    "an overloaded copy, more so": (
        Case((WEIGH,), TWO, BOTH, demand={"a": 24.0}),
        (f"{SAID}: 18 req/s > 10 of a copy in small-1, which gets 12",),
    ),
    # a: 12 req/s, 0.3 a copy, then 0.15 and 0.45; b: 26 req/s, 0.65 a copy: 0.45 + 0.65
    "a replica beyond its compute": (
        Case((WEIGH,), (*TWO, "b small-0 serving", "b small-1 serving"), BOTH, demand={"a": 12.0, "b": 26.0}),
        ("steps 1: small-1 could be asked for 1.100 > 1, now 0.950",),
    ),
    # 0.25 of c more: it is overloaded now, by 0.2, and would be by 0.35
    "a replica that is overloaded, more so": (
        Case(
            (WEIGH,),
            (*TWO, "b small-0 serving", "b small-1 serving", "c small-1 serving"),
            BOTH,
            demand={"a": 12.0, "b": 26.0, "c": 5.0},
        ),
        ("steps 1: small-1 could be asked for 1.350 > 1, now 1.200",),
    ),
    # each is fine once the other is done, and either may be done alone: 0.3 + 0.15 + 0.65
    "a replica beyond its compute on the way": (
        Case(
            (WEIGH, "2 weigh c small-0 1.5 small-1 0.5"),
            (*TWO, *(f"{m} small-{n} serving" for m in "bc" for n in (0, 1))),
            (*BOTH, "c small-0", "c small-1"),
            demand={"a": 12.0, "b": 14.0, "c": 12.0},
        ),
        (
            "steps 1, 2: small-0 could be asked for 1.100 > 1, now 0.950",
            "steps 1, 2: small-1 could be asked for 1.100 > 1, now 0.950",
        ),
    ),
}


@pytest.mark.parametrize(("case", "why"), REFUSED.values(), ids=REFUSED)
def test_weights_that_would_overload_are_refused(case: Case, why: tuple[str, ...]) -> None:
    assert case.broken() == why


def test_a_replica_that_is_overloaded_may_be_relieved() -> None:
    """0.45 of a, 0.65 of b and 0.25 of c in small-1: 1.35; with equal weights 1.2."""
    there = ("b small-0 serving", "b small-1 serving", "c small-1 serving")
    copies = ("a small-0 serving 0.5", "a small-1 serving 1.5", *there)
    relief = Case(("1 weigh a small-0 1 small-1 1",), copies, BOTH, demand={"a": 12.0, "b": 26.0, "c": 5.0})
    assert relief.broken() == ()


def test_a_gateway_that_splits_evenly_gets_no_weights() -> None:
    case = Case((WEIGH,), TWO, BOTH)
    observation = Observation(NOW, replace(case.fleet, splits_by_weight=False))
    broken = check(Plan((step(WEIGH),)), observation, case.placement, sizings(), Limits())
    assert broken == (f"{SAID}: the gateway splits requests evenly",)
