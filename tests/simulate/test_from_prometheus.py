"""Demand from Prometheus' own history: what a real one answers, and what is said when that is of no use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from flows.replay import from_prometheus, scenario_of
from tasks.clients.prometheus import PrometheusError
from tasks.config import Config
from tests.prometheus_server import Samples, prometheus_server
from tests.triton_server import free_ports

T0 = 1_795_000_000.0
HOUR_S = 3600.0
SCRAPES = range(0, int(HOUR_S) + 1, 10)


def counter(before_rps: float, after_rps: float) -> dict[float, float]:
    """Requests so far; the rate changes after half an hour."""
    half = HOUR_S / 2
    return {T0 + t: before_rps * min(t, half) + after_rps * max(0.0, t - half) for t in SCRAPES}


SAMPLES: Samples = {
    'gateway_requests_total{model="a"}': counter(4, 10),
    'gateway_requests_total{model="b"}': counter(2, 2),
    'gateway_requests_total{model="somebody else\'s"}': counter(7, 7),
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus_server(tmp_path_factory.mktemp("prometheus"), SAMPLES) as running:
        yield running


def config(url: str, *models: str, **metrics: Any) -> Config:
    query = "sum by (model) (rate(gateway_requests_total[{window}]))"
    return Config.model_validate(
        {
            "pools": {"small": {"memory": "1GB", "max_replicas": 4}},
            "models": {name: {"footprint": "10MB", "service_ms": 20} for name in models},
            "metrics": {"prometheus_url": url, "demand_query": query, "window_s": 60, "step_s": 30} | metrics,
        }
    )


@pytest.mark.servers
def test_recorded_demand_is_replayed_as_it_was(url: str) -> None:
    settings = config(url, "a", "b")
    trace = from_prometheus(settings, T0 + HOUR_S, HOUR_S)
    assert set(trace["model"]) == {"a", "b"}
    # 60 s have to be seen before the first rate: 119 of the 121 bins of 30 s
    assert trace.groupby("model")["requests"].count().tolist() == [119, 119]
    made = scenario_of(settings, trace, HOUR_S)
    for at_s, a_rps in ((900, 4), (2700, 10)):
        np.testing.assert_allclose(made.demand.at(T0 + at_s), [a_rps, 2], rtol=0.01)


@pytest.mark.servers
def test_a_model_that_nobody_asked_for_is_silent(url: str) -> None:
    settings = config(url, "a", "new")
    made = scenario_of(settings, from_prometheus(settings, T0 + HOUR_S, HOUR_S), HOUR_S)
    assert made.demand.at(T0 + 900)[1] == 0
    assert "no demand was recorded of new" in made.note


@pytest.mark.servers
@pytest.mark.parametrize(
    ("models", "hours_later", "metrics", "found"),
    [
        (("c", "d"), 0, {}, "a, b, somebody else's"),
        (("a", "b"), 5, {}, "no model"),  # nothing was scraped in that hour
        (("a", "b"), 0, {"demand_query": "sum(rate(gateway_requests_total[{window}]))"}, "no model"),  # no such label
        (("a", "b"), 0, {"demand_query": "sum by (model) (rate(misspelt[{window}]))"}, "no model"),
    ],
)
def test_demand_of_no_model_of_ours_names_what_there_is(
    url: str, models: tuple[str, ...], hours_later: int, metrics: dict[str, str], found: str
) -> None:
    with pytest.raises(ValueError, match="no demand of the configuration's models") as raised:
        from_prometheus(config(url, *models, **metrics), T0 + HOUR_S * (1 + hours_later), HOUR_S)
    # T0 is 11:06:40 UTC
    since, until = f"2026-11-18 {11 + hours_later}:06:40", f"2026-11-18 {12 + hours_later}:06:40"
    assert str(raised.value) == (
        f"{url} has no demand of the configuration's models ({', '.join(models)}) from {since} to {until} UTC; it has "
        f"demand of: {found}. Check metrics.prometheus_url and metrics.demand_query"
    )


def test_a_prometheus_that_is_not_there_is_named() -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(PrometheusError, match=f"{url} does not answer"):
        from_prometheus(config(url, "a"), T0, HOUR_S)
