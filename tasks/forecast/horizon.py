"""How far ahead a model's demand matters."""

from __future__ import annotations

from tasks.world import Limits, Model, Pool


def horizon_s(model: Model, pools: tuple[Pool, ...], limits: Limits) -> float:
    """How far ahead a model's demand matters: its slowest load, its slowest pool's start, and one interval."""
    load_s = max((need.load_s for need in model.need_by_gpu_type.values()), default=0.0)
    start_s = max((pool.start_s for pool in pools if model.may_live_in(pool)), default=0.0)
    return load_s + start_s + limits.interval_s
