"""The flows' own pods, and how Prometheus and Grafana find what there is to see."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.watch import told_file
from infra.local.prefect import DEAD_AFTER_S, HEARTBEAT_S
from tasks.watch.changes import LOST, READY, SCALED, UNSERVED, Change
from tasks.watch.tell import events
from tests.infra.chart.rendering import CHART, NAMES, release, rendered, values


def environment(name: str, pod: str) -> dict[str, str]:
    container = release(name).pods()[pod]["spec"]["containers"][0]
    return {v["name"]: v["value"] for v in container["env"]}


@pytest.mark.parametrize("name", NAMES)
def test_the_worker_is_long_lived_and_runs_processes(name: str) -> None:
    container = release(name).pods()["demo-worker"]["spec"]["containers"][0]
    command = " ".join(container["command"])
    assert command.startswith("prefect worker start --type process --pool ")
    assert environment(name, "demo-worker")["PREFECT_API_URL"] == values(name)["prefect"]["apiUrl"]


def registering(name: str) -> dict[str, Any]:
    container: dict[str, Any] = release(name).register()["spec"]["template"]["spec"]["containers"][0]
    return container


def test_the_job_registers_the_pool_and_the_schedule_of_the_limits() -> None:
    (script,) = registering("gpu-objectstore")["args"]
    assert "work-pool create --overwrite --type process" in script
    assert 'deploy --name kubernetes --interval "$INTERVAL_S"' in script
    given = {
        name: {v["name"]: v["value"] for v in registering(name)["env"]} for name in ("gpu-objectstore", "kind-cpu")
    }
    assert given["gpu-objectstore"]["INTERVAL_S"] == "20"
    assert given["gpu-objectstore"]["WORK_POOL"] == "triton"
    assert given["kind-cpu"]["INTERVAL_S"] == "30"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_waits_for_the_replicas(name: str) -> None:
    """A hook would: it runs once all is Ready, which replicas are by a tick, which is registered by this Job."""
    assert [o for o in release(name).items if "helm.sh/hook" in o["metadata"].get("annotations", {})] == []
    for job in release(name).of("Job"):
        assert "ttlSecondsAfterFinished" not in job["spec"], (
            "what is gone Argo CD makes anew, which resumes paused ticks"
        )


CHANGES: dict[str, tuple[dict[str, Any], bool]] = {
    "another interval": ({"placement": values("kind-cpu")["placement"] | {"limits": {"interval_s": 60}}}, True),
    "another work pool": ({"prefect": {"apiUrl": "http://prefect:4200/api", "workPool": "other"}}, True),
    "another image": ({"image": {"repository": "triton-placement/flows", "tag": "0.2.0"}}, True),
    "more models": ({"placement": values("gpu-objectstore")["placement"] | {"limits": {}}}, False),
    "another worker": ({"worker": {"resources": {}}, "disruptionBudget": False}, False),
}


@pytest.mark.parametrize("case", CHANGES)
def test_the_job_has_another_name_once_it_runs_something_else(case: str) -> None:
    """It cannot change, and need not run when what it runs stays as it is."""
    change, is_another = CHANGES[case]
    before = release("kind-cpu").register()["metadata"]["name"]
    own = {key: value for key, value in values("kind-cpu").items() if key != "pools"}
    assert (rendered(own | change).register()["metadata"]["name"] != before) is is_another
    assert re.fullmatch(r"demo-register-[0-9a-f]{8}", before)


def test_what_the_job_registers_is_what_the_listener_tells() -> None:
    """The deployment that it names is in prefect.yaml, without a schedule of its own; its trigger waits for these."""
    (deployment,) = (
        d for d in yaml.safe_load(Path("prefect.yaml").read_text())["deployments"] if d["name"] == "kubernetes"
    )
    assert deployment["schedules"] == []
    (trigger,) = deployment["triggers"]
    assert set(trigger["expect"]) == {READY, LOST, SCALED, UNSERVED}
    (event,) = events([Change(READY, "triton-small-0", "ready for a load", "small")], "kubernetes")
    told = event["resource"]
    assert all(
        told[key] == value or (value == "triton.*" and told[key].startswith("triton."))
        for key, value in trigger["match"].items()
    )


def test_the_job_registers_every_flow_that_prefect_yaml_has() -> None:
    """All but the local fleet's tick, under the names that prefect.yaml gives them, and in the release's own pool."""
    script = registering("kind-cpu")["args"][0]
    names = {d["name"] for d in yaml.safe_load(Path("prefect.yaml").read_text())["deployments"]} - {"local"}
    (loop,) = re.findall(r"for name in (.+?); do", script)
    assert {"kubernetes", *loop.split()} == names
    (command,) = [line for line in script.splitlines() if " deploy " in line and "prefect" in line]
    assert '--pool "$WORK_POOL"' in command
    assert "--param config=/etc/triton-placement/placement.yaml" in command


def test_a_run_tells_that_it_lives_three_times_before_it_is_called_dead() -> None:
    automation = yaml.safe_load((CHART / "files" / "heartbeat.yaml").read_text())
    every_s = int(environment("kind-cpu", "demo-worker")["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    assert automation["trigger"]["within"] >= 3 * every_s
    assert (automation["trigger"]["within"], every_s) == (DEAD_AFTER_S, HEARTBEAT_S), "as on the local fleet"
    script = registering("kind-cpu")["args"][0]
    assert f'automation inspect "{automation["name"]}"' in script, "else each upgrade would make one more"
    (tag,) = re.findall(r"--tag (\S+)", script)
    assert automation["trigger"]["match_related"] == {"prefect.resource.id": f"prefect.tag.{tag}"}


def test_the_secret_comes_as_a_file_and_credentials_as_their_own() -> None:
    container = release("gpu-objectstore").pods()["demo-worker"]["spec"]["containers"][0]
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    where = environment("gpu-objectstore", "demo-worker")["TRITON_CONTROL_SECRET_FILE"]
    assert where.startswith("/etc/triton-control/")
    assert "/etc/triton-control" in mounts
    assert container["envFrom"] == [{"secretRef": {"name": "prefect-credentials"}}]


def test_the_listener_is_started_again_once_its_loop_stands_still() -> None:
    """The probe looks at the file that the loop touches, in the folder that the pod is given."""
    pod = release("kind-cpu").pods()["demo-listener"]["spec"]
    probe = pod["containers"][0]["livenessProbe"]["exec"]["command"]
    file = Path(environment("kind-cpu", "demo-listener")["PREFECT_HOME"]) / told_file("kubernetes").name
    assert f" {file.with_suffix('.alive')} " in probe[-1]


def test_the_listener_alone_is_started_again_for_another_configuration() -> None:
    """It reads it once; a run of the worker's reads it at its start, and a restart would end the tick that runs."""
    own = values("kind-cpu")
    own["placement"]["pools"]["small"]["max_replicas"] += 1
    before, after = release("kind-cpu").pods(), rendered(own).pods()
    assert [name for name, pod in before.items() if pod != after[name]] == ["demo-listener"]


