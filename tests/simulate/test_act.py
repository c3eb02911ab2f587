"""A plan on the simulated fleet: needs first, one step at a time in a replica, no step of what failed."""

from __future__ import annotations

import numpy as np

from tasks.decision import Plan, Reason, Step, StepKind
from tasks.simulate.act import Hands
from tasks.simulate.fleet import SimulatedFleet
from tasks.simulate.tables import LOADED
from tasks.simulate.traffic import Gateway
from tests.simulate.small import START, flat, model, scenario

WHY = Reason("placed", "test")


def fleet(*loaded: int) -> SimulatedFleet:
    """Two replicas, ``gpu-1`` and ``gpu-2``, these models in the first; every load takes 10 s."""
    models = (model("a"), model("b"), model("c", 6))
    made = SimulatedFleet(scenario(models, flat(5, 5, 5)), START, np.random.default_rng(0))
    made.scale(0, 2)
    made.advance(START + 60)
    for index in loaded:
        made.load(index, 0)
    made.advance(START + 100)
    return made


def names(made: SimulatedFleet) -> list[str]:
    return [made.name_by_row[row] for row in (0, 1)]


def test_a_move_serves_from_the_new_place_before_the_old_one_goes() -> None:
    made = fleet(0)
    old, new = names(made)
    steps = (
        Step(0, StepKind.LOAD, WHY, "a", new),
        Step(1, StepKind.ROUTE, WHY, "a", new, needs=(0,)),
        Step(2, StepKind.UNROUTE, WHY, "a", old, needs=(1,)),
        Step(3, StepKind.DRAIN, WHY, "a", old, needs=(2,)),
        Step(4, StepKind.UNLOAD, WHY, "a", old, needs=(3,)),
        Step(5, StepKind.SCALE_DOWN, WHY, replica=old, pool="gpu", needs=(4,)),
    )
    hands = Hands(made, Plan(steps), 120)
    routed = []
    for second in range(16):
        made.advance(START + 100 + second)
        routed.append(int(made.copies.is_routed[made.copies.state == LOADED].sum()))
    # 10 s load, then the route moves at once; 2 s drain, 1 s unload
    assert set(routed) == {1}
    assert hands.done == {0, 1, 2, 3, 4, 5}
    assert not hands.is_busy
    assert list(made.row_by_name) == [new]
    assert made.wanted == [1]


def test_loads_into_one_replica_follow_each_other_and_into_two_do_not() -> None:
    made = fleet()
    first, second = names(made)
    steps = tuple(
        Step(i, StepKind.LOAD, WHY, name, replica)
        for i, (name, replica) in enumerate([("a", first), ("b", first), ("a", second)])
    )
    hands = Hands(made, Plan(steps), 120)
    made.advance(START + 110)
    assert hands.done == {0, 2}
    made.advance(START + 120)
    assert hands.done == {0, 1, 2}


def test_what_needs_a_failed_step_is_not_begun() -> None:
    made = fleet(2)  # c takes 6 of 10 GB
    first, _ = names(made)
    made.load(0, 0)
    made.load(1, 0)  # full
    steps = (
        Step(0, StepKind.LOAD, WHY, "c", "gone-1"),
        Step(1, StepKind.ROUTE, WHY, "c", "gone-1", needs=(0,)),
        Step(2, StepKind.UNROUTE, WHY, "c", first, needs=(1,)),
    )
    hands = Hands(made, Plan(steps), 120)
    assert hands.failed == {0, 1, 2}
    assert made.copies.is_routed[made.row_by_copy[2, 0]]


def test_no_step_starts_after_the_time_to_act() -> None:
    made = fleet()
    first, _ = names(made)
    hands = Hands(
        made, Plan((Step(0, StepKind.LOAD, WHY, "a", first), Step(1, StepKind.LOAD, WHY, "b", first))), act_s=5
    )
    made.advance(START + 130)
    assert (hands.done, hands.failed) == ({0}, {1})


def test_requests_follow_the_weights() -> None:
    """5 req/s of a over two copies in 5 s: 12.5 each, then 6.25 and 18.75; a copy that is routed anew weighs 1."""
    made = fleet(0)
    made.load(0, 1)
    made.advance(START + 120)
    first, second = names(made)
    gateway = Gateway(made, np.full((1, 3), 0.1), holds_cold=False)

    def served() -> list[float]:
        made.copies.reset()
        gateway.step(5.0)
        return [round(float(made.copies.served[made.row_by_copy[0, row]]), 2) for row in (0, 1)]

    def do(*steps: Step) -> set[int]:
        return Hands(made, Plan(steps), 120).done

    weigh = Step(0, StepKind.WEIGH, WHY, "a", weights=((first, 0.5), (second, 1.5)))
    assert served() == [12.5, 12.5]
    assert do(weigh) == {0}
    assert served() == [6.25, 18.75]
    assert do(Step(0, StepKind.UNROUTE, WHY, "a", second)) == {0}
    assert served() == [25.0, 0.0]
    assert do(weigh) == set()  # a copy that is not routed
    assert do(Step(0, StepKind.ROUTE, WHY, "a", second)) == {0}
    # 0.5 and 1
    assert served() == [8.33, 16.67]
