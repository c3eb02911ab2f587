"""What is told once the tick is done cannot end it any more."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tasks.config import Config
from tasks.decision import Hold, Placement, Plan, Reason, Tick
from tasks.fleets.kubernetes import KubernetesFleet
from tasks.fleets.kubernetes.api import Api
from tasks.fleets.kubernetes.call import Json
from tasks.fleets.kubernetes.names import POOL_LABEL
from tasks.world import Fleet, Observation

CONFIG = Config.model_validate(
    {
        "pools": {"small": {"memory": "1GB", "max_replicas": 4}},
        "models": {"echo": {"footprint": "10MB", "service_ms": 20}},
        "fleet": {"kind": "kubernetes"},
        "metrics": {"prometheus_url": "http://127.0.0.1:9", "pushgateway_url": "http://127.0.0.1:9"},
    }
)


class TwoForOne(Api):
    """Two Deployments of one pool: which of them is meant cannot be read."""

    def items(self, path: str, **query: Any) -> list[Json]:
        return [{"metadata": {"name": name, "labels": {POOL_LABEL: "small"}}} for name in ("old", "new")]


def test_nothing_is_raised_where_the_deployments_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    fleet = Fleet(CONFIG.domain_models(), CONFIG.domain_pools(), (), ())
    plan = Plan(holds=(Hold("model:echo", Reason("no_room", "nobody has room")),))
    with caplog.at_level(logging.WARNING):
        KubernetesFleet(CONFIG, TwoForOne(None, "default")).tell(
            Tick("apply", Observation(0.0, fleet), (), (), Placement((), {}), plan)
        )
    assert "no Events for this tick: pool small: Deployments old and new are both labelled" in caplog.text
