"""The Prometheus client against a real Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from tasks.clients import prometheus as client
from tasks.clients.prometheus import Prometheus, PrometheusError
from tests.prometheus_server import prometheus_server
from tests.triton_server import free_ports

pytestmark = pytest.mark.servers

T0 = 1_795_000_000.5
"""Not a whole second on purpose: the library under the client rounds its times."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``a`` has a sample every 10 s for 100 s, value = seconds / 10; ``b`` a single 7 at the start."""
    samples = {
        'load{model="a",replica="r0"}': {T0 + 10 * i: float(i) for i in range(11)},
        'load{model="b"}': {T0: 7.0},
    }
    with prometheus_server(tmp_path_factory.mktemp("prometheus"), samples) as running:
        yield running


def test_an_instant_query_is_one_row_a_series(url: str) -> None:
    with Prometheus(url) as prometheus:
        frame = prometheus.instant("load", T0 + 50).sort_values("model", ignore_index=True)
    assert list(frame["model"]) == ["a", "b"]
    assert list(frame["value"]) == [5.0, 7.0]
    assert frame["replica"][0] == "r0"
    assert pd.isna(frame["replica"][1])


def test_nothing_found_is_an_empty_frame(url: str) -> None:
    with Prometheus(url) as prometheus:
        assert prometheus.instant("nothing", T0).empty
        frame = prometheus.history("nothing", T0, 60, 10)
    assert frame.empty
    assert {"time", "value"} <= set(frame)


def test_not_a_number_stays_not_a_number(url: str) -> None:
    with Prometheus(url) as prometheus:
        assert np.isnan(prometheus.instant("0 * load / 0", T0)["value"]).all()


def test_bins_end_where_they_are_asked_to(url: str) -> None:
    """30 s in bins of 10 s: four times; sum_over_time needs a sample within the bin."""
    with Prometheus(url) as prometheus:
        frame = prometheus.history('sum_over_time(load{model="a"}[10s])', T0 + 50, 30, 10)
    assert list(frame["time"]) == [T0 + 20, T0 + 30, T0 + 40, T0 + 50]
    assert list(frame["value"]) == [3.0, 5.0, 7.0, 9.0]  # both ends of the bin count: 1 + 2, 2 + 3, ...


def test_a_gap_has_no_rows(url: str) -> None:
    with Prometheus(url) as prometheus:
        frame = prometheus.history('sum_over_time(load{model="a"}[10s])', T0 + 130, 60, 10)
    assert list(frame["time"]) == [T0 + t for t in (70, 80, 90, 100, 110)]  # at 120 and 130 there was nothing


def test_more_points_than_prometheus_gives_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Prometheus(url) as prometheus:
        at_once = prometheus.history("load", T0 + 100, 100, 0.5)
        monkeypatch.setattr(client, "MAX_POINTS", 30)
        in_parts = prometheus.history("load", T0 + 100, 100, 0.5)
    assert len(at_once) == 2 * 201
    by = ["model", "time"]
    pd.testing.assert_frame_equal(
        at_once.sort_values(by, ignore_index=True), in_parts.sort_values(by, ignore_index=True)
    )


def test_a_span_beyond_prometheus_own_limit_is_answered(url: str) -> None:
    with Prometheus(url) as prometheus:
        assert len(prometheus.history('load{model="a"}', T0 + 100, 12_000, 1)) == 101


def test_a_wrong_query_shows_what_is_wrong(url: str) -> None:
    with Prometheus(url) as prometheus, pytest.raises(PrometheusError, match=r"refuses sum\(: .*parse error.*its UI"):
        prometheus.instant("sum(", T0)


def test_nobody_there_is_told_soon() -> None:
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    began = time.monotonic()
    with Prometheus(address) as prometheus, pytest.raises(PrometheusError, match=rf"{address} does not answer.*check"):
        prometheus.instant("up", T0)
    assert time.monotonic() - began < 1


def test_what_is_not_prometheus_is_told(url: str) -> None:
    wrong = f"{url}/metrics?"  # answers every path with text
    with Prometheus(wrong) as prometheus, pytest.raises(PrometheusError, match="does not speak Prometheus' API"):
        prometheus.instant("up", T0)
