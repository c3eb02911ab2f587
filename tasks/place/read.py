"""The arrays of a placement, read from an observation and its sizings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.decision import Sizing
from tasks.place.problem import PRESENT, Copies, Ints, Problem, Spots, Wants
from tasks.world import Copy, CopyState, Fleet, Limits, LoadFailure, Model, Observation, Pool, Replica, ReplicaState

LONGEST_BACKOFF_S = 600.0
"""A load that keeps failing is tried again at least this often: somebody may have repaired its files."""
CLOSED = {ReplicaState.LEAVING: "it is leaving", ReplicaState.UNREACHABLE: "it cannot be read"}


def read(observation: Observation, sizings: Sequence[Sizing], limits: Limits) -> Problem:
    """The problem of one tick. Models without a sizing are not placed: they keep nothing and get nothing."""
    fleet = observation.fleet
    model_by_name = fleet.model_by_name
    known = tuple(sizing for sizing in sizings if sizing.model in model_by_name)
    models = tuple(model_by_name[sizing.model] for sizing in known)
    index = {model.name: n for n, model in enumerate(models)}
    spots = _spots(fleet, index)
    spot_index = {name: n for n, name in enumerate(spots.names)}
    routed: dict[int, list[int]] = {}
    for copy in fleet.copies:
        if copy.is_routed and copy.model in index and copy.replica in spot_index:
            routed.setdefault(index[copy.model], []).append(spot_index[copy.replica])
    failures: dict[int, list[tuple[int, int, float]]] = {}
    for failure in observation.load_failures:
        if failure.model in index and failure.replica in spot_index:
            row = (spot_index[failure.replica], failure.count, retry_at(failure, limits.interval_s))
            failures.setdefault(index[failure.model], []).append(row)
    return Problem(
        models=models,
        sizings=known,
        pools=fleet.pools,
        wants=_wants(models, known, fleet.pools),
        spots=spots,
        there=_there(fleet, index, spot_index),
        routed_by_model={model: tuple(replicas) for model, replicas in routed.items()},
        failures_by_model={model: tuple(rows) for model, rows in failures.items()},
        now=observation.now,
        saving_factor=limits.saving_factor,
        margin=limits.margin,
        loads=limits.budget // 2,
        splits_by_weight=fleet.splits_by_weight,
    )


def retry_at(failure: LoadFailure, interval_s: float) -> float:
    """When a failed load may be tried again: after 2, 4, 8... intervals, at most ``LONGEST_BACKOFF_S``."""
    return failure.last_at + min(interval_s * 2.0 ** min(failure.count, 30), LONGEST_BACKOFF_S)


def _wants(models: Sequence[Model], sizings: Sequence[Sizing], pools: Sequence[Pool]) -> Wants:
    copies = np.array([sizing.copies for sizing in sizings], dtype=np.int64)
    footprint, device, capacity = (np.empty((len(models), len(pools))) for _ in range(3))
    allowed = np.empty((len(models), len(pools)), dtype=bool)
    for p, pool in enumerate(pools):
        gpu = pool.gpu_type
        needs = [(model.need_by_gpu_type.get(gpu), sizing) for model, sizing in zip(models, sizings, strict=True)]
        footprint[:, p] = [np.inf if need is None else need.footprint_bytes for need, _ in needs]
        device[:, p] = [0.0 if need is None else s.device_s(need, gpu) for need, s in needs]
        capacity[:, p] = [0.0 if need is None else s.capacity_rps_by_gpu_type.get(gpu, np.inf) for need, s in needs]
        allowed[:, p] = [model.may_live_in(pool) for model in models]
    return Wants(
        names=tuple(model.name for model in models),
        demand_rps=np.array([np.nan if s.demand_rps is None else s.demand_rps for s in sizings], dtype=float),
        copies=copies,
        max_copies=np.maximum(copies, np.array([model.max_copies for model in models], dtype=np.int64)),
        priority=np.array([model.priority for model in models], dtype=np.int64),
        is_pinned=np.array([model.is_pinned for model in models], dtype=bool),
        footprint_bytes=footprint,
        is_allowed=allowed,
        device_s=device,
        capacity_rps=capacity,
    )


def _there(fleet: Fleet, index: dict[str, int], spot_index: dict[str, int]) -> Copies:
    there = [
        copy
        for copy in fleet.copies
        if copy.model in index
        and copy.replica in spot_index
        and copy.state not in (CopyState.ABSENT, CopyState.UNKNOWN)
    ]
    rows = [(index[copy.model], spot_index[copy.replica], _worth(copy)) for copy in there]
    table = np.array(rows, dtype=np.int64).reshape(len(rows), 3)
    weight = [copy.weight if fleet.splits_by_weight else 1.0 for copy in there]
    return Copies(table[:, 0], table[:, 1], table[:, 2], np.array(weight, dtype=float))


def _worth(copy: Copy) -> int:
    if copy.state not in PRESENT:
        return 4
    return 3 if copy.is_failing else 0 if copy.is_serving else 1 if copy.state is CopyState.READY else 2


def staying(fleet: Fleet, pool: Pool) -> list[Replica]:
    """The pool's replicas that are not about to go."""
    return [r for r in fleet.replicas if r.pool == pool.name and r.state is not ReplicaState.LEAVING]


