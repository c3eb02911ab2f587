"""The checker: for each rule a plan that breaks it, and only it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.plan import POOL
from tests.plan.cases import EMPTY, MOVE, RELOAD, SWAP, Case, but

ALIEN = "1 load zebra small-0"
BROKEN = {
    # well formed
    "a number twice": (
        Case(("1 scale_up small 4", "1 route a small-0")),
        "id 1: 2 steps have it",
    ),
    "a need that is not there": (
        but(EMPTY, "1 scale_down small-2 < 7 8"),
        "step 1 (scale_down small-2): needs steps 7, 8, which the plan does not have",
    ),
    "a circle": (
        but(MOVE, "1 load a small-1 < 3"),
        "steps 1, 2, 3: their needs form a circle",
    ),
    "a model that is not managed": (
        Case((ALIEN,), wanted=("zebra small-0",)),
        "step 1 (load zebra small-0): model 'zebra' is not managed",
    ),
    "somebody else's copy": (
        Case(("1 unload zebra small-0",), copies=("zebra small-0",)),
        "step 1 (unload zebra small-0): model 'zebra' is not managed",
    ),
    "a replica that is not there yet": (
        Case(("1 load a small+1",), wanted=("a small+1",)),
        "step 1 (load a small+1): there is no replica 'small+1'",
    ),
    "a replica that is gone": (
        Case(("1 drain a small-9",), copies=("a small-9 absent",)),
        "step 1 (drain a small-9): there is no replica 'small-9'",
    ),
    "a pool that is not there": (
        Case(("1 scale_up huge 2",)),
        "step 1 (scale_up huge to 2): there is no pool 'huge'",
    ),
    # states of replicas
    **{
        f"a load where it is {state}": (
            Case(("1 load a small-0",), wanted=("a small-0",), states={"small_0": state}),
            f"step 1 (load a small-0): the replica is {state}, not ready",
        )
        for state in ("leaving", "starting", "unreachable")
    },
    "an unload where it cannot be read": (
        Case(("1 unload a small-0",), copies=("a small-0 unknown",), states={"small_0": "unreachable"}),
        "step 1 (unload a small-0): the replica is unreachable, not ready or leaving",
    ),
    "a replica that starts is taken away": (
        but(EMPTY, states={"small_2": "starting"}),
        "step 1 (scale_down small-2): the replica is starting, not ready or leaving",
    ),
    # the same twice
    "two loads of the same copy": (
        Case(("1 load a small-0", "2 load a small-0"), wanted=("a small-0",)),
        "steps 1, 2: load the same, load a small-0",
    ),
    "a load that its unload could follow": (
        but(RELOAD, "3 load a small-0", "4 route a small-0 < 1 3"),
        "step 3 (load a small-0): it does not need the unload of the same copy, which could come after it",
    ),
    "a route that its unroute could follow": (
        Case(
            ("1 unroute a small-0", "2 load a small-0", "3 route a small-0 < 2"),
            copies=("a small-0 absent routed",),
            wanted=("a small-0",),
        ),
        "step 3 (route a small-0): it does not need the unroute of the same copy, which could come after it",
    ),
    # the placement
    "a load that nobody asked for": (
        Case(("1 load a small-1",)),
        "step 1 (load a small-1): the placement does not have it there",
    ),
    "a good copy goes": (
        Case(("1 unload a small-0",), copies=("a small-0",), wanted=("a small-0",)),
        "step 1 (unload a small-0): it is ready, and the placement has it there",
    ),
    "a replica that should stay goes": (
        but(EMPTY, leaving=("small-1",)),
        "step 1 (scale_down small-2): the placement does not let it go",
    ),
    # memory
    "no room": (
        Case(("1 load c small-0",), copies=("a small-0", "b small-0"), wanted=("c small-0",)),
        "step 1 (load c small-0): 300 MB there + 400 MB loaded - 0 MB surely unloaded before = 700 MB > 500 MB "
        "of small-0",
    ),
    "no room for both": (
        Case(("1 load c small-0", "2 load b small-0 < 1"), wanted=("c small-0", "b small-0")),
        "step 1 (load c small-0), step 2 (load b small-0): 0 MB there + 600 MB loaded - 0 MB surely unloaded before = "
        "600 MB > 500 MB of small-0",
    ),
    "an unload that might come later": (
        but(SWAP, "4 load b small-0 < 2"),
        "step 4 (load b small-0): 500 MB there + 200 MB loaded - 0 MB surely unloaded before = 700 MB > 500 MB "
        "of small-0",
    ),
    "an unload that is under way": (
        Case(("1 load b small-0",), copies=("c small-0 unloading",), wanted=("b small-0",)),
        "step 1 (load b small-0): 400 MB there + 200 MB loaded - 0 MB surely unloaded before = 600 MB > 500 MB "
        "of small-0",
    ),
    "room that two loads count on": (
        Case(
            ("1 unload c small-0", "2 load b small-0 < 1", "3 load d small-0 < 1"),
            copies=("a small-0", "c small-0"),
            wanted=("b small-0", "d small-0"),
        ),
        "step 2 (load b small-0), step 3 (load d small-0): 500 MB there + 500 MB loaded - 400 MB surely unloaded "
        "before = 600 MB > 500 MB of small-0",
    ),
    "beside a copy of unknown size": (
        Case(("1 load a small-0",), copies=("zebra small-0",), wanted=("a small-0",)),
        "step 1 (load a small-0): the footprint of zebra in small-0 is not known",
    ),
    # order
    "a route beside its load": (
        but(MOVE, "2 route a small-1", "3 unroute a small-0 < 1 2"),
        "step 2 (route a small-1): the copy is absent, and it does not need its load",
    ),
    "a route to a failing copy": (
        Case(("1 route a small-0",), copies=("a small-0 failing",), wanted=("a small-0",)),
        "step 1 (route a small-0): the copy is failing, and it does not need its load",
    ),
    "a drain beside its unroute": (
        but(MOVE, "4 drain a small-0 < 2", "5 unload a small-0 < 3 4"),
        "step 4 (drain a small-0): the copy is routed, and it does not need its unroute",
    ),
    "an unload beside its drain": (
        but(MOVE, "5 unload a small-0 < 3"),
        "step 5 (unload a small-0): the copy is serving, and it does not need its drain",
    ),
    "an unload of what is routed": (
        Case(("1 unload a small-0",), copies=("a small-0 serving failing",)),
        "step 1 (unload a small-0): the copy is routed, and it does not need its unroute",
    ),
    "a replica goes beside its unload": (
        but(MOVE, "6 scale_down small-0 < 4", leaving=("small-0",)),
        "step 6 (scale_down small-0): a is ready there, and it does not need its unload",
    ),
    "a replica goes with somebody else's copy": (
        but(EMPTY, copies=("zebra small-2",)),
        "step 1 (scale_down small-2): zebra is ready there, and it does not need its unload",
    ),
    "a replica goes that requests are sent to": (
        but(EMPTY, copies=("a small-2 absent routed",)),
        "step 1 (scale_down small-2): a is routed there, and it does not need its unroute",
    ),
    "a replica goes that is filled": (
        but(EMPTY, "2 load a small-2", wanted=("a small-2",)),
        "step 1 (scale_down small-2): step 2 loads a there",
    ),
    # rail 2, rail 1, and the capacity between
    "the last serving copy": (
        Case(("1 unroute a small-0",), copies=("a small-0 serving",)),
        "step 1 (unroute a small-0): could leave 0 of 1 serving, while the demand of a is 4 req/s",
    ),
    "the last but for an unreachable one": (
        Case(
            ("1 unroute a small-0",),
            copies=("a small-0 serving", "a small-1 unknown routed"),
            states={"small_1": "unreachable"},
        ),
        "step 1 (unroute a small-0): could leave 0 of 1 serving, while the demand of a is 4 req/s",
    ),
    "the last, beside the route of another": (
        but(MOVE, "3 unroute a small-0 < 1"),
        "step 3 (unroute a small-0): could leave 0 of 1 serving, while the demand of a is 4 req/s",
    ),
    "two that count on each other": (
        Case(("1 unroute a small-0", "2 unroute a small-1"), copies=("a small-0 serving", "a small-1 serving")),
        "step 1 (unroute a small-0), step 2 (unroute a small-1): could leave 0 of 2 serving, while the demand of a is "
        "4 req/s",
    ),
    "one of two whose demand is unknown": (
        Case(
            ("1 unroute a small-0",),
            copies=("a small-0 serving", "a small-1 serving"),
            wanted=("a small-1",),
            demand={"a": None},
        ),
        "step 1 (unroute a small-0): could leave 1 of 2 serving, while the demand of a is unknown",
    ),
    "two after the route of one, where the placement has two": (
        Case(
            ("1 route a small-2", "2 unroute a small-0 < 1", "3 unroute a small-1 < 1"),
            copies=("a small-0 serving", "a small-1 serving", "a small-2"),
            wanted=("a small-2", "a small+1"),
        ),
        "step 2 (unroute a small-0), step 3 (unroute a small-1): could leave 1 of 2 serving, while the placement has 2",
    ),
    # budget and pools
    "over the budget": (
        but(MOVE, budget=1),
        "1 loads + 1 unloads = 2 > 1, the budget",
    ),
    "a pool that is not ours": (
        Case(("1 scale_up small 4",), pool=replace(POOL, is_scaled_by_us=False)),
        "step 1 (scale_up small to 4): another autoscaler owns the count of pool small",
    ),
    "a pool that is not ours shrinks": (
        replace(EMPTY, pool=replace(POOL, is_scaled_by_us=False)),
        "step 1 (scale_down small-2): another autoscaler owns the count of pool small",
    ),
    "more than the most": (
        Case(("1 scale_up small 5",)),
        "step 1 (scale_up small to 5): 5 > 4, the most of pool small, which has 3",
    ),
    "no more than there are": (
        Case(("1 scale_up small 3",)),
        "step 1 (scale_up small to 3): pool small has 3 already",
    ),
    "fewer than the least": (
        replace(EMPTY, pool=replace(POOL, min_replicas=3)),
        "step 1 (scale_down small-2): 3 - 1 < 3, the least of pool small",
    ),
    "both ways at once": (
        but(EMPTY, "2 scale_up small 4"),
        "step 2 (scale_up small to 4), step 1 (scale_down small-2): pool small both grows and shrinks",
    ),
}


@pytest.mark.parametrize(("case", "why"), BROKEN.values(), ids=BROKEN)
def test_a_plan_that_breaks_one_rule_is_told_so_once(case: Case, why: str) -> None:
    assert case.broken() == (why,)
