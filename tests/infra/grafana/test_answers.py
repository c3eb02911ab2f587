"""Each query is answered by a real Prometheus that holds what a tick, Triton and Envoy publish."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.samples import Sample

from tests.infra.grafana.queries import OF_A_GPU, OF_ENVOY, OF_TRITON, full_tick, of_the_dashboard, of_the_rules
from tests.prometheus_server import Samples, prometheus_server
from tests.worlds import NOW

pytestmark = pytest.mark.servers


def published() -> Samples:
    """Two minutes of what one tick published, and of counters that grow by ten a second."""
    times = [NOW - 120 + 5 * i for i in range(25)]
    series: dict[str, dict[float, float]] = {}
    for sample in (s for family in full_tick() for s in family.samples):
        series[_written(sample)] = dict.fromkeys(times, float(sample.value))
    counters = OF_TRITON | OF_ENVOY | OF_A_GPU
    text = {"model": "a", "envoy_cluster_name": "a", "envoy_response_code_class": "5", "replica": "small-0"}
    for name, labels in counters.items():
        sample = Sample(name, {label: text.get(label, "1") for label in labels}, 0)
        series[_written(sample)] = {at: 10 * (at - times[0]) for at in times}
    return series


def _written(sample: Sample) -> str:
    labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
    return f"{sample.name}{{{labels}}}"


@pytest.fixture(scope="module")
def prometheus_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("prometheus")
    with prometheus_server(folder, published()) as url:
        yield url


def answer(url: str, expression: str) -> list[dict[str, Any]]:
    reply = requests.get(f"{url}/api/v1/query", params={"query": expression, "time": str(NOW)}, timeout=10).json()
    assert reply["status"] == "success", f"{expression}: {reply.get('error')}"
    found: list[dict[str, Any]] = reply["data"]["result"]
    return found


@pytest.mark.parametrize("where", of_the_dashboard())
def test_every_panel_shows_something(where: str, prometheus_url: str) -> None:
    assert answer(prometheus_url, of_the_dashboard()[where]), f"{where} is empty"


@pytest.mark.parametrize("alert", of_the_rules())
def test_every_alert_can_be_evaluated(alert: str, prometheus_url: str) -> None:
    answer(prometheus_url, of_the_rules()[alert])