def _spots(fleet: Fleet, index: dict[str, int]) -> Spots:
    pool_index = {pool.name: n for n, pool in enumerate(fleet.pools)}
    there = sorted((r for r in fleet.replicas if r.pool in pool_index), key=lambda replica: replica.name)
    counts = {pool.name: len(staying(fleet, pool)) for pool in fleet.pools}
    new = [
        (p, n, pool)
        for p, pool in enumerate(fleet.pools)
        for n in range(1, max(pool.replicas, pool.max_replicas) - counts[pool.name] + 1)
    ]
    foreign = _foreign(fleet, index)
    pools = [fleet.pools[pool_index[replica.pool]] for replica in there] + [pool for *_, pool in new]
    memory = np.array([r.memory_bytes for r in there] + [pool.memory_bytes for *_, pool in new], dtype=float)
    compute = np.array([r.compute for r in there] + [pool.compute for *_, pool in new], dtype=float)
    headroom = np.array([pool.headroom for pool in pools], dtype=float)
    padding = [False] * len(new)
    return Spots(
        names=tuple([r.name for r in there] + [f"{pool.name}+{n}" for _, n, pool in new]),
        pool=np.array([pool_index[r.pool] for r in there] + [p for p, *_ in new], dtype=np.int64),
        memory_bytes=memory,
        compute=compute,
        room_bytes=np.floor(memory * (1 - headroom)),
        room_compute=compute * (1 - headroom),
        cost_per_hour=np.array([pool.cost_per_hour for pool in pools], dtype=float),
        closed=tuple(CLOSED.get(r.state) or foreign.get(r.name, "") for r in there) + ("",) * len(new),
        keeps=np.array([r.state not in CLOSED for r in there] + [True] * len(new), dtype=bool),
        is_new=np.array([False] * len(there) + [True] * len(new), dtype=bool),
        is_asked=np.array(
            [False] * len(there) + [n <= pool.replicas - counts[pool.name] for _, n, pool in new], dtype=bool
        ),
        is_ready=np.array([r.state is ReplicaState.READY for r in there] + padding, dtype=bool),
        is_ours=np.array([pool.is_scaled_by_us for pool in pools], dtype=bool),
        node=_codes([r.node for r in there], len(new)),
        zone=_codes([r.zone for r in there], len(new)),
    )


def _foreign(fleet: Fleet, index: dict[str, int]) -> dict[str, str]:
    """Replicas whose GPU is not their pool's, or that hold a copy whose footprint is not known: nobody can say what
    room they have."""
    models, replicas, pools = fleet.model_by_name, fleet.replica_by_name, fleet.pool_by_name
    found = {
        replica.name: f"its GPU is {replica.gpu_type}, its pool's is {pools[replica.pool].gpu_type}"
        for replica in fleet.replicas
        if replica.pool in pools and replica.gpu_type != pools[replica.pool].gpu_type
    }
    for copy in fleet.copies:
        if copy.state in (CopyState.ABSENT, CopyState.UNKNOWN) or copy.replica not in replicas:
            continue
        model = models.get(copy.model)
        if copy.model not in index or model is None or (replicas[copy.replica].gpu_type not in model.need_by_gpu_type):
            found.setdefault(copy.replica, f"it holds {copy.model}, whose footprint is not known")
    return found


def _codes(names: Sequence[str], padding: int) -> Ints:
    """Equal names get equal numbers from 0; an empty name, and each of the padding, -1."""
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(name, len(numbers)) if name else -1 for name in names]
    return np.array(codes + [-1] * padding, dtype=np.int64)
