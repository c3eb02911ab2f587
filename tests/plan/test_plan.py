"""The plan on small worlds: which steps, in which order, and what is left undone and why.

Models a to e take 100, 200, 400, 300 and 100 MB; replicas have 500 MB, of which 10 % stay free: 450 MB.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from tasks.decision import Plan
from tasks.plan import plan
from tasks.plan.check import check
from tasks.world import Limits, LoadFailure, Observation, Pool
from tests.plan import POOL, fleet, placement, sizings
from tests.worlds import NOW


@dataclass(frozen=True)
class Case:
    """The fleet, the placement, and the plan from the one to the other."""

    steps: tuple[str, ...]
    """``3 unroute a small-0 < 1 2``: step 3 needs 1 and 2."""
    holds: tuple[str, ...] = ()
    """``model:a budget``."""
    copies: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()
    replicas: int = 3
    demand: dict[str, float | None] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    sized: dict[str, int] = field(default_factory=dict)
    """Copies that a model needs, where they are not one."""
    pool: Pool = POOL
    budget: int = 4

    def plan(self) -> Plan:
        observation = Observation(NOW, fleet(*self.copies, pool=self.pool, **self.states))
        target = placement(*self.wanted, leaving=self.leaving, replicas=self.replicas)
        known = tuple(replace(s, copies=self.sized.get(s.model, s.copies)) for s in sizings(**self.demand))
        limits = Limits(budget=self.budget)
        found = plan(observation, target, known, limits)
        assert check(found, observation, target, known, limits) == ()
        return found


MOVE = ("2 unroute a small-0 < 1", "3 drain a small-0 < 2", "4 unload a small-0 < 3")
"""What follows the load and the route of a's successor."""
COMING = {
    "what is as it should be is left alone": Case((), copies=("a small-0 serving",), wanted=("a small-0",)),
    "a copy is loaded, then routed": Case(("0 load a small-0", "1 route a small-0 < 0"), wanted=("a small-0",)),
    "ready, and no request can reach it": Case(("0 route a small-0",), copies=("a small-0",), wanted=("a small-0",)),
    "one that nobody asks for after one that is asked, though others serve that": Case(
        ("0 load b small-1", "1 route b small-1 < 0"),
        ("model:a budget",),
        copies=("b small-0 serving",),
        wanted=("a small-2", "b small-0", "b small-1"),
        demand={"a": 0.0},
        budget=1,
    ),
    "one of a model of which less than half serves before another's": Case(
        ("0 load b small-1", "1 route b small-1 < 0"),
        ("model:b budget", "model:a budget"),
        copies=("a small-0 serving", "b small-0 serving"),
        wanted=("a small-0", "a small-2", "b small-0", "b small-1", "b small-2"),
        sized={"a": 2, "b": 3},
        budget=1,
    ),
    "requests reach it, and it is not there": Case(
        ("0 unroute a small-0", "1 load a small-0 < 0", "2 route a small-0 < 1"),
        copies=("a small-0 absent routed",),
        wanted=("a small-0",),
    ),
    "a load that is under way is waited for": Case(
        ("0 load a small-0", "1 route a small-0 < 0"), copies=("a small-0 loading",), wanted=("a small-0",)
    ),
    "so is an unload of what is wanted again": Case(
        ("0 load a small-0", "1 route a small-0 < 0"), copies=("a small-0 unloading",), wanted=("a small-0",)
    ),
    "a failing copy is loaded anew": Case(
        ("0 unroute a small-0", "1 unload a small-0 < 0", "2 load a small-0 < 1", "3 route a small-0 < 2"),
        copies=("a small-0 serving failing",),
        wanted=("a small-0",),
    ),
    "where all copies fail one is loaded anew, the others when it serves": Case(
        ("0 unroute a small-0", "1 unload a small-0 < 0", "2 load a small-0 < 1", "3 route a small-0 < 2"),
        ("model:a copy_failing",),
        copies=("a small-0 serving failing", "a small-1 serving failing"),
        wanted=("a small-0", "a small-1"),
    ),
    "where another serves all that fail are loaded anew": Case(
        (
            *("0 unroute a small-0", "1 unload a small-0 < 0", "2 load a small-0 < 1", "3 route a small-0 < 2"),
            *("4 unroute a small-1", "5 unload a small-1 < 4", "6 load a small-1 < 5", "7 route a small-1 < 6"),
        ),
        copies=("a small-0 serving failing", "a small-1 serving failing", "a small-2 serving"),
        wanted=("a small-0", "a small-1", "a small-2"),
    ),
    "nothing is loaded in a replica that starts": Case(
        (), ("replica:small-0 replica_starting",), wanted=("a small-0",), states={"small_0": "starting"}
    ),
    "a pool grows, and the copy waits for its replica": Case(
        ("0 scale_up small to 4",), ("pool:small replica_starting",), wanted=("a small+1",), replicas=4
    ),
}
GOING = {
    "a copy moves: the old one goes once the new one serves": Case(
        ("0 load a small-1", "1 route a small-1 < 0", *MOVE), copies=("a small-0 serving",), wanted=("a small-1",)
    ),
    "a copy too many goes": Case(
        ("0 unroute a small-0", "1 drain a small-0 < 0", "2 unload a small-0 < 1"),
        copies=("a small-0 serving", "a small-1 serving"),
        wanted=("a small-1",),
    ),
    "the load waits for the unload that makes its room: 400 + 200 > 450 MB": Case(
        (
            *("0 unroute c small-0", "1 drain c small-0 < 0", "2 unload c small-0 < 1"),
            *("3 load b small-0 < 2", "4 route b small-0 < 3"),
        ),
        copies=("c small-0 serving", "c small-1 serving"),
        wanted=("b small-0", "c small-1"),
    ),
    "one that fails goes without a drain": Case(
        ("0 unroute a small-0", "1 unload a small-0 < 0"), copies=("a small-0 serving failing",)
    ),
    "an unload that is under way is waited for, or ended": Case(
        ("0 unroute a small-2", "1 unload a small-2 < 0", "2 scale_down small-2 < 1"),
        copies=("a small-2 unloading routed",),
        leaving=("small-2",),
        replicas=2,
    ),
    "a load that nobody wants is not cut short": Case((), ("model:a busy",), copies=("a small-0 loading",)),
    "requests are sent no more to what is not there": Case(
        ("0 unroute a small-0", "1 unroute b small-9"),
        copies=("a small-0 absent routed", "b small-9 absent routed"),
    ),
    "somebody else's copy stays": Case((), copies=("zebra small-0 serving",)),
    "a replica is emptied, then goes": Case(
        (
            *("0 load a small-0", "1 route a small-0 < 0"),
            *("2 unroute a small-2 < 1", "3 drain a small-2 < 2", "4 unload a small-2 < 3"),
            "5 scale_down small-2 < 4",
        ),
        copies=("a small-2 serving",),
        wanted=("a small-0",),
        leaving=("small-2",),
        replicas=2,
    ),
    "a replica goes when a load that is under way in it has ended": Case(
        (),
        ("model:a busy", "replica:small-2 not_empty"),
        copies=("a small-2 loading",),
        leaving=("small-2",),
        replicas=2,
    ),
    "also one whose requests stop in this tick": Case(
        ("0 unroute a small-2",),
        ("model:a busy", "replica:small-2 not_empty"),
        copies=("a small-2 loading routed",),
        leaving=("small-2",),
        replicas=2,
    ),
    "a replica with somebody else's copy stays": Case(
        (), ("replica:small-2 not_empty",), copies=("zebra small-2",), leaving=("small-2",), replicas=2
    ),
    "one that leaves another's pool already goes without us": Case(
        (),
        states={"small_2": "leaving"},
        replicas=2,
        pool=replace(POOL, replicas=2, is_scaled_by_us=False),
    ),
    "a replica whose going was cut short goes": Case(
        ("0 scale_down small-2",), states={"small_2": "leaving"}, replicas=2, pool=replace(POOL, replicas=2)
    ),
}
RAILS = {
    "1: a model whose demand is unknown keeps its copies though fewer are placed": Case(
        (),
        ("model:a no_room_to_swap",),
        copies=("a small-0 serving", "a small-1 serving"),
        wanted=("a small-0",),
        demand={"a": None},
    ),
    "1: but its copy may move": Case(
        ("0 load a small-1", "1 route a small-1 < 0", *MOVE),
        copies=("a small-0 serving",),
        wanted=("a small-1",),
        demand={"a": None},
    ),
    "1: it gets no more requests then, also where the budget is too small for its unload": Case(
        ("0 load a small-1", "1 route a small-1 < 0", "2 unroute a small-0 < 1"),
        ("model:a budget",),
        copies=("a small-0 serving",),
        wanted=("a small-1",),
        demand={"a": None},
        budget=1,
    ),
    "1: of a model whose demand is known it gets them until it goes": Case(
        ("0 load a small-1", "1 route a small-1 < 0"),
        ("model:a budget",),
        copies=("a small-0 serving",),
        wanted=("a small-1",),
        budget=1,
    ),
    "1: what cannot be read is not touched, and serves nobody": Case(
        ("0 load a small-1", "1 route a small-1 < 0"),
        ("replica:small-0 replica_unreachable",),
        copies=("a small-0 unknown routed", "b small-0 unknown routed", "b small-1 serving"),
        wanted=("a small-1", "b small-1"),
        states={"small_0": "unreachable"},
    ),
    "2: the last serving copy stays where nothing is placed": Case(
        (), ("model:a last_copy",), copies=("a small-0 serving",)
    ),
    "2: a model that nobody asks loses its last": Case(
        ("0 unroute a small-0", "1 drain a small-0 < 0", "2 unload a small-0 < 1"),
        copies=("a small-0 serving",),
        demand={"a": 0.0},
    ),
    "2: the last but for a failing one stays until that one is mended": Case(
        (
            *("0 unroute a small-1", "1 unload a small-1 < 0", "2 load a small-1 < 1", "3 route a small-1 < 2"),
            *("4 unroute a small-0 < 3", "5 drain a small-0 < 4", "6 unload a small-0 < 5"),
        ),
        copies=("a small-0 serving", "a small-1 serving failing"),
        wanted=("a small-1",),
    ),
    "2: two that need each other's room stay: 400 > 450 - 300 MB, 300 > 450 - 400 MB": Case(
        (),
        ("model:c no_room_to_swap", "model:d no_room_to_swap", "model:c last_copy", "model:d last_copy"),
        copies=("c small-0 serving", "d small-1 serving"),
        wanted=("c small-1", "d small-0"),
        budget=8,
    ),
    "4: three of five loads and unloads, those first of what nobody serves": Case(
        (
            *("0 load b small-1", "1 route b small-1 < 0", "2 load a small-1", "3 route a small-1 < 2"),
            *("4 load e small-1", "5 route e small-1 < 4"),
        ),
        ("model:a budget", "model:e budget"),
        copies=("a small-0 serving", "e small-0 serving"),
        wanted=("a small-1", "e small-1", "b small-1"),
        budget=3,
    ),
    "4: what nobody serves gets its room before another model's copy moves": Case(
        ("0 unroute d small-0", "1 drain d small-0 < 0", "2 unload d small-0 < 1"),
        ("model:b budget", "model:a budget", "model:a budget"),
        copies=("a small-2 serving", "d small-0 serving", "d small-1 serving"),
        wanted=("a small-1", "b small-0", "d small-1"),
        budget=1,
    ),
    "4: as much of it as the budget allows, and it is loaded in a later tick": Case(
        (
            *("0 unroute d small-0", "1 drain d small-0 < 0", "2 unload d small-0 < 1"),
            *("3 unroute a small-0", "4 drain a small-0 < 3", "5 unload a small-0 < 4"),
        ),
        ("model:c budget",),
        copies=("a small-0 serving", "a small-1 serving", "d small-0 serving", "d small-1 serving"),
        wanted=("a small-1", "c small-0", "d small-1"),
        budget=2,
    ),
    "4: so is a repair": Case(
        ("0 unroute a small-0", "1 unload a small-0 < 0"),
        ("model:b budget",),
        copies=("a small-0 serving failing",),
        wanted=("a small-0", "b small-1"),
        budget=1,
    ),
    "4: what is unloading takes memory until it is gone: 200 > 450 - 400 MB": Case(
        ("0 unload c small-0", "1 load b small-0 < 0", "2 route b small-0 < 1"),
        copies=("c small-0 unloading",),
        wanted=("b small-0",),
    ),
    "4: so does what is loading, though its requests stop: 200 > 450 - 400 MB": Case(
        ("0 unroute c small-0",),
        ("model:b no_room_to_swap", "model:c busy"),
        copies=("c small-0 loading routed",),
        wanted=("b small-0",),
    ),
    "5: another's pool does not grow": Case(
        (), ("pool:small not_scaled_by_us",), replicas=4, pool=replace(POOL, is_scaled_by_us=False)
    ),
    "6: a pool with less memory than declared says so": Case(
        (), ("pool:small less_memory",), pool=replace(POOL, detail="24.00 GB declared, small-0 has 16.00 GB")
    ),
}
CASES = {**COMING, **GOING, **RAILS}


