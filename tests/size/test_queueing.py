"""Queue times: the formulas against exact results, worked examples and simulated queues; and their inversion."""

from __future__ import annotations

import heapq
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.size.queueing import Station, erlang_c
from tasks.world import Objective


@pytest.mark.parametrize(
    ("servers", "offered", "waits"),
    [
        (1, 0.4, 0.4),  # one server: an arrival waits when it is busy
        (2, 1.0, 1 / 3),  # B = 0.2; 0.2 / (1 - 0.5 * 0.8)
        (3, 2.0, 4 / 9),  # B = 2/3, 0.4, 4/19; 4/19 / (1 - 2/3 * 15/19)
        (10, 8.0, 0.4092),  # tables of Erlang C
        (4, 0.0, 0.0),
    ],
)
def test_erlang_c(servers: int, offered: float, waits: float) -> None:
    assert erlang_c(servers, offered) == pytest.approx(waits, abs=5e-5)


def test_erlang_c_of_many_servers_does_not_overflow() -> None:
    # a ** c / c! is beyond a float from about 170 servers on
    assert 0 < erlang_c(500, 480.0) < 1


@pytest.mark.parametrize(
    ("name", "station", "rate_rps", "mean_s"),
    [
        ("M/M/1, exact: 0.8 / (10 - 8)", Station(0.1, 1, 1.0), 8.0, 0.4),
        ("M/D/1, exact: half of it", Station(0.1, 1, 0.0), 8.0, 0.2),
        ("M/G/1, exact, cs2 = 3: (1 + 3) / 2 of it", Station(0.1, 1, 3.0), 8.0, 0.8),
        ("M/M/2, exact: 1/3 / (20 - 10)", Station(0.1, 2, 1.0), 10.0, 1 / 30),
        ("the worked example: 0.4 / (20 - 8) / 2", Station(0.05), 8.0, 1 / 60),
        ("no load", Station(0.1), 0.0, 0.0),
        ("full load: 10 of 10", Station(0.1), 10.0, math.inf),
        ("over full load", Station(0.1), 11.0, math.inf),
    ],
)
def test_mean_wait(name: str, station: Station, rate_rps: float, mean_s: float) -> None:
    assert station.mean_wait_s(rate_rps) == pytest.approx(mean_s)


@pytest.mark.parametrize(
    ("name", "station", "rate_rps", "wait_s", "share"),
    [
        ("M/M/1, exact: 0.8 exp(-(10 - 8) * 0.5)", Station(0.1, 1, 1.0), 8.0, 0.5, 0.8 * math.exp(-1)),
        ("M/M/2, exact: 1/3 exp(-(20 - 10) * 0.1)", Station(0.1, 2, 1.0), 10.0, 0.1, math.exp(-1) / 3),
        ("the worked example: 0.4 exp(-12 * 0.05 * 2)", Station(0.05), 8.0, 0.05, 0.4 * math.exp(-1.2)),
        ("over 0 s: as many as find it busy", Station(0.05), 8.0, 0.0, 0.4),
        ("full load: all", Station(0.1), 10.0, 1e9, 1.0),
    ],
)
def test_share_over(name: str, station: Station, rate_rps: float, wait_s: float, share: float) -> None:
    assert station.share_over(rate_rps, wait_s) == pytest.approx(share)


@pytest.mark.parametrize(
    ("name", "station", "objective", "capacity_rps"),
    [
        # 0.2322 exp(-(20 - 4.644) * 0.05 * 2) = 5 %
        ("50 ms, constant", Station(0.05), Objective(50, 95), 4.644),
        # 0.1205 exp(-(20 - 2.410) * 0.05 * 1) = 5 %: variable times halve it
        ("50 ms, exponential", Station(0.05, 1, 1.0), Objective(50, 95), 2.410),
        # 0.1205 exp(-(10 - 1.205) * 0.05 * 2) = 5 %: 50 ms are now but half a service time
        ("100 ms, constant", Station(0.1), Objective(50, 95), 1.205),
        ("two instances share a queue: far more than twice", Station(0.05, 2), Objective(50, 95), 20.565),
        ("a laxer percentile: 0.5 exp(-10 * 0.05 * 2) = 18.394 %", Station(0.05), Objective(50, 81.606), 10.0),
    ],
)
def test_capacity(name: str, station: Station, objective: Objective, capacity_rps: float) -> None:
    assert station.capacity_rps(objective) == pytest.approx(capacity_rps, abs=0.001)


stations = st.builds(Station, st.floats(1e-3, 5), st.integers(1, 16), st.floats(0, 4))


@given(station=stations, queue_ms=st.floats(1, 5000), percentile=st.floats(50, 99.9))
def test_capacity_is_the_largest_load_that_meets_the_objective(
    station: Station, queue_ms: float, percentile: float
) -> None:
    capacity_rps = station.capacity_rps(Objective(queue_ms, percentile))
    assert 0 < capacity_rps < station.full_rps
    allowed = 1 - percentile / 100
    assert station.share_over(capacity_rps, queue_ms / 1000) <= allowed + 1e-9
    assert station.share_over(capacity_rps + 1e-6 * station.full_rps, queue_ms / 1000) > allowed


@given(station=stations, load=st.floats(0.05, 0.999))
def test_the_load_at_a_mean_wait_is_its_inverse(station: Station, load: float) -> None:
    wait_s = station.mean_wait_s(load * station.full_rps)
    if wait_s > 1e-9:  # below, sixteen servers at a twentieth of their load: no queue to tell loads apart
        assert station.load_at_mean_wait(wait_s) == pytest.approx(load * station.full_rps, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "station", "load", "tolerance"),
    [
        ("M/D/1", Station(1.0, 1, 0.0), 0.7, 0.05),
        ("M/M/1", Station(1.0, 1, 1.0), 0.7, 0.05),
        ("M/M/3", Station(1.0, 3, 1.0), 0.8, 0.05),
        ("M/D/2: Allen-Cunneen is an approximation", Station(1.0, 2, 0.0), 0.7, 0.1),
        ("M/G/2, cs2 = 2", Station(1.0, 2, 2.0), 0.7, 0.15),
    ],
)
def test_simulated_queues_wait_as_long_as_the_formula_says(
    name: str, station: Station, load: float, tolerance: float
) -> None:
    waits = simulate(station, load * station.full_rps)
    assert np.mean(waits) == pytest.approx(station.mean_wait_s(load * station.full_rps), rel=tolerance)
    long_s = float(np.quantile(waits, 0.95))
    assert station.share_over(load * station.full_rps, long_s) == pytest.approx(0.05, rel=4 * tolerance)


def simulate(station: Station, rate_rps: float, requests: int = 200_000, seed: int = 1) -> NDArray[np.float64]:
    """Waits of Poisson arrivals at a first-come first-served queue with service times of the wanted variability."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate_rps, requests))
    cv2 = station.service_cv2
    service = rng.gamma(1 / cv2, cv2 * station.service_s, requests) if cv2 else np.full(requests, station.service_s)
    free = [0.0] * station.servers
    waits = np.empty(requests)
    for i, (arrival, time_s) in enumerate(zip(arrivals.tolist(), service.tolist(), strict=True)):
        start = max(arrival, heapq.heappop(free))
        heapq.heappush(free, start + time_s)
        waits[i] = start - arrival
    return waits
