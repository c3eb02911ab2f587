"""Every notebook is free of output in git, and runs on its recorded data as it runs on a live fleet."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
RECORDED = FOLDER / "data"
LIVE = ("LOAD_REPORT", "PREFECT_API_URL", "PROMETHEUS_URL", "PLACEMENT_CONFIG", "DEMAND_TRACE", "HORIZON_S")
"""What points a notebook at something else than its recorded data."""

Results = Mapping[str, Any]


def run(name: str, **environment: str) -> tuple[nbformat.NotebookNode, Results]:
    """The executed notebook, and its ``results`` as its last cell left them."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("print(results.to_json())"))
    kernel = {key: value for key, value in os.environ.items() if key not in LIVE} | environment
    client = NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}})
    client.execute(env=kernel)
    return notebook, json.loads(notebook.cells[-1].outputs[0].text)


def outputs(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    """What the cells showed in this form (a MIME type), in their order."""
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return ["".join(output.data[kind]) for output in shown if "data" in output and kind in output.data]


def warnings(notebook: nbformat.NotebookNode) -> list[str]:
    """What went to the cells' stderr: a reader would see it, in red."""
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [output.text for output in shown if output.output_type == "stream" and output.name == "stderr"]


def load_and_decisions(results: Results) -> None:
    report = json.loads((RECORDED / "run" / "report.json").read_text())
    artifacts = json.loads((RECORDED / "run" / "artifacts.json").read_text())
    steps = [step for one in artifacts if one["key"] == "reconcile-steps" for step in json.loads(one["data"])]
    kinds = [step["step"].split()[0] for step in steps if step["result"] == "done"]
    assert results["requests sent"] == report["sent"] > 0
    assert results["requests failed"] == report["failed"]
    assert results["ticks"] == len({one["run"] for one in artifacts}) > 0
    assert results["loads and unloads"] == kinds.count("load") + kinds.count("unload") > 0
    assert 0 < results["copies at most"] < results["copies at most, every model in every replica"]


CHECKS: Mapping[str, tuple[int, Callable[[Results], None]]] = {
    "01_load_and_decisions": (3, load_and_decisions),
}
"""By notebook: the pictures that it draws, and what its results must be on the recorded data."""


def test_every_notebook_is_checked_here() -> None:
    assert sorted(CHECKS) == sorted(path.stem for path in FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("name", CHECKS)
def test_notebook_is_free_of_output(name: str) -> None:
    code = [c for c in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells if c.cell_type == "code"]
    assert code
    assert [cell.source[:60] for cell in code if cell.outputs or cell.execution_count is not None] == []


@pytest.mark.parametrize("name", CHECKS)
def test_notebook_runs_on_its_recorded_data(name: str) -> None:
    pictures, check = CHECKS[name]
    notebook, results = run(name)
    assert len(outputs(notebook, "image/png")) == pictures
    assert warnings(notebook) == []
    check(results)


def test_recorded_data_is_small_and_names_no_place_of_a_machine() -> None:
    files = [path for path in RECORDED.rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) < 500_000
    places = [p.name for p in files for place in (b"/home/", b"/tmp/", b"/work", b"/root/") if place in p.read_bytes()]
    assert places == []
