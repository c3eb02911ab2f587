"""The manifests for pools that an HPA or KEDA scales: strictly valid, and an old value is no value."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from cloudcoil.models.keda.v1alpha1 import ScaledObject

from tasks.clients.prometheus import Prometheus
from tests.infra.chart.rendering import CHART, example, release
from tests.prometheus_server import prometheus_server

SERVES_TOLERANCE = ("1.35", "1.36", "1.37")
WANTED = "triton_placement_replicas_wanted"


def queries() -> dict[str, str]:
    """What each asks Prometheus; the adapter fills its template in."""
    (rule,) = example("prometheus-adapter-values")["rules"]["external"]
    filled = rule["metricsQuery"].replace("<<.Series>>", rule["seriesQuery"])
    return {
        "keda": example("keda")["spec"]["triggers"][0]["metadata"]["query"],
        "adapter": filled.replace("<<.LabelMatchers>>", 'pool="h100"'),
    }


@pytest.mark.parametrize("version", SERVES_TOLERANCE)
def test_the_hpa_is_strictly_valid(version: str) -> None:
    kubernetes_validate.validate(example("hpa"), version, strict=True)


def test_the_hpa_is_the_charts_but_for_the_tolerance() -> None:
    ours, charts = example("hpa"), release("gpu-objectstore").one("HorizontalPodAutoscaler", "demo-h100")
    assert ours["spec"]["metrics"] == charts["spec"]["metrics"]
    behavior = ours["spec"]["behavior"]
    assert {direction.pop("tolerance") for direction in behavior.values()} == {"0"}
    assert {name: rest for name, rest in behavior.items() if rest} == charts["spec"]["behavior"]


def test_the_scaled_object_keeps_every_field() -> None:
    """The model of KEDA's CRD drops what it does not know: all of it must come back."""
    manifest = example("keda")
    assert ScaledObject.model_validate(manifest).model_dump(by_alias=True, exclude_unset=True, mode="json") == manifest


def test_no_value_is_an_error_for_keda_and_not_zero() -> None:
    assert example("keda")["spec"]["triggers"][0]["metadata"]["ignoreNullValues"] == "false"


def test_the_scrape_config_does_what_the_pod_monitors_do() -> None:
    jobs = {job["job_name"]: job for job in example("scrape-config")["scrape_configs"]}
    made = release("kind-cpu")
    assert {f"demo-{name}" for name in jobs} == {m["metadata"]["name"] for m in made.of("PodMonitor")}
    for name, job in jobs.items():
        monitor, endpoint = made.one("PodMonitor", f"demo-{name}"), made.endpoint(f"demo-{name}")
        rules = job["relabel_configs"]
        kept = {r["source_labels"][0]: r["regex"] for r in rules if r.get("action") == "keep"}
        labels = {"__meta_kubernetes_pod_label_" + re.sub(r"[./-]", "_", k): v for k, v in selected(monitor).items()}
        assert kept == labels | {"__meta_kubernetes_pod_container_port_name": endpoint["port"]}
        assert [r for r in rules if "action" not in r] == endpoint.get("relabelings", [])
        assert job.get("metric_relabel_configs") == endpoint.get("metricRelabelings")
        assert job.get("honor_labels", False) == endpoint.get("honorLabels", False)
        assert job.get("metrics_path") == endpoint.get("path")
        (discovery,) = job["kubernetes_sd_configs"]
        namespaces = monitor["spec"].get("namespaceSelector", {}).get("matchNames", ["triton"])
        assert discovery == {"role": "pod", "namespaces": {"names": namespaces}}


def selected(monitor: dict[str, Any]) -> dict[str, str]:
    """Labels that a PodMonitor asks for, but for the release's name: yours is another."""
    labels: dict[str, str] = monitor["spec"]["selector"]["matchLabels"]
    return {key: value for key, value in labels.items() if key != "app.kubernetes.io/instance"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus")
def test_prometheus_takes_the_scrape_config(tmp_path: Path) -> None:
    """But for the discovery, which Debian's Prometheus is built without: the test above has its two keys."""
    path, text = tmp_path / "prometheus.yml", (CHART / "examples" / "scrape-config.yaml").read_text()
    path.write_text(text.replace("kubernetes_sd_configs: [", "static_configs: [] # ["))
    done = subprocess.run(["promtool", "check", "config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.servers
def test_an_old_value_is_no_value(tmp_path: Path) -> None:
    now = time.time()
    samples = {
        f'{WANTED}{{pool="h100"}}': {now: 3.0},
        f'{WANTED}{{pool="l4"}}': {now: 7.0},
        f'{WANTED}_timestamp_seconds{{pool="h100"}}': {now: now - 30},
        f'{WANTED}_timestamp_seconds{{pool="l4"}}': {now: now - 30},
    }
    with prometheus_server(tmp_path, samples) as url, Prometheus(url) as prometheus:
        for name, query in queries().items():
            assert prometheus.instant(query, now + 1)["value"].tolist() == [3.0], name
            assert prometheus.instant(query, now + 91)["value"].empty, name  # decided 121 s ago, and still pushed