def _text(found: Plan) -> tuple[str, ...]:
    return tuple(f"{s.id} {s}{' < ' if s.needs else ''}{' '.join(map(str, s.needs))}" for s in found.steps)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_plan_of_a_small_world(case: Case) -> None:
    found = case.plan()
    assert _text(found) == case.steps
    assert tuple(f"{hold.subject} {hold.reason.code}" for hold in found.holds) == case.holds


def test_each_of_the_copies_that_fail_has_its_turn() -> None:
    """Of ten ticks; else one that no reload mends would be the first for ever."""
    copies, wanted = ("a small-0 serving failing", "a small-1 serving failing"), placement("a small-0", "a small-1")
    plans = (plan(Observation(NOW + 30 * n, fleet(*copies)), wanted, sizings(), Limits()) for n in range(10))
    assert {found.steps[0].replica for found in plans} == {"small-0", "small-1"}


def test_the_order_in_which_copies_are_listed_does_not_matter() -> None:
    """Rail 7: what is shown is what is done, whoever asks."""
    case = RAILS["4: three of five loads and unloads, those first of what nobody serves"]
    turned = replace(case, copies=case.copies[::-1], wanted=case.wanted[::-1])
    assert case.plan() == turned.plan()


def test_a_refusal_shows_its_arithmetic() -> None:
    """Rail 6."""
    held = RAILS["2: two that need each other's room stay: 400 > 450 - 300 MB, 300 > 450 - 400 MB"].plan().holds
    assert [str(hold.reason) for hold in held[:3]] == [
        "no_room_to_swap: to small-1: 400 MB > 150 MB free in small-1",
        "no_room_to_swap: to small-0: 300 MB > 50 MB free in small-0",
        "last_copy: out of small-0: 1 serve, 1 wanted, 1 would serve before it goes: 1 must be left",
    ]


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_rollout_goes_on_while_the_newer_replicas_can_load(is_ours: bool) -> None:
    """small-0 is of an older revision; nothing is in small-1, the newer one, where a load failed or not."""
    pool = replace(POOL, replicas=2, is_scaled_by_us=is_ours)
    seen = fleet("b small-2 serving", small_0="leaving", pool=pool)
    older = replace(seen.replicas[0], is_superseded=True, detail="a newer one is there")
    seen = replace(seen, replicas=(older, *seen.replicas[1:]))
    target, known = placement("b small-2", replicas=2), sizings()
    found = plan(Observation(NOW, seen), target, known, Limits())
    assert [str(step) for step in found.steps] == ["scale_down small-0"]
    assert str(found.steps[0].reason) == "superseded: a newer one is there"
    failed = Observation(NOW, seen, load_failures=(LoadFailure("a", "small-1", 1, NOW - 10),))
    found = plan(failed, target, known, Limits())
    assert found.steps == ()
    (hold,) = found.holds
    assert (hold.subject, str(hold.reason)) == ("replica:small-0", "rollout_waits: small-1 could not load a")
