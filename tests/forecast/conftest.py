"""A fleet and an observation of nothing but demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import pytest

from tasks.world import Fleet, Model, Need, Objective, Observation, Pool

NOW = 1_700_000_000.0
NAN = float("nan")
Observe = Callable[..., Observation]


@pytest.fixture
def observe() -> Observe:
    """Build an observation from each model's demand, oldest bin first, the last bin ending now."""

    def build(
        demand_by_model: Mapping[str, Sequence[float]],
        *,
        step_s: float = 10.0,
        age_s: float = 0.0,
        start_s: float = 10.0,
    ) -> Observation:
        models = tuple(Model(name, {"small": Need(1, 10.0, load_s=5.0)}, Objective(20.0)) for name in demand_by_model)
        rows = [
            (NOW - age_s - step_s * (len(demand) - 1 - i), name, float(value))
            for name, demand in demand_by_model.items()
            for i, value in enumerate(demand)
        ]
        frame = pd.DataFrame(rows, columns=["time", "model", "demand_rps"])
        pool = Pool("small", "small", 10**9, start_s=start_s)
        return Observation(NOW, Fleet(models, (pool,), (), ()), frame)

    return build
