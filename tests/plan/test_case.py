"""The worst instant of a plan, against every set of steps that can be done."""

from __future__ import annotations

from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.plan.case import most_unpaid

Weights = dict[int, int]
Before = dict[int, frozenset[int]]


@pytest.mark.parametrize(
    ("gains", "costs", "before", "worst"),
    [
        ({}, {}, {}, 0),
        ({1: 3}, {}, {1: ()}, 3),  # a load of 3
        ({1: 3}, {2: 3}, {1: ()}, 3),  # an unload of 3, which may come later
        ({1: 3}, {2: 3}, {1: (2,)}, 0),  # which comes before
        ({1: 3}, {2: 5}, {1: (2,)}, 0),  # nothing loaded is worse than 3 - 5
        ({1: 3, 3: 4}, {2: 5}, {1: (), 3: (2,)}, 3),  # 3; with the other 3 + 4 - 5 = 2
        ({1: 3, 3: 4}, {2: 5}, {1: (2,), 3: (2,)}, 2),  # both count on the same room: 3 + 4 - 5
        ({1: 1, 2: 1}, {3: 1, 4: 1}, {1: (3,), 2: (3, 4)}, 0),  # each after a route of its own: 1 - 1, 2 - 2
        ({1: 1, 2: 1}, {3: 1, 4: 1}, {1: (3,), 2: (3,)}, 1),  # both after the same: 2 - 1
    ],
)
def test_worked_examples(gains: Weights, costs: Weights, before: dict[int, tuple[int, ...]], worst: int) -> None:
    assert most_unpaid(gains, costs, {step: frozenset(needs) for step, needs in before.items()}) == worst


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Weights, Weights, Before]:
    """Up to nine steps, each of which waits for some of those before it; a third gains, a third costs."""
    before: Before = {}
    for step in range(draw(st.integers(1, 9))):
        needs = draw(st.sets(st.sampled_from(sorted(before)))) if before else set()
        before[step] = frozenset(needs).union(*(before[need] for need in needs))
    kinds = [draw(st.sampled_from(["gain", "cost", ""])) for _ in before]
    weights = [draw(st.integers(0, 5)) for _ in before]
    gains, costs = ({s: weights[s] for s in before if kinds[s] == kind} for kind in ("gain", "cost"))
    return gains, costs, before


@given(graphs())
def test_the_worst_of_all_sets_of_steps_that_can_be_done(graph: tuple[Weights, Weights, Before]) -> None:
    gains, costs, before = graph
    sets = chain.from_iterable(combinations(before, n) for n in range(len(before) + 1))
    possible = [set(done) for done in sets if all(before[step] <= set(done) for step in done)]
    balances = [sum(gains.get(s, 0) - costs.get(s, 0) for s in done) for done in possible]
    assert most_unpaid(gains, costs, before) == max(balances)
