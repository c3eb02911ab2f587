"""The placement of small fleets: what is kept, placed, displaced, moved and refused, and why.

Models a to e take 100, 200, 400, 300 and 100 MB; replicas have 500 MB, of which 10 % stay free: 450 MB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from tasks.decision import Placement, Sizing
from tasks.place import place
from tasks.world import Copy, CopyState, Fleet, Limits, LoadFailure, Model, Need, Objective, Observation, Pool, Replica
from tests.plan import MB, POOL, WHY, fleet
from tests.worlds import NOW

FULL = replace(POOL, min_replicas=3, max_replicas=3)
"""Three replicas, no more and no fewer."""
THREE = replace(POOL, min_replicas=1, max_replicas=3)


@dataclass(frozen=True)
class Case:
    """A fleet, the copies that each model should have, and what is placed."""

    placed: tuple[str, ...]
    """``a small-0 kept``: model, replica, reason."""
    wanted: Mapping[str, int]
    copies: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    replicas: int = 3
    pool: Pool = FULL
    states: dict[str, str] = field(default_factory=dict)
    priority: Mapping[str, int] = field(default_factory=dict)
    pinned: tuple[str, ...] = ()
    zones: tuple[str, ...] = ("", "", "")
    failures: tuple[LoadFailure, ...] = ()
    rps_a_copy: float = 4.0
    unknown: tuple[str, ...] = ()
    """Models whose demand is not known."""

    @property
    def fleet(self) -> Fleet:
        found = replace(fleet(*self.copies, pool=self.pool, **self.states), splits_by_weight=False)
        models = tuple(
            replace(m, priority=self.priority.get(m.name, 0), is_pinned=m.name in self.pinned) for m in found.models
        )
        replicas = tuple(replace(r, zone=zone) for r, zone in zip(found.replicas, self.zones, strict=True))
        return replace(found, models=models, replicas=replicas)

    def place(self) -> Placement:
        counts = {name: self.wanted.get(name, 0) for name in "abcde"}
        demand = {m: None if m in self.unknown else self.rps_a_copy * n for m, n in counts.items()}
        sizings = tuple(Sizing(m, n, demand[m], {"small": 10.0}, WHY) for m, n in counts.items())
        return place(Observation(NOW, self.fleet, load_failures=self.failures), sizings, Limits())


KEEP = {
    "what is there stays": Case(("a small-2 kept",), {"a": 1}, ("a small-2 serving",)),
    "one too many goes: the emptier replica's": Case(
        ("a small-1 kept", "b small-1 kept"),
        {"a": 1, "b": 1},
        ("a small-0 serving", "a small-1 serving", "b small-1 serving"),
        surplus=("a small-0 surplus",),
    ),
    "a serving copy before one that only loads": Case(
        ("a small-0 kept",),
        {"a": 1},
        ("a small-0 serving", "a small-1 loading"),
        surplus=("a small-1 surplus",),
    ),
    "a failing copy last": Case(
        ("a small-1 kept",), {"a": 1}, ("a small-0 serving failing", "a small-1 loading"), ("a small-0 surplus",)
    ),
    "of three the two in different zones": Case(
        ("a small-0 kept", "a small-2 kept"),
        {"a": 2},
        ("a small-0 serving", "a small-1 serving", "a small-2 serving"),
        ("a small-1 surplus",),
        zones=("x", "x", "y"),
    ),
    "what a replica that leaves held is placed elsewhere": Case(
        ("a small-1 placed",),
        {"a": 1},
        ("a small-0 serving",),
        ("a small-0 surplus",),
        states={"small_0": "leaving"},
        pool=replace(FULL, min_replicas=2, replicas=2, max_replicas=2),
        replicas=2,
    ),
    "what a replica that cannot be read held, too": Case(
        ("a small-1 placed",), {"a": 1}, ("a small-0 unknown routed",), states={"small_0": "unreachable"}
    ),
}
FILL = {
    "the emptiest replica": Case(
        ("a small-2 placed", "b small-0 kept", "d small-1 kept"),
        {"a": 1, "b": 1, "d": 1},
        ("b small-0 serving", "d small-1 serving"),
    ),
    "two copies in two replicas": Case(("a small-0 placed", "a small-1 placed"), {"a": 2}),
    "in two zones": Case(("a small-0 placed", "a small-2 placed"), {"a": 2}, zones=("x", "x", "y")),
    "where its requests go already": Case(("a small-2 placed",), {"a": 1}, ("a small-2 absent routed",)),
    "where no load of it failed": Case(
        ("a small-1 placed",), {"a": 1}, failures=(LoadFailure("a", "small-0", 1, NOW - 3600),)
    ),
    "not beside a copy of unknown size": Case(
        ("a small-1 placed",), {"a": 1}, ("zebra small-0 serving",), pool=replace(FULL, replicas=3)
    ),
    "a replica without the compute, for a first copy: 0.5 + 0.5 > 0.9 in each": Case(
        ("a small-0 kept", "a small-1 kept", "a small-2 kept", "b small-0 placed"),
        {"a": 3, "b": 1},
        ("a small-0 serving", "a small-1 serving", "a small-2 serving"),
        rps_a_copy=10.0,
        pinned=("a",),
    ),
}
GROW = {
    "a replica more when it fits in none: 200 > 450 - 400 MB": Case(
        ("b small+1 replica_wanted", "c small-0 kept", "c small-1 kept", "c small-2 kept"),
        {"b": 1, "c": 3},
        ("c small-0 serving", "c small-1 serving", "c small-2 serving"),
        pool=replace(FULL, max_replicas=4),
        replicas=4,
    ),
    "not for a load that failed: a new replica would not mend the model": Case(
        (),
        {"a": 1},
        pool=replace(POOL, min_replicas=3),
        failures=tuple(LoadFailure("a", f"small-{n}", 1, NOW - 10) for n in range(3)),
        holds=("model:a backoff: its load failed, next try in 50 s",),
    ),
    "never below the pool's minimum": Case((), {}, pool=replace(POOL, min_replicas=4), replicas=4),
}
ROOM = {
    "a first copy displaces another's second": Case(
        ("b small-0 placed", "c small-1 kept", "d small-2 kept"),
        {"b": 1, "c": 2, "d": 1},
        ("c small-0 serving", "c small-1 serving", "d small-2 serving"),
        surplus=("c small-0 displaced",),
        holds=(
            "model:c no_room: small-0: 400 MB > 450 - 200 MB; small-1: it holds a copy; small-2: 400 MB > 450 - 300 MB",
        ),
    ),
    "never a pinned one": Case(
        ("c small-0 kept", "c small-1 kept", "d small-2 kept"),
        {"b": 1, "c": 2, "d": 1},
        ("c small-0 serving", "c small-1 serving", "d small-2 serving"),
        pinned=("c",),
        holds=(
            "model:b no_room: small-0: 200 MB > 450 - 400 MB; small-1: 200 MB > 450 - 400 MB; "
            "small-2: 200 MB > 450 - 300 MB",
        ),
    ),
    "one of unknown demand where another can serve in its stead, which nothing then displaces": Case(
        (
            *("a small-1 kept", "a small-2 placed", "b small-1 kept", "b small-2 kept"),
            *("d small-0 placed", "e small-0 kept", "e small-2 kept"),
        ),
        {"a": 2, "b": 3, "d": 1, "e": 2},
        (
            *("a small-0 serving", "e small-0 serving", "a small-1 serving", "b small-1 serving"),
            *("b small-2 serving", "e small-2 serving"),
        ),
        surplus=("a small-0 displaced",),
        unknown=("a",),
        pinned=("e",),
        priority={"b": 1},
        rps_a_copy=1.0,
        holds=("model:b no_room: small-0: 200 MB > 450 - 400 MB; small-1: it holds a copy; small-2: it holds a copy",),
    ),
    "never one of unknown demand that fits nowhere else: nothing unloads it before another serves": Case(
        ("c small-0 kept", "c small-1 kept", "d small-2 kept"),
        {"b": 1, "c": 2, "d": 1},
        ("c small-0 serving", "c small-1 serving", "d small-2 serving"),
        unknown=("c",),
        holds=(
            "model:b no_room: small-0: 200 MB > 450 - 400 MB; small-1: 200 MB > 450 - 400 MB; "
            "small-2: 200 MB > 450 - 300 MB",
        ),
    ),
    "never the last that is there of a model with demand, whatever the priority": Case(
        ("b small-0 kept", "c small-1 kept", "d small-2 kept"),
        {"b": 1, "c": 2, "d": 1},
        ("b small-0 serving", "c small-1 serving", "d small-2 serving"),
        priority={"c": 9},
        holds=(
            "model:c no_room: small-0: 400 MB > 450 - 200 MB; small-1: it holds a copy; small-2: 400 MB > 450 - 300 MB",
        ),
    ),
    "second copies by priority: one place of 150 MB for a or e": Case(
        ("a small-0 kept", "b small-0 kept", "c small-1 kept", "d small-2 kept", "e small-0 kept", "e small-2 placed"),
        {"a": 2, "b": 1, "c": 1, "d": 1, "e": 2},
        (
            *("a small-0 serving", "b small-0 serving", "e small-0 serving"),
            *("c small-1 serving", "d small-2 serving"),
        ),
        priority={"e": 1},
        holds=(
            "model:a no_room: small-0: it holds a copy; small-1: 100 MB > 450 - 400 MB; small-2: 100 MB > 450 - 400 MB",
        ),
    ),
}
SAVE = {
    "an empty replica goes": Case(
        ("c small-0 kept", "c small-1 kept"),
        {"c": 2},
        ("c small-0 serving", "c small-1 serving"),
        leaving=("small-2 replica_spare",),
        replicas=2,
        pool=THREE,
    ),
    "one of two that fit in one: saves 50 % of the cost, moves 50 % of the copies": Case(
        ("a small-1 moved", "b small-1 kept"),
        {"a": 1, "b": 1},
        ("a small-0 serving", "b small-1 serving"),
        surplus=("a small-0 consolidated",),
        leaving=("small-2 replica_spare", "small-0 consolidated"),
        replicas=1,
        pool=THREE,
    ),
    "not one with a pinned copy": Case(
        ("a small-0 kept", "b small-0 moved"),
        {"a": 1, "b": 1},
        ("a small-0 serving", "b small-1 serving"),
        surplus=("b small-1 consolidated",),
        leaving=("small-2 replica_spare", "small-1 consolidated"),
        replicas=1,
        pool=THREE,
        pinned=("a",),
    ),
    "not while something is missing": Case(
        ("a small-0 kept", "b small-1 kept", "c small-2 placed"),
        {"a": 1, "b": 1, "c": 1},
        ("a small-0 serving", "b small-1 serving"),
        pool=THREE,
    ),
    "nor does another autoscaler's pool lose one": Case(
        ("a small-0 kept", "b small-1 kept"),
        {"a": 1, "b": 1},
        ("a small-0 serving", "b small-1 serving"),
        replicas=2,
        pool=replace(THREE, is_scaled_by_us=False),
    ),
    "beyond the maximum": Case(
        ("a small-1 kept", "b small-1 moved"),
        {"a": 1, "b": 1},
        ("b small-0 serving", "a small-1 serving"),
        surplus=("b small-0 pool_max",),
        leaving=("small-2 pool_max", "small-0 pool_max"),
        replicas=1,
        pool=replace(THREE, max_replicas=1),
    ),
    "what is placed and not there yet makes room for nothing, before a copy that is there": Case(
        ("a small-0 kept", "a small-1 kept", "b small-0 placed", "c small-2 placed"),
        {"a": 2, "b": 1, "c": 1},
        ("a small-0 serving", "a small-1 serving"),
    ),
    "an empty one beyond what is asked for goes already, and makes no other go": Case(
        ("c small-0 kept", "d small-1 kept"),
        {"c": 1, "d": 1},
        ("c small-0 serving", "d small-1 serving"),
        replicas=2,
        pool=replace(THREE, replicas=2),
    ),
    "a replica waits for the retry of a load": Case(
        (),
        {"a": 1},
        holds=("model:a backoff: its load failed, next try in 50 s",),
        pool=replace(THREE, min_replicas=0),
        failures=(LoadFailure("a", "small-0", 1, NOW - 10), LoadFailure("a", "small-1", 3, NOW)),
        states={"small_2": "unreachable"},
    ),
}
CASES = {**KEEP, **FILL, **GROW, **ROOM, **SAVE}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_placement_of_a_small_fleet(case: Case) -> None:
    found = case.place()
    assert tuple(sorted(f"{a.model} {a.replica} {a.reason.code}" for a in found.assignments)) == case.placed
    surplus = (found.surplus or {}).items()
    assert tuple(sorted(f"{m} {r} {reason.code}" for (m, r), reason in surplus)) == case.surplus
    assert tuple(f"{name} {reason.code}" for name, reason in found.leaving) == case.leaving
    assert tuple(f"{hold.subject} {hold.reason}" for hold in found.holds) == case.holds
    assert found.replicas_by_pool == {"small": case.replicas}


@pytest.mark.parametrize(("factor", "goes"), [(0.5, True), (1.0, True), (1.01, False)])
def test_a_replica_is_given_up_when_its_saving_beats_the_disruption(factor: float, goes: bool) -> None:
    """50 % of the cost is saved, 50 % of the copies move: worth it up to a factor of 1."""
    observation = Observation(NOW, fleet("a small-0 serving", "b small-1 serving", pool=THREE))
    sizings = tuple(Sizing(m, int(m in "ab"), 4.0 * (m in "ab"), {"small": 10.0}, WHY) for m in "abcde")
    leaving = [name for name, _ in place(observation, sizings, Limits(saving_factor=factor)).leaving]
    assert ("small-0" in leaving) is goes


def test_a_replica_with_another_gpu_than_its_pool_takes_no_copy() -> None:
    seen = fleet("b small-1 serving", pool=THREE)
    odd = tuple(replace(r, gpu_type="large") if r.name == "small-0" else r for r in seen.replicas)
    sizings = tuple(Sizing(m, int(m in "ab"), 4.0 * (m in "ab"), {"small": 10.0}, WHY) for m in "abcde")
    found = place(Observation(NOW, replace(seen, replicas=odd)), sizings, Limits())
    assert sorted((a.model, a.replica) for a in found.assignments) == [("a", "small-2"), ("b", "small-1")]


def test_a_replica_that_is_yet_to_come_makes_up_for_none_that_goes() -> None:
    """c takes 400 MB: more than the empty replica really has, so that one more comes; of one at least one stays."""
    seen = fleet(pool=replace(POOL, min_replicas=1, max_replicas=3, replicas=1))
    small = (replace(seen.replicas[0], memory_bytes=300 * MB),)
    sizings = tuple(Sizing(m, int(m == "c"), 4.0 * (m == "c"), {"small": 10.0}, WHY) for m in "abcde")
    placed = place(Observation(NOW, replace(seen, replicas=small)), sizings, Limits())
    assert [(a.model, a.replica) for a in placed.assignments] == [("c", "small+1")]
    assert placed.leaving == ()


def test_nothing_moves_to_a_replica_that_another_autoscaler_has_yet_to_add() -> None:
    """0.6 + 0.4 are over 0.9, and d's 300 MB need another replica, which may never come: only d waits for it."""
    pool = replace(POOL, replicas=1, max_replicas=2, is_scaled_by_us=False)
    three = fleet("a small-0 serving", "b small-0 serving", pool=pool)
    seen = replace(three, replicas=three.replicas[:1])
    rps = {"a": 12.0, "b": 8.0, "d": 4.0}
    sizings = tuple(Sizing(m, int(m in rps), rps.get(m, 0.0), {"small": 20.0}, WHY) for m in "abcde")
    placed = place(Observation(NOW, seen), sizings, Limits())
    assert {(a.model, a.replica) for a in placed.assignments} == {
        ("a", "small-0"),
        ("b", "small-0"),
        ("d", "small+1"),
    }


