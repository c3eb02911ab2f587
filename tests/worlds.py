"""Small worlds that tests of several modules start from: plain values, nothing mocked."""

from __future__ import annotations

import pandas as pd

from tasks.world import (
    Copy,
    CopyState,
    Fleet,
    Model,
    Need,
    Objective,
    Observation,
    Pool,
    Replica,
)

NOW = 1_800_000_000.0


def model(name: str, footprint_mb: float = 100, service_ms: float = 50, **policy: object) -> Model:
    need = Need(int(footprint_mb * 1e6), service_ms)
    return Model(name, {"small": need, "large": need}, Objective(50.0), **policy)  # type: ignore[arg-type]


def small_fleet() -> Fleet:
    """Three models; ``a`` in both replicas, ``b`` in one, ``c`` loading; 500 MB replicas."""
    replicas = tuple(Replica(f"small-{i}", "small", "small", 500_000_000, 1.0) for i in range(2))
    ready = CopyState.READY
    return Fleet(
        models=(model("a"), model("b", 200), model("c", 150)),
        pools=(Pool("small", "small", 500_000_000, min_replicas=1, max_replicas=3, replicas=2),),
        replicas=replicas,
        copies=(
            Copy("a", "small-0", ready, is_routed=True),
            Copy("b", "small-0", ready, is_routed=True),
            Copy("a", "small-1", ready, is_routed=True),
            Copy("c", "small-1", CopyState.LOADING),
        ),
    )


def demand(rps_by_model: dict[str, float], bins: int = 60, step_s: float = 5.0) -> pd.DataFrame:
    """A flat history that ends now."""
    rows = [(NOW - step_s * i, name, rps) for name, rps in rps_by_model.items() for i in reversed(range(bins))]
    return pd.DataFrame(rows, columns=["time", "model", "demand_rps"])


def observation(rps_by_model: dict[str, float] | None = None, fleet: Fleet | None = None) -> Observation:
    return Observation(NOW, fleet or small_fleet(), demand(rps_by_model or {"a": 10.0, "b": 4.0, "c": 0.0}))
