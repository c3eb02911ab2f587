"""The checker: plans that keep every rail, and what it takes to see that."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from time import perf_counter

import pytest

from tasks.decision import Plan, Sizing, Step
from tasks.plan.check import check
from tasks.world import Copy, CopyState, Fleet, Limits, Observation, Replica
from tests.plan import MB, POOL, WHY, placement, step
from tests.plan.cases import EMPTY, MOVE, RELOAD, SWAP, Case, but
from tests.worlds import NOW, model

KEPT = {
    "nothing": Case(()),
    "a copy moves": MOVE,
    "a failing copy is loaded again, without a drain: nobody is served": RELOAD,
    "an empty replica goes": EMPTY,
    "one copy makes room for another": SWAP,
    "a replica is emptied and goes": but(MOVE, "6 scale_down small-0 < 5", leaving=("small-0",)),
    "a replica goes once an unload that is under way is done": but(
        EMPTY, "1 scale_down small-2 < 2", "2 unload a small-2", copies=("a small-2 unloading",)
    ),
    "a replica whose going was cut short goes: it counts no more": replace(
        EMPTY, leaving=(), states={"small_2": "leaving"}, pool=replace(POOL, replicas=2, min_replicas=2)
    ),
    "a ready copy is routed": Case(("1 route a small-0",), copies=("a small-0",), wanted=("a small-0",)),
    "a load that is under way is waited for, and takes no memory twice": Case(
        ("1 load c small-0", "2 route c small-0 < 1"),
        copies=("c small-0 loading", "a small-0 serving"),
        wanted=("c small-0", "a small-0"),
    ),
    "what is loaded again in an overfull replica makes nothing worse": but(
        RELOAD, copies=(*RELOAD.copies, "c small-0 loading", "b small-0")
    ),
    "nor does what is loaded again beside somebody else's copy": but(
        RELOAD, copies=(*RELOAD.copies, "zebra small-0 serving")
    ),
    "a copy that nobody is sent to needs no drain": Case(("1 unload a small-0",), copies=("a small-0",)),
    "requests are sent to an unreachable replica no more": Case(
        ("1 unroute a small-0",), copies=("a small-0 unknown routed",), states={"small_0": "unreachable"}
    ),
    "nor to one that is gone": Case(("1 unroute a small-9",), copies=("a small-9 absent routed",)),
    "a replica that leaves is emptied": but(MOVE, states={"small_0": "leaving"}),
    "the last serving copy of a model without demand goes": Case(
        ("1 unroute a small-0", "2 drain a small-0 < 1", "3 unload a small-0 < 2"),
        copies=("a small-0 serving",),
        demand={"a": 0.0},
    ),
    "a failing copy is not the last serving one": Case(("1 unroute a small-0",), copies=("a small-0 serving failing",)),
    "a held model's copy moves": but(MOVE, demand={"a": None}),
    "one of two copies goes where the placement has one": Case(
        ("1 unroute a small-0",), copies=("a small-0 serving", "a small-1 serving"), wanted=("a small-1",)
    ),
    "two copies move, each after its own successor": Case(
        ("1 route a small-2", "2 route a small-1", "3 unroute a small-0 < 1", "4 unroute a small-9 < 1 2"),
        copies=("a small-0 serving", "a small-9 serving", "a small-1", "a small-2"),
        wanted=("a small-1", "a small-2"),
    ),
    "two swaps in one replica: 400 MB for 300 and 100 MB for 100, in 500 MB": Case(
        ("1 unload c small-0", "2 load d small-0 < 1", "3 unload a small-0", "4 load e small-0 < 3"),
        copies=("a small-0", "c small-0"),
        wanted=("d small-0", "e small-0"),
    ),
    "a pool grows to its most": Case(("1 scale_up small 4",)),
    "a budget that is used up": but(MOVE, budget=2),
}


@pytest.mark.parametrize("case", KEPT.values(), ids=KEPT)
def test_a_plan_that_keeps_the_rails(case: Case) -> None:
    assert case.broken() == ()


def test_two_hundred_steps_in_a_large_fleet_take_less_than_50_ms() -> None:
    """1,000 replicas with ten copies each; the first of each of 40 replicas moves to one of 40 empty ones."""
    names = [f"r{n}" for n in range(1000)]
    models = tuple(model(f"m{n}", 10) for n in range(1000))
    copies = tuple(
        Copy(models[(100 * place + n) % 1000].name, name, CopyState.READY, is_routed=True)
        for n, name in enumerate(names[:960])
        for place in range(10)
    )
    moved = [copies[10 * n] for n in range(40)]
    steps = [
        replace(each, id=5 * n + i, needs=(5 * n + i - 1,) if i else ())
        for n, copy in enumerate(moved)
        for i, each in enumerate(_move(copy.model, copy.replica, names[960 + n]))
    ]
    wanted = {(c.model, c.replica) for c in copies} - {(c.model, c.replica) for c in moved}
    fleet = Fleet(
        models,
        (replace(POOL, replicas=1000, max_replicas=1000),),
        tuple(Replica(name, "small", "small", 500 * MB, 1.0) for name in names),
        copies,
    )
    target = placement(*(f"{m} {r}" for m, r in wanted), *(f"{s.model} {s.replica}" for s in steps[::5]))
    known = tuple(Sizing(m.name, 10, 4.0, {}, WHY) for m in models)
    best_s = inf
    for _ in range(5):  # the machine does other things too: the best counts
        start = perf_counter()
        assert check(Plan(tuple(steps)), Observation(NOW, fleet), target, known, Limits(budget=80)) == ()
        best_s = min(best_s, perf_counter() - start)
    assert best_s < 0.05


def _move(model_name: str, source: str, target: str) -> list[Step]:
    texts = [f"load {model_name} {target}", f"route {model_name} {target}"]
    texts += [f"{kind} {model_name} {source}" for kind in ("unroute", "drain", "unload")]
    return [step(f"0 {text}") for text in texts]