def test_no_replica_that_waits_for_a_retry_is_emptied() -> None:
    """Empty it would stay for the retry, so that the next replica could be emptied into it, and so on."""
    seen = fleet("a small-0 serving", "b small-1 serving", "e small-1 serving", pool=THREE)
    sizings = tuple(Sizing(m, int(m in "abe"), 2.0 * (m in "abe"), {"small": 10.0}, WHY) for m in "abcde")
    for failures, goes in ((), True), ((LoadFailure("b", "small-0", 1, NOW),), False):
        placed = place(Observation(NOW, seen, load_failures=failures), sizings, Limits(saving_factor=0.0))
        assert ("small-0" in {name for name, _ in placed.leaving}) == goes


def test_a_replica_waits_for_a_retry_although_the_copy_is_placed_at_another_models_cost() -> None:
    """What should go for it may not be able to: the replica would go, and come back as a new one for the same load."""
    only_small, both = Need(400 * MB, 50.0), Need(300 * MB, 50.0)
    weak = Model("weak", {"small": only_small}, Objective(50.0))
    strong = Model("strong", {"small": both, "large": both}, Objective(50.0))
    pools = tuple(Pool(gpu, gpu, 500 * MB, 1.0, 0, 2, n, headroom=0.1) for gpu, n in (("small", 2), ("large", 1)))
    replicas = tuple(
        Replica(f"{pool.name}-{n}", pool.name, pool.name, 500 * MB, 1.0) for pool in pools for n in range(pool.replicas)
    )
    copies = tuple(Copy("weak", f"small-{n}", CopyState.READY, is_routed=True) for n in range(2))
    seen = Observation(
        NOW, Fleet((weak, strong), pools, replicas, copies), load_failures=(LoadFailure("strong", "large-0", 1, NOW),)
    )
    wanted = {"weak": 2, "strong": 1}
    placed = place(
        seen, tuple(Sizing(m, n, 4.0 * n, {"small": 10.0, "large": 10.0}, WHY) for m, n in wanted.items()), Limits()
    )
    assert [a.replica for a in placed.assignments if a.model == "strong"] == ["small-0"]
    assert placed.leaving == ()


def test_no_replica_is_emptied_into_one_that_only_waits_for_a_retry() -> None:
    """Nothing is in small-1 but for the load of b, which failed there: it would be emptied back in the next tick."""
    seen = fleet("a small-0 serving", "c small-2 serving", pool=THREE)
    sizings = tuple(Sizing(m, int(m in "ac"), 2.0 * (m in "ac"), {"small": 10.0}, WHY) for m in "abcde")
    failures = (LoadFailure("b", "small-1", 1, NOW),)
    placed = place(Observation(NOW, seen, load_failures=failures), sizings, Limits(saving_factor=0.0))
    assert placed.leaving == ()
    assert {(a.model, a.replica) for a in placed.assignments} == {("a", "small-0"), ("c", "small-2")}
