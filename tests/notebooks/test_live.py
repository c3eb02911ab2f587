"""The notebooks on what is live: a real Prefect server with a tick's artifacts, a real Prometheus with counters."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nbclient.exceptions import CellExecutionError
from prefect import flow
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from infra.load.client import Answer, Outcome
from infra.load.profile import Profile, Segment
from infra.load.report import Clock, Sent, summarise
from tasks.record import record
from tasks.world import Limits
from tests.notebooks.executing import execute, shown
from tests.prometheus_server import prometheus_server
from tests.record.test_record import a_tick

pytestmark = pytest.mark.servers

SCRAPE_S = 5
SPAN_S = 1800
RPS_BY_MODEL = {"squeezenet": 8.0, "vad": 20.0}
SERVICE_MS = 20
QUEUE_MS = 3


@flow(name="reconcile")
def a_run() -> None:
    record(a_tick(), Limits(), "127.0.0.1:9")  # no Pushgateway there: logged, not raised


@pytest.fixture
def api_url() -> Iterator[str]:
    """A Prefect server whose last run of the flow left a tick of the models a, b and c behind."""
    with prefect_test_harness(server_startup_timeout=120):
        a_run()
        yield PREFECT_API_URL.value() or ""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Half an hour of a gateway's and Triton's counters: two models, one copy each, until now."""
    end = time.time()
    samples: dict[str, dict[float, float]] = {}
    for model, rps in RPS_BY_MODEL.items():
        # demand goes up and down by a half in ten minutes
        at = np.arange(end - SPAN_S - 60, end, SCRAPE_S)
        rate = rps * (1 + 0.5 * np.sin(2 * np.pi * at / 600))
        count = np.cumsum(np.round(rate * SCRAPE_S)) + 1.0
        for name, each in (
            (f'envoy_cluster_upstream_rq_completed{{envoy_cluster_name="{model}"}}', 1.0),
            (f'envoy_cluster_upstream_rq_cancelled{{envoy_cluster_name="{model}"}}', 0.0),
            (f'nv_inference_request_success{{model="{model}",replica="small-0"}}', 1.0),
            (f'nv_inference_queue_duration_us{{model="{model}",replica="small-0"}}', 1000.0 * QUEUE_MS),
            (f'nv_inference_compute_input_duration_us{{model="{model}",replica="small-0"}}', 0.0),
            (f'nv_inference_compute_infer_duration_us{{model="{model}",replica="small-0"}}', 1000.0 * SERVICE_MS),
            (f'nv_inference_compute_output_duration_us{{model="{model}",replica="small-0"}}', 0.0),
        ):
            samples[name] = dict(zip(at.tolist(), (count * each).tolist(), strict=True))
    with prometheus_server(tmp_path_factory.mktemp("prometheus"), samples) as url:
        yield url


def test_load_and_decisions_reads_the_artifacts_of_the_tick(tmp_path: Path, api_url: str) -> None:
    sent = [Sent(model, t / 10, t / 10, 25.0, Answer(Outcome.SUCCEEDED, 200)) for t in range(300) for model in "ab"]
    profile = Profile("live", 30.0, (Segment("a", 0, 30, 10, 10), Segment("b", 0, 30, 10, 10)))
    summarise(profile, "http://gateway", sent, Clock(time.time() - 40, 30.0, 30.0, 1.0)).write(tmp_path)
    notebook, results = execute("01_load_and_decisions", LOAD_REPORT=str(tmp_path), PREFECT_API_URL=api_url)
    assert shown(notebook, "text/markdown")[0] == f"**Live**: `{tmp_path}` and {api_url}"
    assert "b 1 → 2" in shown(notebook, "text/markdown")[-1]
    assert (results["requests sent"], results["ticks"], results["loads and unloads"]) == (600, 1, 1)


def test_forecasts_read_the_gateways_counters(prometheus: str) -> None:
    notebook, results = execute("02_demand_and_forecasts", PROMETHEUS_URL=prometheus)
    assert "**Live**" in shown(notebook, "text/markdown")[0]
    # the demo's cold model, among others, was never asked for
    assert "vgg19" in shown(notebook, "text/markdown")[0]
    assert results["models"] == len(RPS_BY_MODEL)
    assert results["forecasts scored"] == 2 * 96


def test_capacity_reads_tritons_counters(prometheus: str) -> None:
    _, results = execute("03_capacity", PROMETHEUS_URL=prometheus)
    assert results["models measured under load"] == len(RPS_BY_MODEL)
    # 60 windows of 30 s a model
    assert results["windows"] == pytest.approx(2 * 60, abs=4)
    # M/D/1 at 8 req/s of 20 ms: 0.16 / (50 - 8) / 2 = 1.9 ms; at 20: 0.4 / 30 / 2 = 6.7 ms; 3 ms lie between
    assert results["the same, lowest"] < 1 < results["the same, highest"]


def test_a_prometheus_that_does_not_answer_is_named() -> None:
    with pytest.raises(CellExecutionError, match=r"127\.0\.0\.1:9 does not answer"):
        execute("02_demand_and_forecasts", PROMETHEUS_URL="http://127.0.0.1:9")


def test_prefect_that_does_not_answer_leaves_the_recorded_run(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    dead = "http://127.0.0.1:9/api"
    notebook, _ = execute("01_load_and_decisions", LOAD_REPORT=str(tmp_path), PREFECT_API_URL=dead)
    assert f"Prefect at {dead} does not answer" in shown(notebook, "text/markdown")[0]
