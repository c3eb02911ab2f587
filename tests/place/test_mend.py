"""Exchanges: what no single move can do. Replicas of 10 GB and one device; copies of 1 GB unless said otherwise; the
shares of compute are what one copy takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from tasks.decision import Placement, Sizing
from tasks.place import place
from tasks.place.mend import excess, mend
from tasks.place.read import read
from tasks.place.table import Table
from tasks.world import (
    Copy,
    CopyState,
    Fleet,
    Limits,
    Model,
    Need,
    Objective,
    Observation,
    Pool,
    Replica,
)
from tests.place.checker import broken
from tests.plan import WHY
from tests.worlds import NOW

GB = 10**9


@dataclass(frozen=True)
class World:
    """Which copies are where, ``"a b/c/"``: a and b in the first of three replicas, c in the second."""

    layout: str
    share: Mapping[str, float]
    """Of a replica's compute, that all of the model's requests take."""
    copies: Mapping[str, int] = field(default_factory=dict)
    """Wanted; 1 where not said."""
    gigabytes: Mapping[str, int] = field(default_factory=dict)
    pinned: str = ""
    most_replicas: int = 3

    def sizings(self) -> tuple[Sizing, ...]:
        return tuple(
            Sizing(m, self.copies.get(m, 1), 100 * share, {"x": 100.0}, WHY) for m, share in sorted(self.share.items())
        )

    def seen(self) -> Observation:
        models = tuple(
            Model(m, {"x": Need(self.gigabytes.get(m, 1) * GB, 10.0)}, Objective(50.0), is_pinned=m in self.pinned)
            for m in sorted(self.share)
        )
        rows = self.layout.split("/")
        pool = Pool("p", "x", 10 * GB, 1.0, 0, self.most_replicas, len(rows), headroom=0.0)
        replicas = tuple(Replica(f"p-{n}", "p", "x", 10 * GB, 1.0) for n in range(len(rows)))
        copies = tuple(
            Copy(m, f"p-{n}", CopyState.READY, is_routed=True) for n, row in enumerate(rows) for m in row.split()
        )
        return Observation(NOW, Fleet(models, (pool,), replicas, copies))

    def table(self) -> Table:
        table = Table(read(self.seen(), self.sizings(), Limits()))
        there = table.problem.there
        table.keep(there.model, there.replica, there.weight)
        return table

    def place(self, saving_factor: float = 0.5) -> Placement:
        placed = place(self.seen(), self.sizings(), Limits(saving_factor=saving_factor))
        assert broken(self.seen(), self.sizings(), placed) == []
        return placed


def layout(table: Table) -> str:
    names = table.problem.wants.names
    return "/".join(" ".join(sorted(names[m] for m in models)) for models in table.models_in[:3])


MENDED = {
    "one moves: 0.6 + 0.5 > 1, 0.5 + 0.45": (World("a b/c/d", {"a": 0.6, "b": 0.5, "c": 0.45, "d": 0.9}), "a/b c/d", 1),
    "two change places: 0.7 + 0.5 > 1, 0.5 + 0.45 and 0.7 + 0.3": (
        World("a b/c d/e", {"a": 0.7, "b": 0.5, "c": 0.3, "d": 0.45, "e": 1.0}),
        "b d/a c/e",
        2,
    ),
    "one copy more: 1.2 of a as 3 x 0.4 instead of 2 x 0.6": (
        World("a b/a c/d", {"a": 1.2, "b": 0.5, "c": 0.4, "d": 0.6}, copies={"a": 2}),
        "a b/a c/a d",
        1,
    ),
    "nothing to mend": (World("a/b/c", {"a": 1.0, "b": 1.0, "c": 1.0}), "a/b/c", 0),
}
NOT_MENDED = {
    "3.1 in 3 replicas": World("a b/c/d", {"a": 0.6, "b": 0.5, "c": 1.0, "d": 1.0}),
    "7 GB beside 4 GB do not fit in 10": World(
        "a b/c/d", {"a": 0.6, "b": 0.5, "c": 0.4, "d": 1.0}, gigabytes={"a": 4, "b": 4, "c": 7}
    ),
    "pinned ones stay": World("a b/c/d", {"a": 0.6, "b": 0.5, "c": 0.4, "d": 1.0}, pinned="ab"),
    "a model that needs one copy keeps one: not 0.3 + 0.6, 0.3 + 0.7": World(
        "a b/c/d", {"a": 0.6, "b": 0.6, "c": 0.7, "d": 0.7}
    ),
}


@pytest.mark.parametrize(("world", "after", "moves"), MENDED.values(), ids=MENDED)
def test_a_replica_over_its_target_is_mended(world: World, after: str, moves: int) -> None:
    table = world.table()
    found = mend(table, 4)
    assert found is not None
    assert layout(table) == after
    assert len(found) == moves
    assert excess(table)[:3].max() <= 1e-9


@pytest.mark.parametrize("world", NOT_MENDED.values(), ids=NOT_MENDED)
def test_what_cannot_be_mended_is_left_as_it_was(world: World) -> None:
    table = world.table()
    before = excess(table)
    assert mend(table, 4) is None
    assert layout(table) == world.layout
    assert excess(table) == pytest.approx(before)


def test_no_more_moves_than_are_allowed() -> None:
    assert mend(World("a b/c/d", {"a": 0.6, "b": 0.5, "c": 0.45, "d": 0.9}).table(), 0) is None


def reasons(placed: Placement) -> dict[str, str]:
    return {f"{a.model} {a.replica}": a.reason.code for a in placed.assignments if a.reason.code != "kept"}


def test_a_copy_that_fits_nowhere_gets_its_room_by_an_exchange_and_no_replica_is_added() -> None:
    """0.4 fits beside neither 0.9 nor 0.65 + 0.05; with b (0.05) elsewhere it does not either: 0.65 + 0.4. But e (0.3)
    leaves the first, where 0.6 stay, for the second: 0.6 + 0.4 and 0.65 + 0.3 + 0.05."""
    world = World("a e/b c", {"a": 0.6, "e": 0.3, "b": 0.05, "c": 0.65, "f": 0.4}, most_replicas=9)
    placed = world.place()
    assert placed.replicas_by_pool == {"p": 2}
    assert reasons(placed) == {"e p-1": "moved", "f p-0": "placed"}
    assert (placed.surplus or {})["e", "p-0"].text == "so that one more f fits"


@pytest.mark.parametrize(("factor", "goes"), [(0.5, True), (0.51, False)])
def test_a_replica_goes_by_an_exchange_where_its_copy_fits_nowhere(factor: float, goes: bool) -> None:
    """a (0.45) fits beside neither 0.5 + 0.3 + 0.01 nor 0.6 + 0.01. With c in the third it does: 0.5 + 0.45 + 0.01 and
    0.6 + 0.3 + 0.01. It saves 1 of 3 replicas and moves 2 of 6 copies: worth it up to 33 % = 2 x 0.5 x 33 %."""
    world = World("a/b c f/d g", {"a": 0.45, "b": 0.5, "c": 0.3, "d": 0.6, "f": 0.01, "g": 0.01})
    placed = world.place(saving_factor=factor)
    assert [(name, reason.code) for name, reason in placed.leaving] == [("p-0", "consolidated")] * goes
    assert reasons(placed) == ({"a p-1": "moved", "c p-2": "moved"} if goes else {})


def test_but_not_to_the_last_of_a_replica_s_room() -> None:
    """0.5 + 0.48 + 0.01 would leave 1 % of the second replica: less than the 2 % that it keeps."""
    world = World("a/b c f/d g", {"a": 0.48, "b": 0.5, "c": 0.3, "d": 0.6, "f": 0.01, "g": 0.01})
    assert world.place().leaving == ()
