"""The backtest on the demand that a real Prometheus recorded; its artifacts are left in a Prefect of its own."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness

from flows.backtest import backtest
from tests.prometheus_server import prometheus_server

T0 = 1_800_000_000


@pytest.mark.servers
def test_backtest_leaves_a_table_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of 10 req/s for ``vad`` and 4 for ``embed``, scraped every 5 s."""
    samples = {
        f'gateway_requests_total{{model="{model}"}}': {float(T0 + t): rps * t for t in range(0, 3601, 5)}
        for model, rps in {"vad": 10.0, "embed": 4.0}.items()
    }
    monkeypatch.setattr(time, "time", lambda: T0 + 3600.0)
    with prometheus_server(tmp_path, samples) as url, prefect_test_harness(server_startup_timeout=120):
        path = tmp_path / "placement.yaml"
        query = "sum by (model) (rate(gateway_requests_total[{window}]))"
        need = {"footprint": "1MB", "service_ms": 1}
        config = {
            "pools": {"small": {"memory": "1GB", "start_s": 3}},
            "models": {"vad": need, "embed": need},
            "metrics": {"prometheus_url": url, "demand_query": query, "window_s": 20, "step_s": 5, "history_s": 900},
        }
        path.write_text(yaml.safe_dump(config))
        state = backtest(str(path), hours=0.9, return_state=True)
        assert state.message is not None
        assert "loses 0.0% of demand with 0.25 h of history" in state.message
        assert "2 models scored" in state.message
        with get_client(sync_client=True) as client:
            artifacts = {artifact.key: str(artifact.data) for artifact in client.read_artifacts()}
    assert "data:image/svg+xml," in artifacts["backtest-summary"]
    assert '"model": "embed", "demand, req/s": "4.00"' in artifacts["backtest-models"]
