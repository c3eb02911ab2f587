"""Notebooks executed as Jupyter does, and what a reader would see of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
LIVE = ("LOAD_REPORT", "PREFECT_API_URL", "PROMETHEUS_URL", "PLACEMENT_CONFIG", "DEMAND_TRACE", "HORIZON_S")
"""What points a notebook at something else than its recorded data."""
TIMEOUT_S = 120
"""Of a cell: on a busy machine the slowest takes ten seconds."""

Results = Mapping[str, Any]


def read(name: str) -> nbformat.NotebookNode:
    notebook: nbformat.NotebookNode = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def execute(name: str, **environment: str) -> tuple[nbformat.NotebookNode, Results]:
    """The executed notebook, and its ``results`` as its last cell left them; ``environment`` names what is live.

    Raises:
        CellExecutionError: a cell failed.
    """
    notebook = read(name)
    notebook.cells.append(nbformat.v4.new_code_cell("print(results.to_json())"))  # type: ignore[no-untyped-call]
    kernel = {key: value for key, value in os.environ.items() if key not in LIVE} | environment
    where = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(notebook, timeout=TIMEOUT_S, kernel_name="python3", resources=where).execute(env=kernel)
    return notebook, json.loads(notebook.cells[-1].outputs[0].text)


def shown(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    """What the cells showed in this form (a MIME type), in their order."""
    return ["".join(one.data[kind]) for one in _outputs(notebook) if "data" in one and kind in one.data]


def warnings(notebook: nbformat.NotebookNode) -> list[str]:
    """What went to the cells' stderr: a reader would see it, in red."""
    return [one.text for one in _outputs(notebook) if one.output_type == "stream" and one.name == "stderr"]


def _outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]
