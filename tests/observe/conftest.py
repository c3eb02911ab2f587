"""A Prometheus with ten minutes of a small fleet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.observe import T0
from tests.prometheus_server import Samples, prometheus_server


def counter(per_s: float, times: range, start: float = 0.0) -> dict[float, float]:
    return {T0 + t: start + per_s * t for t in times}


def traffic(model: str, where: str, per_s: float, times: range) -> Samples:
    """Each request waits 3 ms and is executed 1 + 20 + 2 ms, two at a time; every tenth fails."""
    labels = f'model="{model}",replica="{where}",pool="small",version="1"'
    per_request_us = {"queue": 3000, "compute_input": 1000, "compute_infer": 20_000, "compute_output": 2000}
    return {
        f"nv_inference_request_success{{{labels}}}": counter(0.9 * per_s, times),
        f"nv_inference_exec_count{{{labels}}}": counter(0.45 * per_s, times),
        f'nv_inference_request_failure{{{labels},reason="OTHER"}}': counter(0.1 * per_s, times),
        f'nv_inference_request_failure{{{labels},reason="REJECTED"}}': counter(0.0, times),
        **{
            f"nv_inference_{part}_duration_us{{{labels}}}": counter(0.9 * per_s * us, times)
            for part, us in per_request_us.items()
        },
    }


SAMPLES: Samples = {
    # two minutes without a scrape
    'gateway_requests_total{model="echo"}': counter(10, range(0, 401, 5)) | counter(10, range(520, 601, 5)),
    # its first request comes later
    'gateway_requests_total{model="other"}': counter(4, range(580, 601, 5)),
    **traffic("echo", "small-0", 10, range(0, 601, 5)),
    **traffic("other", "small-1", 0, range(0, 591, 5)),
    # all failed of late; most, which is a client's doing; and a copy whose clients gave up
    'nv_inference_request_failure{model="bad",replica="small-0",reason="BACKEND"}': counter(1, range(560, 601, 5)),
    'nv_inference_request_failure{model="odd",replica="small-0",reason="BACKEND"}': counter(6, range(560, 601, 5)),
    'nv_inference_request_success{model="odd",replica="small-0"}': counter(4, range(560, 601, 5)),
    'nv_inference_request_failure{model="hasty",replica="small-0",reason="CANCELED"}': counter(1, range(560, 601, 5)),
    'triton_placement_copies_needed{model="echo"}': dict.fromkeys((T0 + t for t in range(540, 601, 5)), 3.0),
    "triton_placement_tick_timestamp_seconds": {T0 + t: T0 + t - t % 30 for t in range(540, 601, 5)},
    'triton_placement_tick_seconds{phase="act"}': dict.fromkeys((T0 + t for t in range(540, 601, 5)), 15.0),
    'triton_placement_tick_seconds{phase="observe"}': dict.fromkeys((T0 + t for t in range(540, 601, 5)), 5.0),
    'triton_placement_service_ms{model="echo",gpu_type="small"}': {T0 + 600: 23.0},
    'triton_placement_service_spread_ms{model="echo",gpu_type="small"}': {T0 + 600: 1.5},
    'triton_placement_service_windows{model="echo",gpu_type="small"}': {T0 + 600: 7.0},
    'triton_placement_footprint_bytes{model="echo",gpu_type="small"}': {T0 + 600: 9e7},
    'triton_placement_footprint_spread_bytes{model="echo",gpu_type="small"}': {T0 + 600: 2e6},
    'triton_placement_footprint_looks{model="echo",gpu_type="small"}': {T0 + 600: 12.0},
    'triton_placement_footprint_timestamp_seconds{model="echo",gpu_type="small"}': {T0 + 600: T0 + 590},
    # half of it got lost
    'triton_placement_service_ms{model="other",gpu_type="small"}': {T0 + 600: 9.0},
    'triton_placement_load_failures{model="slow",replica="small-1"}': {T0 + 600: 2.0},
    'triton_placement_load_failed_timestamp_seconds{model="slow",replica="small-1"}': {T0 + 600: T0 + 580},
    'triton_placement_load_failures{model="echo",replica="small-1"}': {T0 + 600: 0.0},
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus_server(tmp_path_factory.mktemp("prometheus"), SAMPLES) as running:
        yield running
