"""Copies that get more than they can serve on their GPU type. Slow replicas serve 10 req/s of a model within its
objective and cost 1 an hour, fast ones 40 and 5; requests are split evenly; compute is plenty; the budget leaves
nothing for exchanges."""

from __future__ import annotations

import pytest

from tasks.decision import Placement, Sizing
from tasks.place import place
from tasks.place.changes import Changes
from tasks.place.keep import keep
from tasks.place.level import level
from tasks.place.read import read
from tasks.place.table import Table
from tasks.world import Copy, CopyState, Fleet, Limits, Model, Need, Objective, Observation, Pool, Replica
from tests.place.checker import broken
from tests.plan import WHY
from tests.worlds import NOW

GB = 10**9
CAPACITY_RPS = {"slow": 10.0, "fast": 40.0}


def placed(layout: str, rps: float, most: tuple[int, int], max_copies: int = 8, pinned: str = "") -> Placement:
    """``layout``: GPU types of the replicas, with a + where a copy of the model is; ``most``: slow, fast ones."""
    needs = {gpu: Need(GB, 1.0, compute_ms=0.01) for gpu in CAPACITY_RPS}
    model = Model("m", needs, Objective(50.0), max_copies=max_copies, is_pinned=bool(pinned))
    names = layout.split()
    replicas = tuple(
        Replica(f"{n.strip('+')}-{i}", n.strip("+"), n.strip("+"), 9 * GB, 1.0) for i, n in enumerate(names)
    )
    copies = tuple(
        Copy("m", replica.name, CopyState.READY, is_routed=True)
        for replica, name in zip(replicas, names, strict=True)
        if name.endswith("+")
    )
    pools = tuple(
        Pool(gpu, gpu, 9 * GB, 1.0, sum(r.pool == gpu for r in replicas), count,
             sum(r.pool == gpu for r in replicas), cost_per_hour=cost)
        for gpu, count, cost in (("slow", most[0], 1.0), ("fast", most[1], 5.0))
    )  # fmt: skip
    seen = Observation(NOW, Fleet((model,), pools, replicas, copies))
    sizings = (Sizing("m", 1, rps, CAPACITY_RPS, WHY),)
    answer = place(seen, sizings, Limits(budget=1))
    assert broken(seen, sizings, answer) == []
    return answer


@pytest.mark.parametrize(
    ("name", "layout", "rps", "most", "wanted"),
    [
        ("within its capacity: it stays", "slow+ fast", 10.0, (1, 1), ["slow-0"]),
        ("over it by 4 %, which is noise: it stays", "slow+ fast", 10.4, (1, 1), ["slow-0"]),
        ("twice its capacity: two slow ones or a fast one, one load each: one more", "slow+ fast slow", 20.0, (2, 1),
         ["fast-1", "slow-0"]),
        ("30 / 10: two more slow ones or one move to the fast one", "slow+ slow fast slow", 30.0, (3, 1), ["fast-2"]),
        ("no fast one: two more slow ones", "slow+ slow slow", 30.0, (3, 0), ["slow-0", "slow-1", "slow-2"]),
        ("no replica has room: a slow one for 1 an hour, not a fast one for 5", "slow+", 20.0, (2, 1),
         ["slow+1", "slow-0"]),
        ("a fast one is all that there can be: 10 for each", "slow+", 20.0, (1, 1), ["fast+1", "slow-0"]),
        ("nowhere to go: a slow copy beats none", "slow+", 20.0, (1, 0), ["slow-0"]),
        ("a new model goes where it can be served", "slow fast", 30.0, (1, 1), ["fast-1"]),
        ("a new model of 30 req/s on slow ones only: three smaller copies", "slow slow slow", 30.0, (3, 0),
         ["slow-0", "slow-1", "slow-2"]),
        ("more than any can serve: the fastest", "slow fast", 90.0, (1, 1), ["fast-1"]),
    ],
)  # fmt: skip
def test_a_copy_gets_no_more_than_it_can_serve_where_it_is(
    name: str, layout: str, rps: float, most: tuple[int, int], wanted: list[str]
) -> None:
    assert sorted(a.replica for a in placed(layout, rps, most).assignments) == wanted


def test_a_pinned_copy_stays_and_another_one_comes() -> None:
    answer = placed("slow+ fast", 20.0, (1, 1), pinned="m")
    assert sorted(a.replica for a in answer.assignments) == ["fast-1", "slow-0"]


def test_a_pinned_copy_that_gets_too_much_gets_help_from_what_is_there_before_a_replica_is_added() -> None:
    """15 each are too many for the slow one and not for the fast one, which is there already."""
    answer = placed("slow+ fast", 30.0, (1, 2), pinned="m")
    assert sorted(a.replica for a in answer.assignments) == ["fast-1", "slow-0"]
    assert answer.replicas_by_pool == {"slow": 1, "fast": 1}


def test_the_policy_allows_no_second_copy_so_it_moves() -> None:
    answer = placed("slow+ slow fast", 20.0, (2, 1), max_copies=1)
    assert [a.replica for a in answer.assignments] == ["fast-2"]
    assert "20.0 req/s a copy > 10.0 within the objective on slow" in answer.assignments[0].reason.text


