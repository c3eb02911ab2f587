"""Copies that are placed and not there yet make room for one that fits nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.decision import Reason, Sizing
from tasks.place.changes import Changes
from tasks.place.keep import keep
from tasks.place.read import read
from tasks.place.rearrange import rearrange
from tasks.place.table import Table
from tasks.world import Limits, Observation
from tests.plan import POOL, WHY, fleet
from tests.worlds import NOW


@pytest.mark.parametrize(
    ("room", "makes_room"),
    [
        pytest.param("small-1", True, id="there is room in a replica that is there"),
        pytest.param("small+1", False, id="only in one that is yet to come: it would have to wait"),
        pytest.param("", False, id="nowhere"),
    ],
)
def test_what_is_not_there_yet_goes_elsewhere(room: str, makes_room: bool) -> None:
    """b, 200 MB, was just placed in small-2, where d's 300 MB would fit without it: 450 - 200 < 300."""
    others = ["c small-0 serving"] + ["c small-1 serving"] * (room != "small-1")
    seen = fleet(*others, pool=replace(POOL, max_replicas=4))
    sizings = [Sizing(m, int(m in "bd"), 2.0 * (m in "bd"), {"small": 10.0}, WHY) for m in "abcde"]
    table, changes = Table(read(Observation(NOW, seen), sizings, Limits())), Changes()
    names, spots = table.problem.wants.names, table.problem.spots.names
    b, d = names.index("b"), names.index("d")
    keep(table)
    table.add(b, spots.index("small-2"))
    changes.placed[b, spots.index("small-2")] = Reason("placed", "for the test")
    if room == "small+1":
        table.switch_on(spots.index(room))
    before = dict(changes.placed)
    assert rearrange(table, changes, d) is makes_room
    where = {name: [spots[spot] for spot in table.replicas_of[names.index(name)]] for name in "bd"}
    assert where == ({"b": ["small-1"], "d": ["small-2"]} if makes_room else {"b": ["small-2"], "d": []})
    assert set(changes.placed) == (
        {(b, spots.index("small-1")), (d, spots.index("small-2"))} if makes_room else set(before)
    )
