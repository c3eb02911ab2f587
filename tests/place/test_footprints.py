"""Footprints that were measured with a spread: placement keeps room for it, and the checker of plans asks for it."""

from __future__ import annotations

import datetime

import pytest

from tasks.catalogue import Catalogue, Entry, Number
from tasks.decision import Assignment, Placement, Plan, Reason, Sizing
from tasks.place import place
from tasks.plan.check import check
from tasks.sections import ModelSection
from tasks.world import Fleet, Limits, Observation, Pool, Replica
from tests.plan import MB, WHY, step
from tests.worlds import NOW

POOL = Pool("small", "small", 500 * MB, min_replicas=1, max_replicas=1, replicas=1)
"""One replica of 500 MB, of which a tenth stays free: 450 MB."""


def seen(spread_mb: int) -> Observation:
    """Two models of which profiling found 200 MB and a spread."""
    day = datetime.date(2026, 1, 31)
    footprint = Number(value=200e6, spread=spread_mb * 1e6, source="measured", date=day)
    entry = Entry(footprint_bytes=footprint, service_ms=Number(value=50, source="measured", date=day))
    catalogue = Catalogue().with_entry("a", "small", entry).with_entry("b", "small", entry)
    models = tuple(ModelSection().model(name, {"small"}, catalogue) for name in "ab")
    return Observation(NOW, Fleet(models, (POOL,), (Replica("small-0", "small", "small", 500 * MB, 1.0),), ()))


SIZINGS = tuple(Sizing(name, 1, 4.0, {"small": 10.0}, WHY) for name in "ab")


@pytest.mark.parametrize(
    ("spread_mb", "placed"),
    [
        (0, "ab"),  # 2 * 200 = 400 <= 450
        (10, "ab"),  # 2 * (200 + 2 * 10) = 440 <= 450
        (15, "a"),  # 2 * (200 + 2 * 15) = 460 > 450
    ],
)
def test_two_spreads_are_kept_free_for_each_copy(spread_mb: int, placed: str) -> None:
    found = place(seen(spread_mb), SIZINGS, Limits())
    assert "".join(sorted(a.model for a in found.assignments)) == placed


def test_the_refusal_tells_the_room_that_a_copy_would_take() -> None:
    (hold,) = place(seen(15), SIZINGS, Limits()).holds
    assert (hold.subject, hold.reason) == ("model:b", Reason("no_room", "small-0: 230 MB > 450 - 230 MB"))


@pytest.mark.parametrize(
    ("spread_mb", "says"),
    [
        (25, ()),  # 2 * (200 + 2 * 25) = 500: the headroom is the placement's matter
        (
            30,
            (
                "step 1 (load a small-0), step 2 (load b small-0): 0 MB there + 520 MB loaded - 0 MB surely unloaded "
                "before = 520 MB > 500 MB of small-0",
            ),
        ),
    ],
)
def test_the_checker_asks_for_the_same_room(spread_mb: int, says: tuple[str, ...]) -> None:
    plan = Plan((step("1 load a small-0"), step("2 load b small-0")))
    wanted = Placement(tuple(Assignment(name, "small-0", WHY) for name in "ab"), {"small": 1})
    assert check(plan, seen(spread_mb), wanted, SIZINGS, Limits()) == says