def test_what_can_be_left_out_is_left_out() -> None:
    assert set(release("no-operator").pods()) == {"demo-t4", "demo-worker"}


def test_the_pod_monitor_gives_the_labels_that_the_dashboard_asks_for() -> None:
    monitor = release("kind-cpu").one("PodMonitor", "demo-triton")
    endpoint = monitor["spec"]["podMetricsEndpoints"][0]
    assert {r["targetLabel"] for r in endpoint["relabelings"]} == {"replica", "pool"}
    assert endpoint["port"] in {p["name"] for p in _triton_ports()}
    (source,) = (r["sourceLabels"][0] for r in endpoint["relabelings"] if r["targetLabel"] == "pool")
    labels = release("kind-cpu").replicas()["demo-small"]["metadata"]["labels"]
    (label,) = (key for key in labels if key.endswith("/pool"))
    assert source == "__meta_kubernetes_pod_label_" + "".join(c if c.isalnum() else "_" for c in label)


def _triton_ports() -> list[dict[str, object]]:
    ports: list[dict[str, object]] = release("kind-cpu").replicas()["demo-small"]["spec"]["containers"][0]["ports"]
    return ports


def test_pushed_metrics_keep_their_labels() -> None:
    monitor = release("kind-cpu").one("PodMonitor", "demo-pushgateway")
    assert monitor["spec"]["podMetricsEndpoints"][0]["honorLabels"] is True


def test_without_the_operator_pods_are_annotated() -> None:
    annotations = release("no-operator").replicas()["demo-t4"]["metadata"]["annotations"]
    ports = {p["name"]: p["containerPort"] for p in _triton_ports()}
    assert annotations["prometheus.io/port"] == str(ports["metrics"])


def test_rules_and_dashboard_arrive_as_they_are() -> None:
    rule = release("kind-cpu").one("PrometheusRule", "demo-alerts")
    assert rule["spec"] == yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    board = release("kind-cpu").one("ConfigMap", "demo-dashboard")
    assert json.loads(board["data"]["triton-placement.json"])["uid"] == "triton-placement"
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.parametrize(("interval_s", "overdue_s"), [(0.5, 120), (20, 120), (30, 120), (45.3, 182), (60, 240)])
def test_a_tick_is_overdue_after_four_intervals_and_two_minutes(interval_s: float, overdue_s: int) -> None:
    own = values("kind-cpu")
    own["placement"]["limits"] = {"interval_s": interval_s}
    rules = [
        rule
        for group in rendered(own).one("PrometheusRule", "demo-alerts")["spec"]["groups"]
        for rule in group["rules"]
    ]
    (overdue,) = (rule["expr"] for rule in rules if rule["alert"] == "TritonTickOverdue")
    assert overdue == f"time() - max(triton_placement_tick_timestamp_seconds) > {overdue_s}"


def test_the_operators_objects_carry_the_labels_that_select_them() -> None:
    made = release("claim-strict")
    for item in [*made.of("PodMonitor"), *made.of("PrometheusRule")]:
        assert item["metadata"]["labels"]["release"] == "prometheus"
