"""The replay flow's own parts: an edited configuration, a trace, a scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from prefect.artifacts import Artifact
from prefect.testing.utilities import prefect_test_harness

from flows.replay import compare, edited, one_line, read_trace, replay, scenario_of
from tasks.config import Config, ConfigError
from tasks.simulate.policies.ours import Ours

CONFIG = Config.model_validate(
    {
        "pools": {"small": {"memory": "1GB", "max_replicas": 4, "start_s": 3}},
        "models": {"a": {"footprint": "200MB", "service_ms": 20}, "b": {"footprint": "300MB", "service_ms": 40}},
        "metrics": {"step_s": 10, "history_s": 1800},
    }
)


def trace(seconds: float, *models: str) -> pd.DataFrame:
    times = np.arange(0, seconds, 60)
    return pd.concat([pd.DataFrame({"timestamp": times, "model": m, "requests": 120}) for m in models])


def test_each_edit_changes_one_thing() -> None:
    assert edited(CONFIG, None, None, None) == CONFIG
    assert {m.queue_ms for m in edited(CONFIG, 20, None, None).models.values()} == {20}
    assert {m.min_copies for m in edited(CONFIG, None, True, None).models.values()} == {0}
    assert edited(CONFIG, None, None, {"small": "24GiB"}).pools["small"].memory == 24 * 2**30


@pytest.mark.parametrize(
    ("queue_ms", "memory", "says"),
    [(-1.0, None, "greater than 0"), (None, {"large": "1GB"}, "there are: small"), (None, {"small": "x"}, "could not")],
)
def test_a_wrong_edit_is_refused(queue_ms: float | None, memory: dict[str, str] | None, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        edited(CONFIG, queue_ms, None, memory)


def test_a_scenario_leaves_a_third_for_history() -> None:
    made = scenario_of(CONFIG, trace(7200, "a", "other"), 86_400)
    # 7140 s: 1800 s of history as configured, a sixth for the start, at most 1800 s
    assert (made.history_s, made.warmup_s) == (1800, 1200)
    assert made.demand.at(made.start).tolist() == [2.0, 0.0]
    assert made.start + made.duration_s <= made.demand.end


@pytest.mark.parametrize(
    ("demand", "says"),
    [(trace(7200, "other"), "the configuration has a, b"), (trace(600, "a"), "too short")],
)
def test_demand_that_says_nothing_is_refused(demand: pd.DataFrame, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        scenario_of(CONFIG, demand, 86_400)


def test_a_model_without_a_place_is_refused() -> None:
    with pytest.raises(ConfigError, match="into no pool's replicas: b"):
        scenario_of(edited(CONFIG, None, None, {"small": "300MB"}), trace(7200, "a"), 86_400)


def test_a_file_without_its_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.parquet"
    pd.DataFrame({"timestamp": [1], "model": ["a"]}).to_parquet(path)
    with pytest.raises(ValueError, match="no column requests"):
        read_trace(path)


def test_policies_are_compared_and_progress_is_told() -> None:
    told: list[float] = []
    runs = compare(scenario_of(CONFIG, trace(960, "a", "b"), 86_400), told.append)
    assert [run.policy for run in runs][-3:] == ["ours, reactive only", Ours(CONFIG.limits.limits()).name,
                                                 "ours, perfect foresight"]  # fmt: skip
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert one_line(runs, 1.0).startswith("ours: cost ")


@pytest.mark.servers
def test_the_flow_leaves_its_table_picture_and_progress(tmp_path: Path) -> None:
    """On a Prefect server of its own."""
    config, demand = tmp_path / "placement.yaml", tmp_path / "demand.parquet"
    config.write_text(yaml.safe_dump(CONFIG.model_dump(mode="json", exclude={"fleet"})))
    trace(960, "a", "b").to_parquet(demand)
    with prefect_test_harness(server_startup_timeout=120):
        state = replay(str(config), str(demand), queue_ms=20, return_state=True)
        assert state.is_completed(), state.message
        left: list[Any] = [Artifact.get(f"replay-{key}") for key in ("summary", "policies", "progress")]
    page, table, progress = (artifact.data for artifact in left)
    assert "data:image/svg+xml," in page
    assert "ours, perfect foresight" in str(table)
    assert progress == 100
