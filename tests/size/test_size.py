"""How many copies, and why: each rule, its limits, and which rule wins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.decision import Forecast
from tasks.size import size
from tasks.size.queueing import Station
from tasks.world import CopyState, Learned, Limits, Need, Objective, Pool
from tests.size.fleets import CAPACITY_RPS, LIMITS, MEAN_WAIT_MS, NEED, POOL, Row, seen, sized

READY, UNKNOWN, ABSENT = CopyState.READY, CopyState.UNKNOWN, CopyState.ABSENT
FLAT = range(300, -1, -15)
"""Seconds ago: all of the stabilisation window."""
ZERO: dict[str, Any] = {"min_copies": 0, "idle_s": 300.0}


@pytest.mark.parametrize(
    ("upper_rps", "copies"),
    [
        (4.6, 1),  # 4.6 / 4.644 = 0.99
        (4.7, 2),  # 1.01
        (9.2, 2),  # 1.98
        (9.4, 3),  # 2.02
        (27.0, 6),  # 5.8
    ],
)
def test_copies_for_the_demand(upper_rps: float, copies: int) -> None:
    sizing = sized(seen(1), upper_rps)
    assert (sizing.copies, sizing.demand_rps, sizing.reason.code) == (copies, upper_rps, "demand")
    assert sizing.capacity_rps_by_gpu_type == {"small": pytest.approx(CAPACITY_RPS, abs=0.001)}
    assert sizing.service_ms_by_gpu_type == {"small": 50.0}


def test_the_reason_shows_the_arithmetic() -> None:
    assert sized(seen(1), 9.4).reason.text == (
        "9.4 req/s at 0.9 quantile / 4.6 req/s a copy within 50 ms at p95 (50 ms declared) -> 3 copies"
    )


def test_a_measured_service_time_sizes() -> None:
    # 100 ms a request: 1.205 req/s a copy; 4 / 1.205 = 3.3
    sizing = sized(seen(1, traffic=[(1.0, 0.1, 100.0)]), 4.0)
    assert (sizing.copies, sizing.reason.code) == (4, "demand")
    assert "(100 ms measured, 50 declared)" in sizing.reason.text
    assert sizing.service_ms_by_gpu_type == {"small": 100.0}


def test_a_lasting_change_of_the_service_time_is_learned_over_the_ticks() -> None:
    """From 50 ms over 62.5, 71.9, 78.9 ... to 100: capacity falls from 4.644 over 2.9, 2.3, 1.9 ... to 1.205 req/s."""
    known = Learned(50.0, 1.0, 20)
    copies = []
    for _ in range(12):
        learned = [("small", known.service_ms, known.spread_ms, known.windows)]
        sizing = sized(seen(1, traffic=[(1.0, 0.1, 100.0)], learned=learned), 4.0)
        assert sizing.learned_by_gpu_type is not None
        known = sizing.learned_by_gpu_type["small"]
        copies.append(sizing.copies)
    assert copies == [2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4]
    assert "ms learned over 32 windows, 50 declared" in sizing.reason.text


def test_one_odd_window_moves_no_copy_and_what_was_learned_is_kept_where_nothing_is_asked() -> None:
    # 52 + a quarter of 10 = 54.5 ms, within a tenth of what is declared
    odd = sized(seen(1, traffic=[(1.0, 0.1, 62.0)], learned=[("small", 52.0, 1.0, 20)]), 4.6)
    assert (odd.copies, odd.service_ms_by_gpu_type) == (1, {"small": 50.0})
    for silent in (sized(seen(1, learned=[("small", 90.0, 2.0, 20)]), upper) for upper in (4.0, None)):
        assert silent.learned_by_gpu_type == {"small": Learned(90.0, 2.0, 20)}
        assert silent.service_ms_by_gpu_type == {"small": 90.0}


@pytest.mark.parametrize(
    ("name", "copies", "traffic", "upper_rps", "wanted", "code"),
    [
        # mean waits mean loads: 10 ms -> 5.71 req/s, 25 ms -> 10 req/s, 100 ms -> 16 req/s on each copy
        ("25 ms where 7.6 are allowed: 10 / 4.644 = 2.2", 1, [(10, 25, 50)], 1.0, 3, "queue_over_objective"),
        ("15 ms: less than twice of what is allowed", 1, [(8, 15, 50)], 1.0, 1, "demand"),
        ("100 ms on both: 32 / 4.644 = 6.9", 2, [(16, 100, 50), (16, 100, 50)], 1.0, 7, "queue_over_objective"),
        ("more is forecast than the queue means", 1, [(10, 25, 50)], 20.0, 5, "demand"),
        # the full 20 and 3.33 req/s: 23.3 / 4.644 = 5.02; by the mean of 1 s on both it would be 40 / 4.644 = 9
        ("one works off its backlog, the other is new", 2, [(20, 1e6, 50), (3, 5, 50)], 1.0, 6, "queue_over_objective"),
        ("too few requests: 0.5 * 30 s", 1, [(0.5, 500, 50)], 1.0, 1, "demand"),
        ("no queue time observed", 1, [], 1.0, 1, "demand"),
    ],
)
def test_a_queue_over_the_objective_adds_copies_whatever_was_forecast(
    name: str, copies: int, traffic: list[Row], upper_rps: float, wanted: int, code: str
) -> None:
    sizing = sized(seen(copies, traffic=traffic, needed=[(age, 1) for age in range(300, -1, -15)]), upper_rps)
    assert (sizing.copies, sizing.reason.code) == (wanted, code)


def test_the_reactive_rule_compares_mean_with_mean() -> None:
    """At the capacity 5 % wait longer than 50 ms, and the mean wait is 7.6 ms: that much is well."""
    assert Station(0.05).mean_wait_s(CAPACITY_RPS) * 1000 == pytest.approx(MEAN_WAIT_MS, abs=0.01)
    assert sized(seen(1, traffic=[(4.6, 2.1 * MEAN_WAIT_MS, 50)]), 4.6).reason.code == "queue_over_objective"
    assert sized(seen(1, traffic=[(4.6, 1.9 * MEAN_WAIT_MS, 50)]), 4.6).reason.code == "demand"


@pytest.mark.parametrize(
    ("name", "asked", "upper_rps", "copies", "code"),
    [
        # over 6 * 1.15 + 2 * sqrt(6 / 30) = 7.8; 90 s ahead: 11 + 3 / 30 * 90 = 20 req/s / 4.644 = 4.3
        ("it rises above the forecast", [(30, 8.0), (0, 11.0)], 6.0, 5, "demand_over_forecast"),
        ("within margin and chance: 8.5 * 1.15 + 2 * sqrt(8.5 / 30) = 10.8", [(30, 1.0), (0, 10.8)], 8.5, 2, "demand"),
        ("above it, but falling: 10 / 4.644 = 2.2", [(30, 12.0), (0, 10.0)], 6.0, 3, "demand_over_forecast"),
        # 10 + 9 / 30 * 90 = 37, at most 3 * 10: 30 / 4.644 = 6.5
        ("a jump is carried on to three times itself", [(30, 1.0), (0, 10.0)], 0.5, 7, "demand_over_forecast"),
        # 11 + 3 / 60 * 90 = 15.5: 3.3
        ("a sample was missed", [(60, 8.0), (0, 11.0)], 6.0, 4, "demand_over_forecast"),
        ("samples are closer than ticks", [(30, 8), (20, 20), (10, 1), (0, 11)], 6.0, 5, "demand_over_forecast"),
        ("one sample has no rise, and may be chance", [(0, 11.0)], 6.0, 2, "demand"),
        ("no sample", [], 6.0, 2, "demand"),
    ],
)
def test_a_rise_that_was_not_forecast_is_carried_on(
    name: str, asked: list[tuple[float, float]], upper_rps: float, copies: int, code: str
) -> None:
    sizing = sized(seen(1, asked=asked), upper_rps)
    assert (sizing.copies, sizing.reason.code) == (copies, code)


@pytest.mark.parametrize(
    ("name", "upper_rps", "policy", "copies", "code"),
    [
        ("the policy keeps two", 4.0, {"min_copies": 2}, 2, "min_copies"),
        ("no demand at all", 0.0, {}, 1, "min_copies"),
        ("the policy allows three: 20 / 4.644 = 4.3", 20.0, {"max_copies": 3}, 3, "max_copies"),
        ("eight replicas could be: 60 / 4.644 = 12.9", 60.0, {"max_copies": 20}, 8, "max_copies"),
        ("just what it needs", 9.0, {"min_copies": 2, "max_copies": 2}, 2, "demand"),
    ],
)
def test_clamps(name: str, upper_rps: float, policy: dict[str, Any], copies: int, code: str) -> None:
    sizing = sized(seen(1, **policy), upper_rps)
    assert (sizing.copies, sizing.reason.code) == (copies, code)


def test_more_copies_than_the_policy_allows_go_although_they_are_needed() -> None:
    """The policy was lowered from 4 copies to 2 under a load for 4: neither margin nor window holds them."""
    for needed in (None, ()):
        sizing = sized(seen(4, max_copies=2, needed=needed), 18.0)
        assert (sizing.copies, sizing.reason.code) == (2, "max_copies")
    # with a margin of 200 % 4 req/s are 12, 2.6 copies
    assert sized(seen(4, max_copies=2, needed=[(age, 1) for age in FLAT]), 4.0, replace(LIMITS, margin=2)).copies == 2


@pytest.mark.parametrize(
    ("name", "needed", "upper_rps", "copies", "code"),
    [
        ("one was enough for the whole window", [(age, 1) for age in FLAT], 2.0, 1, "demand"),
        ("three were needed 290 s ago", [(age, 3 if age >= 285 else 1) for age in FLAT], 2.0, 3, "stabilising"),
        ("two were: down to these", [(age, 2 if age >= 285 else 1) for age in FLAT], 2.0, 2, "stabilising"),
        ("nine were: no more than there are", [(age, 9) for age in FLAT], 2.0, 4, "stabilising"),
        # 4.5 * 1.15 = 5.2 req/s / 4.644 = 1.1
        ("one would do, but not with margin", [(age, 1) for age in FLAT], 4.5, 2, "no_margin"),
        ("two were needed, and two have the margin", [(age, 2) for age in FLAT], 4.5, 2, "no_margin"),
        ("the window is longer than the margin needs", [(age, 3) for age in FLAT], 4.5, 3, "stabilising"),
        ("remembered since 200 s only", [(age, 1) for age in range(200, -1, -15)], 2.0, 4, "window_unknown"),
        ("not remembered since 70 s", [(age, 1) for age in range(300, 69, -15)], 2.0, 4, "window_unknown"),
        ("90 s in the middle not", [(a, 1) for a in FLAT if not 100 < a < 190], 2.0, 4, "window_unknown"),
        ("nothing remembered", [], 2.0, 4, "window_unknown"),
        ("more needed than there are: at once", [], 20.0, 5, "demand"),
    ],
)
def test_fewer_copies_only_after_the_window_and_with_margin(
    name: str, needed: list[tuple[float, int]], upper_rps: float, copies: int, code: str
) -> None:
    sizing = sized(seen(4, needed=needed), upper_rps)
    assert (sizing.copies, sizing.reason.code) == (copies, code)


def test_what_the_next_ticks_remember_is_what_was_needed_before_it_was_held_up() -> None:
    """Else the copies that stabilisation keeps would be what the next tick remembers, and stay for ever."""
    sizing = sized(seen(4, needed=[(age, 3) for age in FLAT]), 2.0)
    assert (sizing.copies, sizing.reason.code, sizing.needed_copies) == (3, "stabilising", 1)


def test_without_a_window_nothing_is_remembered() -> None:
    assert sized(seen(4, needed=[]), 2.0, replace(LIMITS, stabilisation_s=0.0)).copies == 1


@pytest.mark.parametrize(
    ("name", "states", "policy", "asked", "copies"),
    [
        ("as many as there are", [READY] * 3, {}, [], 3),
        ("a replica that cannot be read counts", [READY, UNKNOWN], {}, [], 2),
        ("and one that was lost", [READY, ABSENT], {}, [], 2),
        ("none there, the policy wants one", [], {}, [], 1),
        ("none there by policy", [], ZERO, [], 0),
        ("more than the policy allows: nothing shrinks on what is not known", [READY] * 3, {"max_copies": 2}, [], 3),
    ],
)
def test_unknown_demand_holds(
    name: str, states: list[CopyState], policy: dict[str, Any], asked: list[tuple[float, float]], copies: int
) -> None:
    sizing = sized(seen(0, states=states, asked=[(75.0, 9.0)], **policy), None)
    assert (sizing.copies, sizing.is_held, sizing.needed_copies) == (copies, True, copies)
    assert sizing.reason.code == "demand_unknown"
    assert "newest sample 75 s old, limit 60 s" in sizing.reason.text


@pytest.mark.parametrize(
    ("name", "states", "remembered", "copies"),
    [
        ("nobody knows: it may have been replaced", [READY, UNKNOWN], [], 1),
        ("the only one", [UNKNOWN], [], 1),
        ("two were wanted: it was not", [READY, UNKNOWN], [(15.0, 2)], 2),
        ("two were wanted: it was", [READY, READY, UNKNOWN], [(15.0, 2)], 2),
        ("what counts is the newest", [READY, UNKNOWN], [(30.0, 2), (15.0, 1)], 1),
        ("what is loaded in its stead is not one more", [CopyState.LOADING, UNKNOWN], [(15.0, 1)], 1),
    ],
)
def test_a_copy_that_cannot_be_read_is_held_once(
    name: str, states: list[CopyState], remembered: list[tuple[float, int]], copies: int
) -> None:
    sizing = sized(seen(0, states=states, needed=remembered, asked=[(75.0, 9.0)]), None)
    assert sizing.copies == copies


def test_a_copy_without_requests_is_held_only_where_no_other_gets_them() -> None:
    """It was moved and waits for its unload, or its route waits for the next tick."""
    two = seen(2, asked=[(75.0, 9.0)])
    for routed, copies in (((True, True), 2), ((True, False), 1), ((False, False), 2)):
        there = tuple(replace(copy, is_routed=is_) for copy, is_ in zip(two.fleet.copies, routed, strict=True))
        assert sized(replace(two, fleet=replace(two.fleet, copies=there)), None).copies == copies


def test_no_forecast_is_unknown_demand() -> None:
    (sizing,) = size(seen(2), [], LIMITS)
    assert (sizing.copies, sizing.reason.code) == (2, "demand_unknown")


ASKED_LONG_AGO = [(age, 1.0 if age > 310 else 0.0) for age in range(400, -1, -10)]
ASKED_LATELY = [(age, 1.0 if age > 250 else 0.0) for age in range(400, -1, -10)]
JUST_ASKED = [(age, 1.0 if age < 15 else 0.0) for age in range(400, -1, -10)]
GAP = [(age, rps) for age, rps in ASKED_LONG_AGO if not 100 < age < 200]


@pytest.mark.parametrize(
    ("name", "current", "asked", "upper_rps", "copies", "code"),
    [
        ("asleep", 0, ASKED_LATELY, 0.0, 0, "asleep"),
        ("asleep whatever is forecast: it is cold until somebody asks", 0, ASKED_LATELY, 3.0, 0, "asleep"),
        ("somebody asks", 0, JUST_ASKED, 0.0, 1, "cold_request"),
        ("many ask: 9 / 4.644 = 1.9", 0, JUST_ASKED, 9.0, 2, "cold_request"),
        ("awake: asked 260 s ago, 300 are idle", 1, ASKED_LATELY, 0.0, 1, "min_copies"),
        ("idle for 300 s", 1, ASKED_LONG_AGO, 0.0, 0, "idle"),
        ("idle, two copies", 2, ASKED_LONG_AGO, 0.0, 0, "idle"),
        ("for 90 s nobody looked: not seen idle", 1, GAP, 0.0, 1, "min_copies"),
        ("looked at for 200 s only", 1, ASKED_LONG_AGO[-20:], 0.0, 1, "min_copies"),
        ("awake and busy", 1, JUST_ASKED, 9.0, 2, "demand"),
    ],
)
def test_a_model_that_may_go_to_zero(
    name: str, current: int, asked: list[tuple[float, float]], upper_rps: float, copies: int, code: str
) -> None:
    sizing = sized(seen(current, asked=asked, needed=[(age, 0) for age in FLAT], **ZERO), upper_rps)
    assert (sizing.copies, sizing.reason.code) == (copies, code)


def test_a_model_that_keeps_a_copy_is_never_idle() -> None:
    assert sized(seen(1, asked=ASKED_LONG_AGO, idle_s=300.0), 0.0).reason.code == "min_copies"


def test_no_pool_may_hold_it() -> None:
    sizing = sized(seen(0, pools_allowed=frozenset({"other"})), 5.0)
    assert (sizing.copies, sizing.reason.code) == (0, "not_allowed")


def test_sizings_are_in_the_fleets_order_and_the_home_gpu_type_decides() -> None:
    pools = [replace(POOL, replicas=1), Pool("large", "large", 10**9, max_replicas=4)]
    observation = seen(1, pools=pools)
    (model,) = observation.fleet.models
    needs = {"small": NEED, "large": Need(1, 20.0)}
    models = tuple(replace(model, name=name, need_by_gpu_type=needs) for name in ("z", "a"))
    observation = replace(observation, fleet=replace(observation.fleet, models=models))
    sizings = size(observation, [Forecast(name, 4.0, 9.0, 90.0, "level") for name in ("a", "z")], LIMITS)
    # 50 ms on the small GPU, 20 ms on the large one, which costs as much
    assert [(s.model, s.copies) for s in sizings] == [("z", 1), ("a", 1)]
    assert sizings[0].capacity_rps_by_gpu_type == {
        "small": pytest.approx(CAPACITY_RPS, abs=0.001),
        "large": pytest.approx(Station(0.02).capacity_rps(Objective(50.0))),
    }


@pytest.mark.parametrize("upper_rps", [0.0, 2.0, 4.6, 9.0, 20.0, 35.0])
def test_under_steady_load_a_second_tick_wants_the_same(upper_rps: float) -> None:
    first = sized(seen(1), upper_rps)
    remembered = [(age, first.copies) for age in FLAT]
    assert sized(seen(first.copies, needed=remembered), upper_rps).copies == first.copies


def test_noise_about_a_load_on_the_edge_of_a_copy_does_not_move_it_to_and_fro() -> None:
    """Two copies take 9.29 req/s. About 9.2 +- 2 % a third is added once, and stays: 9.2 * 1.15 / 4.644 = 2.3."""
    rng = np.random.default_rng(1)
    limits = Limits(interval_s=30, stabilisation_s=60, margin=0.15)
    current, needed, moves = 2, [2] * 5, 0
    for upper_rps in rng.normal(9.2, 0.18, 200):
        remembered = [(30.0 * age, copies) for age, copies in enumerate(reversed(needed[-3:]))][::-1]
        sizing = sized(seen(current, needed=remembered), float(upper_rps), limits)
        needed.append(sizing.needed_copies or 0)
        moves += sizing.copies != current
        current = sizing.copies
    assert (current, moves) == (3, 1)
    assert set(needed) == {2, 3}
