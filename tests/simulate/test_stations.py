"""The simulator's queues against queues that are simulated request by request (Lindley's recursion)."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from tasks.simulate.demand import Floats
from tasks.simulate.stations import Stations, advance
from tasks.size.queueing import Station

SERVICE_S, LIMIT_S = 0.05, 0.1
STEP_S = 5.0


def exact_waits(rate: float, servers: int, seconds: float, seed: int) -> tuple[Floats, Floats]:
    """Arrival times and waits of Poisson arrivals at constant service times, the queue empty at first."""
    random = np.random.default_rng(seed)
    arrivals = np.sort(random.uniform(0, seconds, random.poisson(rate * seconds)))
    free = [0.0] * servers
    waits = np.empty(len(arrivals))
    for i, at in enumerate(arrivals):
        start = max(at, heapq.heappop(free))
        waits[i] = start - at
        heapq.heappush(free, start + SERVICE_S)
    return arrivals, waits


def simulated(rate: float, servers: int, seconds: float) -> tuple[float, float]:
    """Mean wait (s) and share over the limit, step by step."""
    backlog, mean, over = np.zeros(1), [], []
    for _ in range(round(seconds / STEP_S)):
        full = np.array([servers / SERVICE_S])
        stations = Stations(np.array([rate]), full, np.array([servers]), np.array([0.5]), backlog)
        step = advance(stations, STEP_S, np.array([[LIMIT_S]]), 1e9)
        backlog = step.backlog
        mean.append(float(step.mean_wait_s[0]))
        over.append(float(step.over[0, 0]))
    return float(np.mean(mean)), float(np.mean(over))


@pytest.mark.parametrize(
    ("load", "servers", "mean_within_ms", "share_within"),
    [
        # settled: the mean of one server is exact, the tail is a little long, and both are off the more the fuller
        (0.3, 1, 0.5, 0.012),
        (0.5, 1, 1.0, 0.02),
        (0.7, 1, 3.0, 0.04),
        (0.9, 1, 25.0, 0.06),
        (0.7, 4, 2.0, 0.02),
        (0.9, 4, 12.0, 0.06),
        # overload: 10 % above capacity the wait grows by 100 ms a second, to 30 s after five minutes
        (1.1, 1, 600.0, 0.02),
        (1.5, 4, 600.0, 0.01),
    ],
)
def test_waits_are_those_of_queues_simulated_request_by_request(
    load: float, servers: int, mean_within_ms: float, share_within: float
) -> None:
    rate, seconds = load * servers / SERVICE_S, 300.0
    exact = [exact_waits(rate, servers, seconds, seed)[1] for seed in range(20)]
    mean, share = np.mean([w.mean() for w in exact]), np.mean([(w > LIMIT_S).mean() for w in exact])
    said_mean, said_share = simulated(rate, servers, seconds)
    assert abs(said_mean - mean) * 1000 <= mean_within_ms, f"{said_mean * 1000:.1f} ms, exactly {mean * 1000:.1f} ms"
    assert abs(said_share - share) <= share_within, f"{said_share:.3f}, exactly {share:.3f}"


def test_a_burst_is_worked_off_as_request_by_request() -> None:
    """30 a second for 20 s where 20 are served: 200 wait at its end, 10 s each; then 10 a second: gone in 20 s."""
    backlog, seen = np.zeros(1), []
    for step in range(12):
        rate = np.array([30.0 if step < 4 else 10.0])
        stations = Stations(rate, np.array([20.0]), np.array([1]), np.array([0.5]), backlog)
        done = advance(stations, STEP_S, np.array([[LIMIT_S]]), 1e9)
        backlog = done.backlog
        seen.append(float(backlog[0]))
    assert seen[:8] == [50.0, 100.0, 150.0, 200.0, 150.0, 100.0, 50.0, 0.0]
    assert seen[8:] == [0.0] * 4


def test_what_would_wait_longer_than_the_timeout_is_dropped() -> None:
    stations = Stations(np.array([30.0]), np.array([20.0]), np.array([1]), np.array([0.5]), np.array([590.0]))
    step = advance(stations, STEP_S, np.array([[LIMIT_S]]), 30.0)
    # 590 + 5 * (30 - 20) = 640, of which 20 a second x 30 s = 600 stay; 150 came, 100 were served
    assert (step.backlog[0], step.dropped[0], step.served[0]) == (600.0, 40.0, 100.0)
    assert step.over[0, 0] == pytest.approx(1.0)


def test_settled_queues_are_those_of_sizing() -> None:
    station = Station(0.05, 2, 0.5)
    for rate in (4.0, 20.0, 38.0):
        stations = Stations(np.array([rate]), np.array([40.0]), np.array([2]), np.array([0.75]), np.zeros(1))
        step = advance(stations, STEP_S, np.array([[0.1]]), 30.0)
        assert step.mean_wait_s[0] == pytest.approx(station.mean_wait_s(rate))
        assert step.over[0, 0] == pytest.approx(station.share_over(rate, 0.1))
