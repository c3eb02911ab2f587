"""The Job's script, as it is rendered, against a real Prefect server: at an install and once more at an upgrade."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.infra.chart.rendering import release
from tests.watch.prefect_server import ROOT, PrefectServer, prefect_server

pytestmark = pytest.mark.servers

CONFIG = "/etc/triton-placement/placement.yaml"
HEARTBEAT = "/etc/triton-placement/heartbeat.yaml"
SILENT_S = 10
"""In place of 90, the least that Prefect allows."""


def run_job(name: str, server: PrefectServer, folder: Path) -> None:
    """What the Job's container runs, with its environment, where the image has it: beside prefect.yaml."""
    heartbeat = release(name).one("ConfigMap", "demo-config")["data"]["heartbeat.yaml"]
    (folder / "heartbeat.yaml").write_text(heartbeat.replace("within: 90", f"within: {SILENT_S}"))
    container = release(name).register()["spec"]["template"]["spec"]["containers"][0]
    own = {
        v["name"]: v["value"] for v in container["env"] if v["name"] not in ("PREFECT_API_URL", "PREFECT_HOME", "HOME")
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*container["command"], container["args"][0].replace(HEARTBEAT, str(folder / "heartbeat.yaml"))],
        cwd=ROOT,
        env={**server.environment, **own, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    folder = tmp_path_factory.mktemp("prefect")
    with prefect_server(folder) as running:
        run_job("kind-cpu", running, folder)
        run_job("gpu-objectstore", running, folder)
        yield running


@pytest.fixture(scope="module")
def deployments(server: PrefectServer) -> dict[str, dict[str, Any]]:
    return {found["name"]: found for found in server.ask("deployments/filter")}


def test_every_flow_has_a_deployment_in_the_charts_work_pool(deployments: dict[str, dict[str, Any]]) -> None:
    assert set(deployments) == {"kubernetes", "profile", "backtest", "replay"}
    assert {found["work_pool_name"] for found in deployments.values()} == {"triton"}
    assert {found["parameters"]["config"] for found in deployments.values()} == {CONFIG}
    assert deployments["backtest"]["parameters"]["hours"] == 24


def test_an_upgrade_replaces_the_schedules_and_adds_none(deployments: dict[str, dict[str, Any]]) -> None:
    """kind-cpu ticks every 30 s and gpu-objectstore every 20 s; the backtest keeps prefect.yaml's own schedule."""
    schedules = {name: [s["schedule"] for s in found["schedules"]] for name, found in deployments.items()}
    assert [schedule["interval"] for schedule in schedules["kubernetes"]] == [20]
    assert [schedule["cron"] for schedule in schedules["backtest"]] == ["30 4 * * *"]
    assert schedules["profile"] == schedules["replay"] == []


def test_only_the_tick_is_triggered(server: PrefectServer, deployments: dict[str, dict[str, Any]]) -> None:
    """By what the listener tells: the other flows are for a person or the clock to start."""
    started = [
        action["deployment_id"]
        for automation in server.ask("automations/filter")
        for action in automation["actions"]
        if action["type"] == "run-deployment"
    ]
    assert started == [deployments["kubernetes"]["id"]]


def test_of_ticks_and_of_profiles_one_runs_at_a_time(deployments: dict[str, dict[str, Any]]) -> None:
    limited = {name for name, found in deployments.items() if found["global_concurrency_limit"]}
    assert limited == {"kubernetes", "profile"}
    assert {deployments[name]["concurrency_options"]["collision_strategy"] for name in limited} == {"ENQUEUE"}


def test_a_run_whose_process_is_gone_has_crashed_and_a_strangers_is_left_alone(
    server: PrefectServer, deployments: dict[str, dict[str, Any]]
) -> None:
    """Both are said to run and then nothing more is heard of them; the stranger's has no heartbeats, and may live."""
    ours = server.ask(f"deployments/{deployments['replay']['id']}/create_flow_run", {})
    strangers = server.ask("flow_runs/", {"flow_id": deployments["replay"]["flow_id"]})
    for run in (ours, strangers):
        server.ask(f"flow_runs/{run['id']}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    deadline = time.monotonic() + SILENT_S + 30
    while (states := {run["id"]: run["state_type"] for run in server.ask("flow_runs/filter")})[ours["id"]] != "CRASHED":
        assert time.monotonic() < deadline, states
        time.sleep(0.5)
    assert states[strangers["id"]] == "RUNNING"
    assert len([a for a in server.ask("automations/filter") if "heartbeat" in a["name"]]) == 1
