"""Copies that cannot wait for a new replica. Replicas have one device, of which a tenth is kept free; a ``quiet`` model
takes 0.85 of it, a copy of ``crowd`` 0.1 for 10 req/s."""

from __future__ import annotations

import pytest

from tasks.decision import Placement, Sizing
from tasks.place import place
from tasks.world import Copy, CopyState, Fleet, Limits, Model, Need, Objective, Observation, Pool, Replica
from tests.place.checker import broken
from tests.plan import WHY
from tests.worlds import NOW

GB = 10**9


def placed(there: int, wanted: int, replicas: int = 4, budget: int = 8, most: int = 8, cold: int = 0) -> Placement:
    """Each replica holds a quiet model of its own, the first ``there`` a copy of the crowd's, too. ``cold``: copies
    that are wanted of one more model, which takes as much as one of the crowd's and has a lower priority."""
    need = {"x": Need(GB, 10.0)}
    names = [f"quiet{n}" for n in range(replicas)]
    models = tuple(Model(name, need, Objective(50.0), priority=name == "crowd") for name in [*names, "cold", "crowd"])
    pool = Pool("p", "x", 10 * GB, 1.0, 0, most, replicas)
    copies = [Copy(name, f"p-{n}", CopyState.READY, is_routed=True) for n, name in enumerate(names)]
    copies += [Copy("crowd", f"p-{n}", CopyState.READY, is_routed=True) for n in range(there)]
    fleet = Fleet(
        models, (pool,), tuple(Replica(f"p-{n}", "p", "x", 10 * GB, 1.0) for n in range(replicas)), tuple(copies)
    )
    sizings = tuple(Sizing(name, 1, 85.0, {"x": 85.0}, WHY) for name in names)
    sizings += (Sizing("cold", cold, 10.0 * cold, {"x": 10.0}, WHY),)
    sizings += (Sizing("crowd", wanted, 10.0 * wanted, {"x": 10.0}, WHY),)
    seen = Observation(NOW, fleet)
    answer = place(seen, sizings, Limits(budget=budget))
    assert broken(seen, sizings, answer) == []
    return answer


@pytest.mark.parametrize(
    ("name", "there", "wanted", "budget", "at_once"),
    [
        ("1 of 4: one more makes half of them", 1, 4, 8, 1),
        ("none of 4: two", 0, 4, 8, 2),
        ("none of 4, one load a tick: one", 0, 4, 2, 1),
        ("2 of 4 are half: the others wait for a new replica", 2, 4, 8, 0),
        ("the only one", 0, 1, 8, 1),
    ],
)
def test_up_to_half_of_the_copies_go_into_the_headroom(
    name: str, there: int, wanted: int, budget: int, at_once: int
) -> None:
    answer = placed(there, wanted, budget=budget)
    mine = [a for a in answer.assignments if a.model == "crowd" and a.reason.code != "kept"]
    assert sum("at once, into the headroom" in a.reason.text for a in mine) == at_once
    assert sum("+" not in a.replica for a in mine) == at_once


@pytest.mark.parametrize(("loads", "hurried"), [(1, ["cold"]), (4, ["cold", "crowd", "crowd", "crowd"])])
def test_a_first_copy_comes_first_the_others_by_priority(loads: int, hurried: list[str]) -> None:
    """The crowd has one of eight copies, and the higher priority; the other model none of eight."""
    answer = placed(there=1, wanted=8, replicas=5, budget=2 * loads, most=5, cold=8)
    found = [a.model for a in answer.assignments if "at once, into the headroom" in a.reason.text]
    assert sorted(found) == hurried


def test_what_makes_room_for_them_leaves_not_they() -> None:
    """0.85 and 0.1 are 0.05 over the target of 0.9, more than noise: the quiet model goes to a new replica."""
    answer = placed(there=0, wanted=1, replicas=1)
    assert {(a.model, a.replica) for a in answer.assignments} == {("crowd", "p-0"), ("quiet0", "p+1")}


def test_where_there_can_be_no_new_replica_the_headroom_serves() -> None:
    answer = placed(there=0, wanted=2, replicas=2, most=2)
    assert sorted(a.replica for a in answer.assignments if a.model == "crowd") == ["p-0"]
