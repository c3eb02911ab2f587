"""Where a model is at home: the GPU type whose capacity its copies are counted with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from tasks.size.capacity import Capacity
from tasks.world import Model, Pool


def home(model: Model, pools: Iterable[Pool], capacity_by_gpu_type: Mapping[str, Capacity]) -> str:
    """The GPU type on which a request within the objective costs least; of equal ones that of the least capacity.

    Placement puts a copy on a slower GPU only where its share of the requests is within the capacity there, so that
    copies need not be counted as if all were on the slowest. ``pools``: at least one, that may hold the model.
    """

    def badness(pool: Pool) -> tuple[float, float, str]:
        return (
            _cost(model, pool, capacity_by_gpu_type[pool.gpu_type]),
            capacity_by_gpu_type[pool.gpu_type].rps,
            pool.name,
        )

    return min(pools, key=badness).gpu_type


def _cost(model: Model, pool: Pool, capacity: Capacity) -> float:
    """Of one request a second, an hour: its share of a replica, of the scarcer of compute and memory, times the cost.

    A replica of cost 2 with 0.9 device-seconds a second and 900 MB below its headroom, a model of 10 ms a request and
    300 MB a copy for 50 req/s: 2 x max(0.01 / 0.9, 300 / 900 / 50) = 0.022.
    """
    room_bytes = math.floor(pool.memory_bytes * (1 - pool.headroom))
    need = model.need_by_gpu_type[pool.gpu_type]
    if max(pool.max_replicas, pool.replicas) == 0 or need.footprint_bytes > room_bytes or capacity.rps <= 0:
        return math.inf
    device_s = need.device_s_per_request * capacity.station.service_s / (need.service_ms / 1000)
    compute = device_s / max(pool.compute * (1 - pool.headroom), 1e-9)
    return pool.cost_per_hour * max(compute, need.footprint_bytes / room_bytes / capacity.rps)
