"""What the tests of observe share."""

from __future__ import annotations

from typing import Any

from tasks.config import Config
from tasks.world import Replica, ReplicaState
from tests.triton_server import free_ports

T0 = 1_795_000_000.0
DEMAND = "sum by (model) (rate(gateway_requests_total[{window}]))"


def config(**metrics: object) -> Config:
    return Config.model_validate(
        {
            "pools": {"small": {"memory": "1GB", "max_replicas": 4}},
            "models": {name: {"footprint": "10MB", "service_ms": 20} for name in ("echo", "other", "slow")},
            "limits": {"stale_s": 45, "interval_s": 30, "stabilisation_s": 120},
            "metrics": {"demand_query": DEMAND, "window_s": 20, "step_s": 5, "history_s": 300} | metrics,
        }
    )


def replica(name: str, state: ReplicaState = ReplicaState.READY, **fields: Any) -> Replica:
    return Replica(name, "small", "small", 10**9, 1.0, state, **fields)


def nobody(name: str) -> Replica:
    return replica(name, grpc=f"127.0.0.1:{free_ports(1)[0]}")
