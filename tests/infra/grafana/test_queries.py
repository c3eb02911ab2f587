"""The dashboard is the generated one, asks only for what exists, and its alerts fire when they should."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from infra.grafana.dashboard import dashboard_json
from tasks.decision import REASONS
from tests.infra.chart.rendering import CHART
from tests.infra.grafana.queries import (
    OF_A_GPU,
    OF_ENVOY,
    OF_TRITON,
    metrics_in,
    of_the_dashboard,
    of_the_rules,
    of_the_tick,
)

RULES = CHART / "files" / "rules.yaml"
RULE_TESTS = Path(__file__).parents[3] / "infra" / "prometheus" / "rules_test.yaml"
ASKED = of_the_dashboard() | of_the_rules()
EXISTING = of_the_tick() | OF_TRITON | OF_A_GPU | OF_ENVOY

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="needs promtool: apt-get install prometheus (Debian), or Prometheus's tarball",
)


def test_the_committed_dashboard_is_the_generated_one() -> None:
    assert (CHART / "files" / "dashboard.json").read_text() == dashboard_json(), (
        "run: python -m infra.grafana.dashboard > infra/helm/triton-placement/files/dashboard.json"
    )


def test_metrics_are_found_in_an_expression() -> None:
    asked = 'sum by (model) (rate(a_total{kind=~"x|y"}[1m])) > 0.5 * max(b) or vector(0)'
    assert metrics_in(asked) == {"a_total": {"kind"}, "b": set()}


@pytest.mark.parametrize("where", ASKED)
def test_every_metric_and_label_that_is_asked_for_exists(where: str) -> None:
    found = metrics_in(ASKED[where])
    assert found
    for metric, labels in found.items():
        assert metric in EXISTING, f"{where}: no {metric}"
        assert labels <= EXISTING[metric], f"{where}: {metric} has no {labels - EXISTING[metric]}"


def test_what_the_tick_publishes_is_shown() -> None:
    """But for the forecast's median, which the upper quantile stands for, and for what only the next tick, or an HPA,
    reads."""
    shown = {metric for expression in of_the_dashboard().values() for metric in metrics_in(expression)}
    assert set(of_the_tick()) - shown == {
        "triton_placement_forecast_median_rps",
        "triton_placement_copies_needed",
        "triton_placement_service_windows",
        "triton_placement_footprint_looks",
        "triton_placement_footprint_timestamp_seconds",
        "triton_placement_replicas_wanted_timestamp_seconds",
    }


def test_panels_are_numbered_and_do_not_overlap() -> None:
    panels = json.loads(dashboard_json())["panels"]
    assert [p["id"] for p in panels] == list(range(1, len(panels) + 1))
    taken = [
        (x, y)
        for p in panels
        for x in range(p["gridPos"]["x"], p["gridPos"]["x"] + p["gridPos"]["w"])
        for y in range(p["gridPos"]["y"], p["gridPos"]["y"] + p["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) == 23


def test_reasons_that_an_alert_leaves_out_are_reasons() -> None:
    (left_out,) = [e.split('code!~"')[1].split('"')[0] for e in of_the_rules().values() if 'code!~"' in e]
    assert set(left_out.split("|")) <= set(REASONS)


def test_every_alert_has_a_test() -> None:
    tested = RULE_TESTS.read_text()
    assert [alert for alert in of_the_rules() if f"alertname: {alert}\n" not in tested] == []


@promtool
def test_rules_are_well_formed() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", "--lint=all", RULES], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_alerts_fire_when_they_should_and_not_otherwise() -> None:
    done = subprocess.run(["promtool", "test", "rules", RULE_TESTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
@pytest.mark.parametrize("old", ["> 120", "== 1\n        for: 15m", ">= 3", "> 0.1 *", "> 0.01 *", "== 0\n"])
def test_a_rule_that_is_wrong_fails_its_test(old: str, tmp_path: Path) -> None:
    """The tests of the rules can fail: each threshold is turned around."""
    text = RULES.read_text()
    new = old.replace(">=", "<").replace("==", "!=").replace("> ", "<= ")
    assert old in text
    (tmp_path / "rules.yaml").write_text(text.replace(old, new))
    tests = RULE_TESTS.read_text().replace("../helm/triton-placement/files/rules.yaml", "rules.yaml")
    (tmp_path / "tests.yaml").write_text(tests)
    done = subprocess.run(["promtool", "test", "rules", tmp_path / "tests.yaml"], capture_output=True, check=False)
    assert done.returncode != 0
