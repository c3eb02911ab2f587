"""Which of a model's copies stays where there is one too many."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.decision import Sizing
from tasks.place import place
from tasks.plan import plan
from tasks.world import Copy, CopyState, Fleet, Limits, Model, Need, Objective, Observation, Pool, Replica
from tests.plan import POOL, WHY, fleet
from tests.worlds import NOW


def test_the_copy_in_a_busy_replica_goes() -> None:
    """a takes 14 x 50 ms = 0.7 of a replica, b 6 x 50 ms = 0.3: together 1.0 > 0.9, so that a stays where b is not."""
    rps = {"a": 14.0, "b": 6.0}
    sizings = [Sizing(m, int(m in rps), rps.get(m, 0.0), {"small": 20.0}, WHY) for m in "abcde"]
    seen = fleet("a small-0 serving", "b small-0 serving", "a small-1 serving", pool=POOL)
    placed = place(Observation(NOW, seen), sizings, Limits())
    assert {(a.model, a.replica, a.reason.code) for a in placed.assignments} == {
        ("a", "small-1", "kept"),
        ("b", "small-0", "kept"),
    }


def test_what_has_outgrown_a_replica_moves() -> None:
    """a 100 MB and b 200 MB: more than 250 MB. The larger goes where 450 MB are free; 100 MB stay."""
    seen = fleet("a small-0 serving", "b small-0 serving", pool=POOL)
    small = tuple(replace(r, memory_bytes=250_000_000) if r.name == "small-0" else r for r in seen.replicas)
    sizings = [Sizing(m, int(m in "ab"), 4.0 * (m in "ab"), {"small": 20.0}, WHY) for m in "abcde"]
    placed = place(Observation(NOW, replace(seen, replicas=small)), sizings, Limits())
    assert {(a.model, a.replica, a.reason.code) for a in placed.assignments} == {
        ("a", "small-0", "kept"),
        ("b", "small-1", "placed"),
    }


@pytest.mark.parametrize("weights", [("1.4", "0.6"), ("1", "1")])
def test_a_copy_stays_where_the_other_would_be_beyond_its_capacity_alone(weights: tuple[str, str]) -> None:
    """36 req/s, of which one copy serves 30, are 1.8 of a replica; that neither copy could take more than all of it is
    no reason to leave one with everything."""
    seen = fleet(*(f"a small-{n} serving {weight}" for n, weight in enumerate(weights)), pool=POOL)
    sizings = [Sizing(m, int(m == "a"), 36.0 * (m == "a"), {"small": 30.0}, WHY) for m in "abcde"]
    placed = place(Observation(NOW, seen), sizings, Limits())
    assert [a.replica for a in placed.assignments if a.reason.code == "kept"] == ["small-0", "small-1"]


@pytest.mark.parametrize("busy", ["small-0", "small-1"])
def test_of_copies_beyond_the_maximum_the_one_goes_whose_going_harms_least(busy: str) -> None:
    """17 req/s are too many for one copy of a wherever it is; where b is, 0.85 + 0.2 are so for the replica, too."""
    seen = fleet("a small-0 serving", "a small-1 serving", f"b {busy} serving", pool=POOL)
    one = tuple(replace(model, max_copies=1) for model in seen.models)
    rps = {"a": 17.0, "b": 4.0}
    sizings = [Sizing(m, int(m in rps), rps.get(m, 0.0), {"small": 10.0}, WHY) for m in "abcde"]
    placed = place(Observation(NOW, replace(seen, models=one)), sizings, Limits())
    assert {a.replica for a in placed.assignments if a.model == "a"} == {"small-0", "small-1"} - {busy}


def test_of_copies_beyond_the_maximum_the_one_goes_that_leaves_least_beyond_the_others_capacity() -> None:
    """15 req/s over copies that serve 6: 7.5 and 7.5 are 3 beyond it, 2.5 and 12.5 would be 6.5 in one copy."""
    seen = fleet("a small-0 serving 0.2", "a small-1 serving", "a small-2 serving", pool=POOL)
    two = replace(seen, models=tuple(replace(model, max_copies=2) for model in seen.models), splits_by_weight=True)
    sizings = [Sizing(m, 2 * (m == "a"), 15.0 * (m == "a"), {"small": 6.0}, WHY) for m in "abcde"]
    placed = place(Observation(NOW, two), sizings, Limits())
    assert [a.replica for a in placed.assignments if a.model == "a"] == ["small-1", "small-2"]


def test_surplus_copies_go_in_the_order_in_which_they_were_given_up() -> None:
    """The emptiest replica's first, whatever its name: where the budget ends after one, the next tick goes on."""
    carried = ("a c", "a b", "a")
    there = [f"{m} small-{n} serving" for n, models in enumerate(carried) for m in models.split()]
    seen = fleet(*there, pool=replace(POOL, min_replicas=3))
    copies = {"a": 1, "b": 1, "c": 1}
    sizings = [Sizing(m, copies.get(m, 0), 1.0 * (m in copies), {"small": 20.0}, WHY) for m in "abcde"]
    placed = place(Observation(NOW, seen), sizings, Limits())
    assert list(placed.surplus or {}) == [("a", "small-2"), ("a", "small-1")]
    first = plan(Observation(NOW, seen), placed, sizings, Limits(budget=1))
    assert [str(step) for step in first.steps] == ["unroute a small-2", "drain a small-2", "unload a small-2"]


