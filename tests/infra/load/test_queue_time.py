"""Queue times from Triton's counters, read from a real Prometheus."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.load.profile import Profile, Segment
from infra.load.queue_time import measure, queue_times
from infra.load.report import Clock, summarise
from tests.prometheus_server import prometheus_server

NOW = 1_800_000_000.0


def counter(name: str, model: str, instance: str) -> str:
    return f'nv_inference_{name}{{model="{model}",version="1",instance="{instance}"}}'


def test_means_weigh_requests_and_a_copy_loaded_in_between_counts_from_zero(tmp_path: Path) -> None:
    at = [NOW + 5 * i for i in range(5)]
    samples: dict[str, dict[float, float]] = {
        # first window: 10 requests queue 2 ms each; second: 30 queue 4 ms each; then none
        counter("request_success", "a", "r0"): dict(zip(at, (100, 110, 140, 140, 140), strict=True)),
        counter("queue_duration_us", "a", "r0"): dict(zip(at, (7e6, 7.02e6, 7.14e6, 7.14e6, 7.14e6), strict=True)),
        # a second copy, loaded in the third window: 10 requests that queued 10 ms each
        counter("request_success", "a", "r1"): dict(zip(at[3:], (10, 10), strict=True)),
        counter("queue_duration_us", "a", "r1"): dict(zip(at[3:], (100_000, 100_000), strict=True)),
        # unloaded and loaded again in the second window: its counters start again
        counter("request_success", "b", "r0"): dict(zip(at, (50, 55, 5, 5, 5), strict=True)),
        counter("queue_duration_us", "b", "r0"): dict(zip(at, (9e6, 9.005e6, 5_000, 5_000, 5_000), strict=True)),
    }
    with prometheus_server(tmp_path, samples) as url:
        a, b, unknown = queue_times(url, NOW, NOW + 20, ["a", "b", "c"]).values()
    # (10 x 2 + 30 x 4 + 10 x 10) / 50 = 4.8; windows' means are 2, 4 and 10
    assert a.mean_ms == pytest.approx(4.8)
    assert a.p50_ms == pytest.approx(4)
    assert a.p95_ms == pytest.approx(4 + 0.9 * (10 - 4))
    assert b.mean_ms == pytest.approx(1.0)  # 5 + 5 requests, 1 ms each
    assert unknown.mean_ms is None


def test_without_prometheus_queue_times_are_unknown_and_the_report_says_why() -> None:
    profile = Profile("p", 1.0, (Segment("a", 0, 1, 1, 1),))
    report = measure(summarise(profile, "http://gateway", [], Clock(NOW, 1.0, 1.0, 0.1)), "http://127.0.0.1:9")
    assert report.models[0].queue.mean_ms is None
    assert "queue times are unknown: http://127.0.0.1:9 does not answer" in report.notes[0]
