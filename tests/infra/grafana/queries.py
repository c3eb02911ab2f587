"""Every PromQL expression that the dashboard and the alert rules ask, and the metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
import yaml
from prometheus_client import Metric

from tasks.decision import Result
from tasks.record.metrics import registry
from tasks.world import TRAFFIC_COLUMNS, Learned, LearnedFootprint, LoadFailure, Unknown
from tests.infra.chart.rendering import CHART
from tests.record.test_record import a_tick
from tests.worlds import NOW

OF_TRITON = {
    "nv_inference_queue_duration_us": {"model", "version", "replica", "pool"},
    "nv_inference_request_success": {"model", "version", "replica", "pool"},
}
"""Of a Triton on CPU too; ``replica`` and ``pool`` are given by the scrape."""
OF_A_GPU = {"nv_gpu_memory_used_bytes": {"gpu_uuid", "replica", "pool"}}
OF_ENVOY = {
    "envoy_cluster_upstream_rq_completed": {"envoy_cluster_name"},
    "envoy_cluster_upstream_rq_xx": {"envoy_cluster_name", "envoy_response_code_class"},
}

NAME_AND_SELECTOR = re.compile(r"\b([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})?")
NO_METRIC = re.compile(r'"[^"]*"|\b(?:by|on)\s*\([^)]*\)|\[[^\]]*\]')
"""Strings, lists of labels and ranges."""
WORDS = {"sum", "max", "count", "rate", "avg_over_time", "time", "absent", "vector", "and", "or"}
"""Of PromQL. A new one that is missing here is taken for a metric that does not exist, and a test says so."""


def full_tick() -> list[Metric]:
    """What the code pushes for a tick in which everything happened once."""
    tick = a_tick()
    traffic = pd.DataFrame([("a", "small-0", 5.0, 0.0, 12.0, 50.0)], columns=list(TRAFFIC_COLUMNS))
    failures = (LoadFailure("c", "small-1", 2, NOW - 30),)
    unknown = (Unknown("gateway", "refused the connection"),)
    footprints = {("a", "small"): LearnedFootprint(1e8, 1e6, 8, NOW)}
    seen = replace(tick.observation, traffic=traffic, load_failures=failures, unknown=unknown, footprints=footprints)
    steps = (*tick.outcomes, replace(tick.outcomes[0], result=Result.FAILED))
    learned = replace(tick.sizings[0], learned_by_gpu_type={"small": Learned(50.0, 2.0, 8)})
    sizings = (learned, *tick.sizings[1:])
    return list(registry(replace(tick, observation=seen, sizings=sizings, outcomes=steps)).collect())


def of_the_tick() -> dict[str, set[str]]:
    """Labels by metric of the tick."""
    labels: dict[str, set[str]] = {}
    for family in full_tick():
        assert family.samples, f"{family.name} has no sample, so its labels are not known"
        labels[family.name] = {label for sample in family.samples for label in sample.labels}
    return labels


def of_the_dashboard() -> dict[str, str]:
    """PromQL by where it is asked; the variable ``model`` is everything."""
    board = json.loads((CHART / "files" / "dashboard.json").read_text())
    asked = dict(_expressions(board["panels"]))
    asked |= {f"annotation {a['name']}": a["expr"] for a in board["annotations"]["list"]}
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            asked[f"variable {variable['name']}"] = re.sub(r"label_values\((.+), .+\)", r"\1", variable["query"])
    return {where: expr.replace("$model", ".*") for where, expr in asked.items()}


def _expressions(panels: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for panel in panels:
        for target in panel.get("targets", []):
            yield f"{panel['title']} {target['refId']}", target["expr"]


def of_the_rules() -> dict[str, str]:
    """PromQL by alert."""
    groups = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def metrics_in(expression: str) -> dict[str, set[str]]:
    """Metric names in an expression, each with the labels that its selectors name."""
    found: dict[str, set[str]] = {}
    for name, selector in NAME_AND_SELECTOR.findall(NO_METRIC.sub(" ", expression)):
        if name not in WORDS:
            found.setdefault(name, set()).update(re.findall(r"(\w+)\s*[=!]", selector))
    return found
