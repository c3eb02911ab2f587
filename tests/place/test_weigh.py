"""Shares of requests: what moves, how far, and what needs a load all the same.

Replicas of 500 MB and 1 device-second a second, 10 % of both stay free; a request takes 50 ms. So 18 req/s, of whatever
models, fill a replica to its target; up to 18.9 are noise, and up to 17.1 shares fill it. A copy serves 40 req/s unless
said otherwise, 24 of them by shares. Models a to e take 100, 200, 400, 300 and 100 MB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from tasks.decision import Placement, Sizing
from tasks.place import place
from tasks.place.changes import Changes
from tasks.place.read import read
from tasks.place.shares import Shares
from tasks.place.table import Table
from tasks.place.weigh import weigh
from tasks.plan import plan
from tasks.world import Copy, CopyState, Limits, Observation
from tests.benchmarks.bench_placement import World as Bench
from tests.benchmarks.bench_placement import cost, instance, sizings
from tests.plan import MODELS, POOL, WHY, fleet
from tests.worlds import NOW


@dataclass(frozen=True)
class World:
    """``a b/a=1.5/``: a and b in the first replica, a with the weight 1.5 in the second, nothing in the third. As many
    copies are wanted as there are, one of a model that has none."""

    layout: str
    rps: dict[str, float | None]
    capacity_rps: float = 40.0
    splits_by_weight: bool = True
    least_replicas: int = 3

    def seen(self) -> Observation:
        words = [[*word.split("="), str(n)] for n, row in enumerate(self.layout.split("/")) for word in row.split()]
        copies = [f"{m} small-{n} serving {weight[0] if weight else 1}" for m, *weight, n in words]
        pool = replace(POOL, min_replicas=self.least_replicas)
        return Observation(NOW, replace(fleet(*copies, pool=pool), splits_by_weight=self.splits_by_weight))

    def sizings(self) -> tuple[Sizing, ...]:
        copies = {m: max(self.layout.count(m), int(m in self.rps)) for m in (model.name for model in MODELS)}
        capacity = {"small": self.capacity_rps}
        return tuple(Sizing(m, count, self.rps.get(m, 0.0), capacity, WHY) for m, count in copies.items())

    def table(self) -> Table:
        table = Table(read(self.seen(), self.sizings(), Limits()))
        there = table.problem.there
        table.keep(there.model, there.replica, there.weight)
        return table

    def weighed(self) -> tuple[Table, Changes]:
        table, changes = self.table(), Changes()
        weigh(Shares(table), changes)
        return table, changes

    def place(self) -> Placement:
        return place(self.seen(), self.sizings(), Limits())


def rates(table: Table, model: str) -> list[float]:
    """Requests a second that each copy gets, in the order of the replicas."""
    number = table.problem.wants.names.index(model)
    return [round(rate, 2) for rate in table.rate_rps(number, sorted(table.replicas_of[number])).tolist()]


SHIFTED = {
    "7 + 14 are 3 over 18: where 7 are, there is room": (World("a b/a/", {"a": 14.0, "b": 14.0}), {"a": [4.0, 10.0]}),
    "to each in proportion to its room, 6 and 3": (
        World("a b/a e/a c", {"a": 21.0, "b": 14.0, "e": 4.1, "c": 7.1}),
        {"a": [4.0, 9.0, 8.0]},
    ),
    "up to 0.6 of what a copy can serve: 9": (
        World("a b/a/", {"a": 14.0, "b": 14.0}, capacity_rps=15.0),
        {"a": [5.0, 9.0]},
    ),
    "a tenth of its mean stays: 0.7 of 7": (World("a b/a/", {"a": 14.0, "b": 17.5}), {"a": [0.7, 13.3]}),
    "4.5 + 12 + 5 are 3.5 over: 2 of the larger one, for which there is room, then 1.5 of the other": (
        World("a b e/a/b d", {"a": 9.0, "b": 24.0, "e": 5.0, "d": 3.1}),
        {"a": [3.0, 6.0], "b": [10.0, 14.0]},
    ),
    "a full replica hands on 3 of c to take 2.1 of a": (
        World("a b/a c/c", {"a": 14.0, "b": 14.0, "c": 22.0}),
        {"a": [4.9, 9.1], "c": [8.0, 14.0]},
    ),
    "from the weights that there are: 4 and 10, now 3 more over": (
        World("a=0.571 b/a=1.429/", {"a": 14.0, "b": 17.0}),
        {"a": [1.0, 13.0]},
    ),
    "equal again: 7 + 8 and 7, at most 17.1": (World("a=0.571 b/a=1.429/", {"a": 14.0, "b": 8.0}), {"a": [7.0, 7.0]}),
}
LEFT = {
    "18.6 is noise": World("a b/a/", {"a": 14.0, "b": 11.6}),
    "no room elsewhere": World("a b/a c/", {"a": 14.0, "b": 14.0, "c": 11.0}),
    "a model of one copy has nowhere to go": World("a b/e/", {"a": 14.0, "b": 14.0, "e": 1.0}),
    "a tenth of its mean is there already: that c is elsewhere would not help": World(
        "a=0.1 b e/a=1.9 c/c", {"a": 8.0, "b": 12.0, "c": 20.0, "e": 8.0}
    ),
    "unknown demand": World("a b/a/", {"a": None, "b": 10.0}),
    "equal shares would fit, but with less room than noise: 7 + 10.5 > 17.1": World(
        "a=0.571 b/a=1.429/", {"a": 14.0, "b": 10.5}
    ),
    "a gateway that splits evenly": World("a b/a/", {"a": 14.0, "b": 14.0}, splits_by_weight=False),
}


@pytest.mark.parametrize(("world", "expected"), SHIFTED.values(), ids=SHIFTED)
def test_shares_move_to_where_there_is_room(world: World, expected: dict[str, list[float]]) -> None:
    table, changes = world.weighed()
    assert {model: rates(table, model) for model in expected} == expected
    assert {table.problem.wants.names[model] for model in changes.weighed} == set(expected)


@pytest.mark.parametrize("world", LEFT.values(), ids=LEFT)
def test_what_cannot_move_or_need_not_stays(world: World) -> None:
    table, changes = world.weighed()
    before = {(c.model, c.replica): c.weight for c in world.seen().fleet.copies}
    assert changes.weighed == {}
    for (model, replica), weight in before.items():
        copy = table.problem.wants.names.index(model), table.problem.spots.names.index(replica)
        assert table.weight(*copy) == pytest.approx(weight, abs=0.001)


def test_running_sums_are_those_of_the_rates_whatever_is_done_and_undone() -> None:
    world = World("a=0.4 b/a=1.2 e/a=1.4", {"a": 12.0, "b": 9.0, "e": 4.0})
    table = world.table()

    def asked() -> list[float]:
        pairs = [(model, spot) for spot, models in enumerate(table.models_in) for model in models]
        rate = [table.rate_rps(model, [spot])[0] for model, spot in pairs]
        found = np.bincount([spot for _, spot in pairs], rate, len(table.models_in)) * 0.05
        return list((table.problem.spots.room_compute - found).round(9))

    def state() -> tuple[object, ...]:
        lists = [list(those) for those in (*table.replicas_of, *table.models_in)]
        sums = (table.free_compute, table.free_bytes, table.going_bytes, table.counts)
        weights = {model: its.tolist() for model, its in table.weights.items()}
        return lists, weights, {m: set(at) for m, at in table.going_of.items()}, [a.tolist() for a in sums]

    before, mark = state(), table.mark()
    assert table.free_compute.round(9).tolist() == asked()
    # 0.4 and 1.4 are left, 0.9 on average, and a third is to come, which then weighs 1
    table.remove(0, 1)
    assert rates(table, "a") == [round(12 / 3 * w / 0.9, 2) for w in (0.4, 1.4)]
    assert table.free_compute.round(9).tolist() == asked()
    table.add(0, 1)
    assert rates(table, "a") == [round(12 / 3 * w, 2) for w in (0.4 / 0.9, 1.0, 1.4 / 0.9)]
    table.weigh(0, None)
    assert rates(table, "a") == [4.0, 4.0, 4.0]
    assert table.free_compute.round(9).tolist() == asked()
    table.undo(mark)
    assert rates(table, "a") == [1.6, 4.8, 5.6]
    assert state() == before, "to the last bit, in the same order"


def outcome(world: World) -> tuple[dict[str, float], list[str]]:
    """Weights that are not 1; the steps of the plan."""
    seen, sizings, placed = world.seen(), world.sizings(), world.place()
    weights = {f"{a.model} {a.replica}": a.weight for a in placed.assignments if a.weight != 1.0}
    return weights, [str(step) for step in plan(seen, placed, sizings, Limits()).steps]


def test_drift_is_met_by_shares_before_loads() -> None:
    """7 + 14 are over 18: 3 of a go where 7 are, 4 / 7 and 10 / 7; a gateway that splits evenly takes a load."""
    drifted = World("a b/a/", {"a": 14.0, "b": 14.0})
    assert outcome(drifted) == (
        {"a small-0": 0.571, "a small-1": 1.429},
        ["weigh a: small-0 0.571, small-1 1.429"],
    )
    weights, steps = outcome(replace(drifted, splits_by_weight=False))
    assert weights == {}
    assert any(step.startswith("load") for step in steps)


def test_the_next_tick_finds_nothing_to_do() -> None:
    """What was rounded on its way to the gateway is not weighed again, also when demand trembles by 4 %."""
    for tremble in (0.96, 1.0, 1.04):
        after = World("a=0.571 b/a=1.429/", {"a": 14.0 * tremble, "b": 14.0 * tremble})
        assert outcome(after)[1] == []


def test_one_more_copy_fits_by_other_shares() -> None:
    """Only where a and b are is there the memory for e, and 6 + 6 + 8 are 2 over. So 2 of a go where 6 + 9 are: no
    replica is added, nothing else is loaded."""
    full = World("a b/a c/c", {"a": 12.0, "b": 6.0, "c": 18.0, "e": 8.0})
    weights, steps = outcome(full)
    assert weights == {"a small-0": 0.667, "a small-1": 1.333}
    assert steps == ["load e small-0", "route e small-0", "weigh a: small-0 0.667, small-1 1.333"]


def test_a_replica_goes_by_other_shares() -> None:
    """Only where a and b are is there the memory for e, and 6 + 6 + 6.3 are over 18; some of a go where 6 + 5 are."""
    world = World("a b/a c/e", {"a": 12.0, "b": 6.0, "c": 5.0, "e": 6.3}, least_replicas=1)
    placed = world.place()
    assert [(name, reason.code) for name, reason in placed.leaving] == [("small-2", "consolidated")]
    even = replace(world, splits_by_weight=False).place()
    assert even.leaving == ()


def test_a_slow_copy_gets_what_it_can_serve() -> None:
    """24 req/s over copies that serve 10 and 30: 12 each is over 10 by more than noise; 10 and 14, no load."""
    seen = World("a/a/", {}).seen()
    small, large, _ = seen.fleet.replicas
    pools = (replace(POOL, replicas=1), replace(POOL, name="large", gpu_type="large", replicas=1))
    mixed = replace(
        seen.fleet,
        pools=pools,
        replicas=(small, replace(large, name="large-0", pool="large", gpu_type="large")),
        copies=tuple(Copy("a", name, CopyState.READY, is_routed=True) for name in ("small-0", "large-0")),
    )
    sizing = Sizing("a", 2, 24.0, {"small": 10.0, "large": 30.0}, WHY)
    for splits_by_weight, weights in ((True, {"small-0": 0.833, "large-0": 1.167}), (False, {})):
        observation = replace(seen, fleet=replace(mixed, splits_by_weight=splits_by_weight))
        placed = place(observation, (sizing,), Limits())
        assert {a.replica: a.weight for a in placed.assignments if a.weight != 1.0} == weights
        assert (len(placed.assignments) == 2) == splits_by_weight


def test_the_room_that_a_load_leaves_takes_shares_before_another_load() -> None:
    """4 + 10 + 10 are 6 over 18, and 4 + 16 are 2 over: b goes, which leaves room for 4, and 2 of a's 4 go there."""
    placed = World("a b e/a d/", {"a": 8.0, "b": 10.0, "d": 16.0, "e": 10.0}).place()
    loads = [(a.model, a.replica) for a in placed.assignments if a.reason.code != "kept"]
    assert loads == [("b", "small-2")]
    assert {a.replica: a.weight for a in placed.assignments if a.model == "a"} == {"small-0": 1.5, "small-1": 0.5}


def test_from_scratch_hot_models_get_smaller_copies_that_cost_hardly_more() -> None:
    pools, models, share = instance(200, 40)
    sized = sizings(pools, models, share * 4_000.0)
    even, weighed = (
        place(Bench(pools, models, splits_by_weight).seen(), sized, Limits()) for splits_by_weight in (False, True)
    )
    assert len(weighed.assignments) > len(even.assignments)
    assert cost(pools, weighed) <= cost(pools, even) * 1.02
