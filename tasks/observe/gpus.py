"""Memory of the replicas' GPUs as Triton reports it: a declaration may be too high, hardware is not.

A replica's memory is the least of what is known of it: what the pool declares, what its node's label gives (on
Kubernetes) and what its GPUs report. The least, since a declaration may leave room for others on the GPU, a label tells
the whole GPU where a pod has a share, and a report tells every GPU that the server sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tasks.clients.prometheus import Prometheus, PrometheusError
from tasks.world import Fleet, Pool, Replica

QUERY = "sum by (replica) (nv_gpu_memory_total_bytes) > 0"
"""Zero is reported where the GPU's driver cannot be asked."""


def read_gpu_bytes(url: str, now: float) -> dict[str, int]:
    """Bytes of a replica's GPUs together, by replica. Empty without GPUs, and where Prometheus does not answer, which
    its other queries tell."""
    with Prometheus(url) as prometheus:
        try:
            answer = prometheus.instant(QUERY, now)
        except PrometheusError:
            return {}
    if "replica" not in answer:
        return {}
    return {str(name): int(value) for name, value in zip(answer["replica"], answer["value"], strict=True)}


def within_gpus(fleet: Fleet, gpu_bytes: Mapping[str, int]) -> Fleet:
    """The fleet with no replica larger than its GPUs.

    The replicas of a pool are interchangeable: one whose GPUs have not reported yet, and one that is still to be asked
    for, is no larger than the smallest of its pool. The pool's ``detail`` says so where that is less than declared.
    """
    least = {pool.name: _least(pool, fleet.replicas, gpu_bytes) for pool in fleet.pools}
    replicas = tuple(
        replace(r, memory_bytes=min(r.memory_bytes, gpu_bytes.get(r.name) or least[r.pool].memory_bytes))
        if r.pool in least and _is_own(r, least[r.pool])
        else r
        for r in fleet.replicas
    )
    return replace(fleet, pools=tuple(least.values()), replicas=replicas)


def _least(pool: Pool, replicas: tuple[Replica, ...], gpu_bytes: Mapping[str, int]) -> Pool:
    """The pool with the memory of its smallest replica."""
    own = [r for r in replicas if r.pool == pool.name and _is_own(r, pool)]
    found = [(min(r.memory_bytes, gpu_bytes.get(r.name, r.memory_bytes)), r) for r in own]
    memory_bytes, replica = min(found, key=lambda one: (one[0], one[1].name), default=(pool.memory_bytes, None))
    if replica is None or memory_bytes >= pool.memory_bytes:
        return pool
    who = "nv_gpu_memory_total_bytes" if memory_bytes < replica.memory_bytes else "its node's nvidia.com/gpu.memory"
    text = (
        f"{pool.memory_bytes / 1e9:.2f} GB declared, {replica.name} has {memory_bytes / 1e9:.2f} GB by {who}: "
        f"that counts; declare at most {memory_bytes}"
    )
    return replace(pool, memory_bytes=memory_bytes, detail=text)


def _is_own(replica: Replica, pool: Pool) -> bool:
    """Another GPU than the pool's says nothing of the pool, and nothing is placed on it."""
    return replica.gpu_type == pool.gpu_type
