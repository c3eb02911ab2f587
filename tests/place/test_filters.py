"""May a copy go to a replica? One table a rule: its verdict and its arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.place.board import Load, Spot
from tasks.place.filters import (
    Candidate,
    has_compute,
    has_memory,
    is_not_backing_off,
    is_not_held,
    is_open,
    refusal,
    retry_at,
)
from tasks.world import LoadFailure
from tests.plan import MB, POOL
from tests.worlds import NOW, model

SPOT = Spot("small-0", POOL, 500 * MB, 1.0)
"""10 % stay free: 450 MB and 0.9 device-seconds a second."""
GOOD = Candidate(model("a"), Load(100 * MB, 0.2), SPOT, is_first=False, counts_going=True, retry_at=0.0, now=NOW)


def holding(mb: int, compute: float = 0.0, going_mb: int = 0) -> Spot:
    return replace(
        SPOT,
        load_by_model={"b": Load(mb * MB, compute)},
        going_by_model={"c": Load(going_mb * MB, 0.0)},
    )


def test_a_good_place() -> None:
    assert refusal(GOOD) == ""


@pytest.mark.parametrize(("closed", "why"), [("", ""), ("it is leaving", "it is leaving")])
def test_a_closed_replica_takes_nothing(closed: str, why: str) -> None:
    assert is_open(replace(GOOD, spot=replace(SPOT, closed=closed))) == why


@pytest.mark.parametrize(("held", "why"), [("a", "it holds a copy"), ("b", "")])
def test_one_copy_of_a_model_in_a_replica(held: str, why: str) -> None:
    assert is_not_held(replace(GOOD, spot=replace(SPOT, load_by_model={held: Load(1, 0.0)}))) == why


@pytest.mark.parametrize(
    ("used_mb", "going_mb", "counts_going", "why"),
    [
        (350, 0, True, ""),  # 350 + 100 = 450
        (351, 0, True, "100 MB > 450 - 351 MB"),
        (250, 101, True, "100 MB > 450 - 351 MB"),  # what is to be unloaded counts
        (250, 101, False, ""),  # unless it will be gone
    ],
)
def test_memory(used_mb: int, going_mb: int, counts_going: bool, why: str) -> None:
    assert has_memory(replace(GOOD, spot=holding(used_mb, going_mb=going_mb), counts_going=counts_going)) == why


@pytest.mark.parametrize(
    ("used", "is_first", "why"),
    [
        (0.5, False, ""),  # 0.5 + 0.2 < 0.9
        (0.8, False, "compute 0.20 > 0.90 - 0.80"),
        (0.8, True, ""),  # a slow copy beats none
    ],
)
def test_compute(used: float, is_first: bool, why: str) -> None:
    assert has_compute(replace(GOOD, spot=holding(0, used), is_first=is_first)) == why


@pytest.mark.parametrize(("retry", "why"), [(NOW, ""), (NOW + 20, "its load failed, next try in 20 s")])
def test_a_failed_load_waits(retry: float, why: str) -> None:
    assert is_not_backing_off(replace(GOOD, retry_at=retry)) == why


@pytest.mark.parametrize(("count", "wait_s"), [(1, 60), (2, 120), (4, 480), (5, 600), (10_000, 600)])
def test_the_wait_doubles_up_to_ten_minutes(count: int, wait_s: float) -> None:
    """30 s between ticks: 30 x 2, 30 x 4, 30 x 16, and 30 x 32 = 960 > 600."""
    assert retry_at(LoadFailure("a", "small-0", count, NOW), 30.0) == NOW + wait_s
    assert retry_at(None, 30.0) == 0.0