def test_no_copy_waits_for_a_replica_of_another_autoscaler_while_a_slow_one_could_serve() -> None:
    """``a`` gets 5 req/s and could serve 4 in the only replica with room, 10 in the small one that ``b`` asks for. It
    went there, so that the large one was spare and given up, came back for the second ``c``, and so on."""
    one = {gpu: Need(GB, 1.0, compute_ms=5.0) for gpu in ("small", "large")}
    models = (
        Model("a", one, Objective(50.0), max_copies=1, priority=1),
        Model("b", {"small": one["small"]}, Objective(50.0)),
        Model("c", {"large": Need(GB, 1.0, compute_ms=100.0)}, Objective(50.0), max_copies=2),
    )
    pools = (
        Pool("small", "small", 9 * GB, 1.0, 0, 1, 0, is_scaled_by_us=False),
        Pool("large", "large", 9 * GB, 1.0, 0, 2, 2, headroom=0.0),
    )
    replicas = tuple(Replica(f"large-{i}", "large", "large", 9 * GB, 1.0) for i in range(2))
    seen = Observation(NOW, Fleet(models, pools, replicas, (Copy("c", "large-0", CopyState.READY, is_routed=True),)))
    sizings = (
        Sizing("a", 1, 5.0, {"small": 10.0, "large": 4.0}, WHY),
        Sizing("b", 1, 1.0, {"small": 10.0}, WHY),
        Sizing("c", 2, 20.0, {"large": 10.0}, WHY),
    )
    answer = place(seen, sizings, Limits())
    assert {(a.model, a.replica) for a in answer.assignments} == {
        ("a", "large-1"), ("b", "small+1"), ("c", "large-0"),
    }  # fmt: skip
    assert answer.leaving == ()


def test_one_of_two_slow_copies_moves_to_the_fast_replica_there_is_before_one_is_added() -> None:
    """30 req/s each, of which a slow one serves 10 and a fast one 40; no third copy is allowed."""
    answer = placed("slow+ slow+ fast", 60.0, (2, 2), max_copies=2)
    assert sorted(a.replica for a in answer.assignments) == ["fast-2", "slow-1"]


def test_what_a_move_leaves_empty_takes_what_a_new_replica_was_to_hold() -> None:
    """m at 7.5 req/s a copy is too much for the slow replica, which it fills, so that n would need another one; m moves
    to the fast one that was asked for already."""
    needs = {gpu: Need(GB, 200.0) for gpu in CAPACITY_RPS}
    models = (Model("m", needs, Objective(50.0), max_copies=2), Model("n", {"slow": Need(GB, 1.0)}, Objective(50.0)))
    pools = tuple(Pool(gpu, gpu, 9 * GB, 1.0, 0, 2, asked, headroom=0.0) for gpu, asked in (("slow", 1), ("fast", 2)))
    replicas = tuple(Replica(f"{pool.name}-0", pool.name, pool.name, 9 * GB, 1.0) for pool in pools)
    copies = tuple(Copy("m", replica.name, CopyState.READY, is_routed=True) for replica in replicas)
    seen = Observation(NOW, Fleet(models, pools, replicas, copies))
    sizings = (Sizing("m", 2, 15.0, {"slow": 4.0, "fast": 10.0}, WHY), Sizing("n", 1, 1.0, CAPACITY_RPS, WHY))
    answer = place(seen, sizings, Limits(saving_factor=0.0))
    assert {(a.model, a.replica) for a in answer.assignments} == {("m", "fast-0"), ("m", "fast+1"), ("n", "slow-0")}
    assert (answer.leaving, answer.replicas_by_pool) == ((), {"slow": 1, "fast": 2})


def test_what_exchanges_for_another_model_have_mended_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """m and n have 20 req/s for a copy that serves 10; what makes room for m gives n a second copy."""
    needs = {gpu: Need(GB, 1.0, compute_ms=0.01) for gpu in CAPACITY_RPS}
    pools = tuple(Pool(gpu, gpu, 9 * GB, 1.0, 0, count, count) for gpu, count in (("slow", 2), ("fast", 0)))
    replicas = tuple(Replica(f"slow-{n}", "slow", "slow", memory, 1.0) for n, memory in enumerate((9 * GB, GB // 2)))
    copies = tuple(Copy(name, "slow-0", CopyState.READY, is_routed=True) for name in "mn")
    models = tuple(Model(name, needs, Objective(50.0), max_copies=2) for name in "mn")
    sizings = tuple(Sizing(name, 1, 20.0, CAPACITY_RPS, WHY) for name in "mn")
    table = Table(read(Observation(NOW, Fleet(models, pools, replicas, copies)), sizings, Limits()))
    keep(table)
    asked = []

    def give_n_another(table: Table, _changes: Changes, model: int) -> bool:
        asked.append(model)
        table.add(1, 1)
        return True

    monkeypatch.setattr("tasks.place.level.make_room", give_n_another)
    level(table, Changes())
    assert asked == [0]
    assert table.replicas_of == [[0], [0, 1]]
