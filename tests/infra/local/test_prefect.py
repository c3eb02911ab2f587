"""What is registered with the local fleet's Prefect server."""

from __future__ import annotations

from pathlib import Path

import yaml

from infra.local.prefect import definition_of


def test_the_schedule_and_the_parameters_come_from_the_configuration() -> None:
    deployments = {d["name"]: d for d in yaml.safe_load(definition_of(Path("/etc/mine.yaml"), 12.5))["deployments"]}
    assert set(deployments) == {"local", "profile", "backtest", "replay"}, "what runs in a cluster is not registered"
    assert {d["parameters"]["config"] for d in deployments.values()} == {"/etc/mine.yaml"}
    assert [s["interval"] for s in deployments["local"]["schedules"]] == [12.5]
    assert [s.get("cron") for s in deployments["backtest"]["schedules"]] == ["30 4 * * *"], "other schedules stay"
