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
from pydantic import ValidationError

from flows.replay import FailureSection, compare, edited, one_line, read_trace, replay, scenario_of
from tasks.config import Config, ConfigError
from tasks.simulate.policies.ours import Ours
from tasks.simulate.scenario import Failure

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
    larger = edited(CONFIG, None, None, {"small": {"memory": "24GiB", "cost_per_hour": 3}}).pools["small"]
    assert (larger.memory, larger.cost_per_hour, larger.max_replicas) == (24 * 2**30, 3, 4)


def test_no_scale_to_zero_keeps_a_copy_of_each_and_more_where_more_were_asked_for() -> None:
    models = {
        name: {"footprint": "1MB", "service_ms": 1, "min_copies": copies} for name, copies in (("a", 0), ("b", 2))
    }
    made = edited(Config.model_validate({"pools": {"p": {"memory": "1GB"}}, "models": models}), None, False, None)
    assert {name: model.min_copies for name, model in made.models.items()} == {"a": 1, "b": 2}


def test_another_gpu_type_brings_its_own_needs() -> None:
    """On t4 40 ms, on l4 15 ms, elsewhere 30 ms; what is declared for t4 means nothing once no pool has it."""
    needs = {"footprint": "1MB", "service_ms": 30, "on": {"t4": {"footprint": "1MB", "service_ms": 40}}}
    pools = {"p": {"memory": "1GB", "gpu_type": "t4"}, "q": {"memory": "1GB", "gpu_type": "l4"}}
    l4 = {"l4": {"footprint": "1MB", "service_ms": 15}}
    config = Config.model_validate({"pools": pools, "models": {"m": {**needs, "on": {**needs["on"], **l4}}}})  # type: ignore[dict-item]
    for gpu_type, service_ms in (("l4", {"l4": 15}), ("a100", {"a100": 30, "l4": 15})):
        (model,) = edited(config, None, None, {"p": {"gpu_type": gpu_type, "cost_per_hour": 2}}).domain_models()
        assert {gpu: need.service_ms for gpu, need in model.need_by_gpu_type.items()} == service_ms


@pytest.mark.parametrize(
    ("queue_ms", "pools", "says"),
    [
        (-1.0, None, "greater than 0"),
        (None, {"large": {"memory": "1GB", "cost_per_hour": 1}}, "there are: small"),
        (None, {"small": {"memory": "x", "cost_per_hour": 1}}, r"pools\.small\.memory: could not"),
        (None, {"small": {"memory": "2GB"}}, r"pools\.small changes the GPU and not what it costs"),
        (None, {"small": {"gpu_type": "l4"}}, "give its cost_per_hour too"),
        (None, {"small": {"speed": 2}}, "allowed: memory, gpu_type, compute"),
        (None, {"small": {"max_replicas": 0}}, "max_replicas 0 is below min_replicas 1"),
    ],
)
def test_a_wrong_edit_is_refused(queue_ms: float | None, pools: dict[str, Any] | None, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        edited(CONFIG, queue_ms, None, pools)


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (Failure(60, "large"), "fails in pool large; there are: small"),
        (Failure(86_400, "small"), "fails at 86400 s; scored are 4200 s"),
    ],
)
def test_a_failure_that_cannot_be_is_refused(failure: Failure, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        scenario_of(CONFIG, trace(7200, "a"), 86_400, (failure,))


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        ({"pool": "small"}, "at_s"),
        ({"at_s": -1, "pool": "small"}, "greater than or equal to 0"),
        ({"at_s": 1, "pool": "small", "for_s": 60}, "for_s"),
    ],
)
def test_a_failure_that_is_not_one_is_refused(failure: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        FailureSection.model_validate(failure)


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
        scenario_of(
            edited(CONFIG, None, None, {"small": {"memory": "300MB", "cost_per_hour": 1}}), trace(7200, "a"), 86_400
        )


def test_a_file_without_its_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.parquet"
    pd.DataFrame({"timestamp": [1], "model": ["a"]}).to_parquet(path)
    with pytest.raises(ValueError, match="no column requests"):
        read_trace(path)


def test_policies_are_compared_and_progress_is_told() -> None:
    told: list[float] = []
    runs = compare(scenario_of(CONFIG, trace(960, "a", "b"), 86_400), told.append)
    assert [run.policy for run in runs][-3:] == ["ours, reactive", Ours(CONFIG.limits.limits()).name,
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
        asked: dict[str, Any] = {"queue_ms": 20, "failures": [{"at_s": 60, "pool": "small"}]}
        state = replay(str(config), str(demand), **asked, return_state=True)
        assert state.is_completed(), state.message
        left: list[Any] = [Artifact.get(f"replay-{key}") for key in ("summary", "policies", "progress")]
    page, table, progress = (artifact.data for artifact in left)
    assert "data:image/svg+xml," in page
    assert "ours, perfect foresight" in str(table)
    assert progress == 100
