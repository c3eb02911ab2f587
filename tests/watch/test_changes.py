"""Two looks at a fleet, and what changed between them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.watch import memory
from tasks.watch.changes import LOST, READY, SCALED, UNSERVED, Rescale, Seen, Snapshot, changes, remembered

STARTING = Seen("small", "1", is_ready=False)
EMPTY = Seen("small", "1", is_ready=True)
LOADED = Seen("small", "1", is_ready=True, is_serving=True, carries=frozenset({"echo", "other"}))
AGAIN = replace(LOADED, life="2")

REPLICAS: dict[str, tuple[Seen | None, Seen | None, list[str]]] = {
    "nothing changed": (LOADED, LOADED, []),
    "a new one that starts": (None, STARTING, []),
    "a new one that is ready": (None, EMPTY, [READY]),
    "a starting one becomes ready": (STARTING, EMPTY, [READY]),
    "a model is routed to it": (EMPTY, LOADED, []),
    "it is emptied": (LOADED, replace(LOADED, carries=frozenset(), is_serving=False), []),
    "one of its models is moved away": (LOADED, replace(LOADED, carries=frozenset({"echo"})), []),
    "an emptied one goes": (EMPTY, None, []),
    "an emptied one is restarted": (EMPTY, replace(EMPTY, life="2"), [READY]),
    "one that was starting goes": (STARTING, None, []),
    "a loaded one is gone": (LOADED, None, [LOST]),
    "a loaded one is not ready": (LOADED, replace(LOADED, is_ready=False, is_serving=False), [LOST]),
    "its node is gone: it is ready, and no request gets there": (LOADED, replace(LOADED, is_serving=False), [LOST]),
    "a first route, not yet followed by the kubelet": (EMPTY, replace(LOADED, is_serving=False), []),
    "restarted between two looks": (LOADED, AGAIN, [READY, LOST]),
    "restarted, and not up yet": (LOADED, replace(AGAIN, is_ready=False, is_serving=False), [LOST]),
    "lost and back, when nobody looked": (replace(LOADED, is_ready=False), LOADED, [READY]),
}


@pytest.mark.parametrize("case", REPLICAS)
def test_replicas(case: str) -> None:
    before, after, expected = REPLICAS[case]
    found = changes(*(Snapshot({"small-0": seen} if seen else {}) for seen in (before, after)))
    assert [change.event for change in found] == expected
    assert {(change.subject, change.pool) for change in found} <= {("small-0", "small")}


def test_a_lost_replica_names_what_it_carried_last() -> None:
    (gone,) = changes(Snapshot({"small-0": LOADED}), Snapshot())
    assert gone.text == "gone; it carried echo, other"
    half = replace(LOADED, is_ready=False, carries=frozenset({"other"}))
    (lost,) = changes(Snapshot({"small-0": LOADED}), Snapshot({"small-0": half}))
    assert lost.text == "not ready any more; it carried other"


FIRST, SECOND = Rescale("2026-01-01T00:00:00Z", "New size: 2"), Rescale("2026-01-01T00:01:00Z", "New size: 3")
COUNTS: dict[str, tuple[Snapshot, Snapshot, list[str]]] = {
    "nothing changed": (Snapshot({}, {"small": 1}), Snapshot({}, {"small": 1}), []),
    "up": (Snapshot({}, {"small": 1}), Snapshot({}, {"small": 3}), ["1 to 3 replicas"]),
    "down": (Snapshot({}, {"small": 3}), Snapshot({}, {"small": 1}), ["3 to 1 replicas"]),
    "a new pool": (Snapshot({}, {}), Snapshot({}, {"small": 2}), ["unknown to 2 replicas"]),
    "a pool that is gone": (Snapshot({}, {"small": 2}), Snapshot({}, {}), []),
    "an HPA said so": (
        Snapshot({}, {"small": 1}),
        Snapshot({}, {"small": 2}, {"small": FIRST}),
        ["1 to 2 replicas: New size: 2"],
    ),
    "and said it again, back and forth between two looks": (
        Snapshot({}, {"small": 2}, {"small": FIRST}),
        Snapshot({}, {"small": 2}, {"small": SECOND}),
        ["2 to 2 replicas: New size: 3"],
    ),
    "what it said was forgotten after an hour": (
        Snapshot({}, {"small": 2}, {"small": SECOND}),
        Snapshot({}, {"small": 2}, {"small": FIRST}),
        [],
    ),
}


@pytest.mark.parametrize("case", COUNTS)
def test_counts(case: str) -> None:
    before, after, expected = COUNTS[case]
    found = changes(before, after)
    assert [change.text for change in found] == expected
    assert {change.event for change in found} <= {SCALED}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param({"cold": 3.0}, {"cold": 3.0}, [], id="none"),
        pytest.param({"cold": 3.0}, {"cold": 5.0}, ["2 requests found no copy"], id="two more"),
        pytest.param({}, {"cold": 1.0}, ["1 requests found no copy"], id="the first of a counter that is new"),
        pytest.param({"cold": 9.0}, {"cold": 0.0}, [], id="the gateway was restarted"),
        pytest.param({"cold": 9.0}, {"cold": 2.0}, ["2 requests found no copy"], id="restarted, and asked since"),
        pytest.param(None, {"cold": 9.0}, [], id="never seen before: as old as the gateway"),
        pytest.param({"cold": 9.0}, None, [], id="cannot be read"),
    ],
)
def test_unserved(before: dict[str, float] | None, after: dict[str, float] | None, expected: list[str]) -> None:
    found = changes(Snapshot(unserved_by_model=before), Snapshot(unserved_by_model=after))
    assert [change.text for change in found] == expected
    assert {change.event for change in found} <= {UNSERVED}


def test_counters_that_cannot_be_read_stay_what_they_were() -> None:
    """So what is counted meanwhile is told once they can be read again: 4 to 7 are three."""
    known = remembered(Snapshot(unserved_by_model={"cold": 4.0}), Snapshot({"small-0": EMPTY}))
    assert known == Snapshot({"small-0": EMPTY}, unserved_by_model={"cold": 4.0})
    (change,) = changes(known, Snapshot({"small-0": EMPTY}, unserved_by_model={"cold": 7.0}))
    assert change.text == "3 requests found no copy"


def test_a_listener_that_knows_nothing_tells_what_is_ready_and_no_more() -> None:
    now = Snapshot({"a": LOADED, "b": STARTING}, {"small": 2}, {"small": FIRST}, {"cold": 9.0})
    assert [(change.event, change.subject) for change in changes(None, now)] == [(READY, "a")]


def test_what_was_told_is_remembered_and_a_broken_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "home" / "told.json"
    assert memory.read(path) is None
    told = Snapshot({"a": LOADED, "b": STARTING}, {"small": 2}, {"small": FIRST}, {"cold": 9.0})
    memory.write(path, told)
    assert memory.read(path) == told
    assert [file.name for file in path.parent.iterdir()] == ["told.json"]
    path.write_text('{"replicas": 3')
    assert memory.read(path) is None
