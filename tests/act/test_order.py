"""The order of steps, with plain functions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tasks.act.order import NotNeededError, run
from tasks.decision import Outcome, Reason, Result, Step, StepKind

DONE, FAILED, SKIPPED = Result.DONE, Result.FAILED, Result.SKIPPED
WHY = Reason("placed", "for the test")


def load(step: int, replica: str, *needs: int) -> Step:
    return Step(step, StepKind.LOAD, WHY, "echo", replica, needs=needs)


def execute(
    steps: tuple[Step, ...],
    do: Callable[[Step], str],
    act_s: float = 30,
    why_stop: Callable[[], str] = lambda: "",
) -> dict[int, Outcome]:
    heard: list[Outcome] = []
    outcomes = run(steps, do, act_s, why_stop, heard.append)
    assert [outcome.step for outcome in outcomes] == list(steps)  # one each, in the plan's order
    assert sorted(outcome.step.id for outcome in heard) == sorted(outcome.step.id for outcome in outcomes)
    return {outcome.step.id: outcome for outcome in outcomes}


def test_nothing_to_do() -> None:
    assert execute((), lambda _: "") == {}


def test_a_step_starts_when_what_it_needs_is_done() -> None:
    began: list[int] = []
    steps = (load(3, "c", 1, 2), load(1, "a"), load(2, "b", 1))
    outcomes = execute(steps, lambda step: began.append(step.id) or "well")  # type: ignore[func-returns-value]
    assert began == [1, 2, 3]
    assert [outcomes[i].detail for i in (1, 2, 3)] == ["well"] * 3


def test_replicas_work_in_parallel_and_one_step_at_a_time_in_each() -> None:
    """Three replicas with two steps each: three meet at the barrier twice, and never two of one replica."""
    barrier = threading.Barrier(3)
    working: set[str] = set()

    def do(step: Step) -> str:
        assert step.replica not in working
        working.add(step.replica)
        barrier.wait(timeout=5)
        time.sleep(0.1)
        working.discard(step.replica)
        return ""

    steps = tuple(load(i, "abc"[i % 3]) for i in range(6))
    assert {o.result for o in execute(steps, do).values()} == {DONE}


def test_a_failed_step_stops_what_depends_on_it_and_nothing_else() -> None:
    def do(step: Step) -> str:
        if step.id == 1:
            raise OSError("no route to host")
        return ""

    outcomes = execute((load(1, "a"), load(2, "a", 1), load(3, "b", 2), load(4, "a"), load(5, "b")), do)
    assert [outcomes[i].result for i in (1, 2, 3, 4, 5)] == [FAILED, SKIPPED, SKIPPED, DONE, DONE]
    assert outcomes[1].detail == "no route to host"
    assert outcomes[2].detail == "needs step 1 (load echo a), which is failed"
    assert outcomes[3].detail == "needs step 2 (load echo a), which is skipped"


def test_a_precondition_that_no_longer_holds_is_skipped() -> None:
    def do(step: Step) -> str:
        raise NotNeededError("its replica is gone")

    assert [(o.result, o.detail) for o in execute((load(1, "a"),), do).values()] == [(SKIPPED, "its replica is gone")]


def test_no_step_starts_when_the_time_is_up_and_what_has_started_is_finished() -> None:
    def do(step: Step) -> str:
        time.sleep(0.3)
        return ""

    outcomes = execute((load(1, "a"), load(2, "a")), do, act_s=0.1)
    assert [outcomes[i].result for i in (1, 2)] == [DONE, SKIPPED]
    assert outcomes[1].seconds == pytest.approx(0.3, abs=0.1)
    assert outcomes[2].detail == "time is up: no step starts later than 0.1 s (limits.act_s)"


def test_no_step_starts_once_it_should_stop() -> None:
    done: list[int] = []

    def do(step: Step) -> str:
        done.append(step.id)
        return ""

    steps = (load(1, "a"), load(2, "a"), load(3, "a"))
    outcomes = execute(steps, do, why_stop=lambda: "no more" if len(done) >= 2 else "")
    assert [outcomes[i].result for i in (1, 2, 3)] == [DONE, DONE, SKIPPED]
    assert outcomes[3].detail == "no more"


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ((load(1, "a", 2), load(2, "b", 1)), "its needs form a circle"),
        ((load(1, "a", 9),), "needs step 9, which the plan does not have"),
    ],
)
def test_a_plan_that_cannot_be_is_skipped(steps: tuple[Step, ...], why: str) -> None:
    assert {(o.result, o.detail) for o in execute(steps, lambda _: "").values()} == {(SKIPPED, why)}