def test_copies_in_several_busy_replicas_go_together_where_none_can_go_alone() -> None:
    """b takes 17 x 50 ms = 0.85 of two replicas. a's 0.2 in three copies bring them to 0.917 > 0.9, and without the one
    of them to 0.95 in the other; without both a is alone where it is."""
    seen = fleet(*(f"a small-{n} serving" for n in range(3)), "b small-0 serving", "b small-1 serving", pool=POOL)
    copies, rps = {"a": 1, "b": 2}, {"a": 4.0, "b": 34.0}
    sizings = [Sizing(m, copies.get(m, 0), rps.get(m, 0.0), {"small": 20.0}, WHY) for m in "abcde"]
    placed = place(Observation(NOW, seen), sizings, Limits())
    assert {(a.model, a.replica, a.reason.code) for a in placed.assignments} == {
        ("a", "small-2", "kept"),
        ("b", "small-0", "kept"),
        ("b", "small-1", "kept"),
    }


def test_a_copy_beyond_its_capacity_goes_rather_than_one_in_a_busy_replica() -> None:
    """One of two copies of each must go. 5 req/s are more than a can serve on a t4; b takes all of a replica, and more:
    with a where b is, and b where it is alone, nothing has to be loaded."""
    need = {"t4": Need(10**9, 50.0), "a10": Need(10**9, 50.0)}
    pools = tuple(Pool(gpu, gpu, 10 * 10**9, 1.0, n, n, n) for gpu, n in (("t4", 1), ("a10", 2)))
    replicas = tuple(
        Replica(f"{p.name}-{n}", p.name, p.gpu_type, 10**10, 1.0) for p in pools for n in range(p.replicas)
    )
    where = (("a", "t4-0"), ("a", "a10-0"), ("b", "a10-0"), ("b", "a10-1"))
    copies = tuple(Copy(model, replica, CopyState.READY, is_routed=True) for model, replica in where)
    models = tuple(Model(name, need, Objective(50.0), max_copies=1) for name in "ab")
    capacity = {"t4": 4.0, "a10": 30.0}
    sizings = [Sizing(m, 1, rps, capacity, WHY) for m, rps in (("a", 5.0), ("b", 60.0))]
    placed = place(Observation(NOW, Fleet(models, pools, replicas, copies)), sizings, Limits())
    assert {(a.model, a.replica, a.reason.code) for a in placed.assignments} == {
        ("a", "a10-0", "kept"),
        ("b", "a10-1", "kept"),
    }


def test_a_busy_replica_is_relieved_by_a_copy_that_is_there_rather_than_by_a_load() -> None:
    """One copy of a takes all of a replica, and e 0.1 of small-0. Of a's two small-1's is given up, since b is there,
    too; then b's there goes as well: a is served from small-1, and e need not be loaded there."""
    there = ("a small-0", "e small-0", "a small-1", "b small-1", "b small-2", "d small-2")
    seen = fleet(*(f"{copy} serving" for copy in there), pool=replace(POOL, min_replicas=3))
    one = replace(seen, models=tuple(replace(model, max_copies=1) for model in seen.models))
    rps = {"a": 30.0, "b": 4.0, "d": 0.0, "e": 2.0}
    sizings = [Sizing(m, int(m in rps), rps.get(m, 0.0), {"small": 10.0}, WHY) for m in "abcde"]
    placed = place(Observation(NOW, one), sizings, Limits())
    assert {(a.model, a.replica, a.reason.code) for a in placed.assignments} == {
        ("a", "small-1", "kept"),
        ("b", "small-2", "kept"),
        ("d", "small-2", "kept"),
        ("e", "small-0", "kept"),
    }


def test_a_copy_may_go_once_another_models_has_made_room_for_that() -> None:
    """a takes 14 x 50 ms = 0.7 of a replica, b 0.6, c 0.3: a alone has no room beside c in small-0, nor beside half of
    b in small-1. That half may go, since small-2 takes all of b; then a's copy beside c may."""
    there = ("a small-0 serving", "c small-0 serving", "a small-1 serving", "b small-1 serving", "b small-2 serving")
    rps = {"a": 14.0, "b": 12.0, "c": 6.0}
    sizings = [Sizing(m, int(m in rps), rps.get(m, 0.0), {"small": 20.0}, WHY) for m in "abcde"]
    placed = place(Observation(NOW, fleet(*there, pool=POOL)), sizings, Limits())
    assert list(placed.surplus or {}) == [("b", "small-1"), ("a", "small-0")]
