"""Every notebook is free of output in git, and runs on its recorded data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import nbformat
import pandas as pd
import pytest

from infra.load.trace import read_trace
from tasks.config import read_config
from tests.notebooks.executing import FOLDER, Results, execute, read, shown, warnings

RECORDED = FOLDER / "data"


def load_and_decisions(notebook: nbformat.NotebookNode, results: Results) -> None:
    report = json.loads((RECORDED / "run" / "report.json").read_text())
    artifacts = json.loads((RECORDED / "run" / "artifacts.json").read_text())
    steps = [step for one in artifacts if one["key"] == "reconcile-steps" for step in json.loads(one["data"])]
    kinds = [step["step"].split()[0] for step in steps if step["result"] == "done"]
    assert results["requests sent"] == report["sent"] > 0
    assert results["requests failed"] == report["failed"]
    assert results["ticks"] == len({one["run"] for one in artifacts}) > 0
    assert results["loads and unloads"] == kinds.count("load") + kinds.count("unload") > 0
    assert 0 < results["copies at most"] < results["copies at most, every model in every replica"]
    assert "## Placement" in shown(notebook, "text/markdown")[-1]


def demand_and_forecasts(notebook: nbformat.NotebookNode, results: Results) -> None:
    trace = read_trace(RECORDED / "demand" / "servegen_12_clients_10min_10d.parquet")
    assert results["models"] == trace["model"].nunique() == 12
    # 96 origins of 12 models, less what came at zero
    assert 900 < results["forecasts scored"] < 12 * 96
    assert results["loss relative to the last value, mean"] < 1
    assert results["share not above the 0.9 quantile"] == pytest.approx(0.9, abs=0.03)


def capacity(notebook: nbformat.NotebookNode, results: Results) -> None:
    measured = pd.read_parquet(RECORDED / "capacity" / "traffic.parquet")
    models = read_config(FOLDER.parent / "infra" / "local" / "placement.yaml").domain_models()
    footprints = [need.footprint_bytes for model in models for need in [*model.need_by_gpu_type.values()][:1]]
    assert results["models measured under load"] == measured["model"].nunique() == 4
    assert results["windows"] == len(measured)
    assert results["measured / predicted queue time below 80 % load, median"] == pytest.approx(1, abs=0.2)
    assert results["copies that the peaks need"] >= len(footprints)
    assert results["their memory, MB"] >= sum(footprints) / 1e6
    assert results["every model in every replica, MB"] > results["their memory, MB"]


CHECKS: Mapping[str, tuple[int, Callable[[nbformat.NotebookNode, Results], None]]] = {
    "01_load_and_decisions": (3, load_and_decisions),
    "02_demand_and_forecasts": (4, demand_and_forecasts),
    "03_capacity": (3, capacity),
}
"""By notebook: the pictures that it draws, and what its results must be on the recorded data."""


def test_every_notebook_is_checked_here() -> None:
    assert sorted(CHECKS) == sorted(path.stem for path in FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("name", CHECKS)
def test_notebook_is_free_of_output(name: str) -> None:
    code = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert code
    assert [cell.source[:60] for cell in code if cell.outputs or cell.execution_count is not None] == []


@pytest.mark.parametrize("name", CHECKS)
def test_notebook_runs_on_its_recorded_data(name: str) -> None:
    pictures, check = CHECKS[name]
    notebook, results = execute(name)
    assert len(shown(notebook, "image/png")) == pictures
    assert warnings(notebook) == []
    check(notebook, results)


def test_forecasts_of_another_trace() -> None:
    trace = "infra/load/traces/azure_llm2024_1min_6h.parquet"
    notebook, results = execute("02_demand_and_forecasts", DEMAND_TRACE=trace, HORIZON_S="600")
    assert (results["models"], results["forecasts scored"]) == (2, 2 * 96)
    assert "2 models, 360 bins of 60 s" in shown(notebook, "text/markdown")[0]
    assert warnings(notebook) == []


def test_recorded_data_is_small_and_names_no_place_of_a_machine() -> None:
    files = [path for path in RECORDED.rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) < 500_000
    places = [p.name for p in files for place in (b"/home/", b"/tmp/", b"/work", b"/root/") if place in p.read_bytes()]
    assert places == []
