"""A spare replica of a pool: one that holds no model and gets no request, or one more that is started for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.clients.triton import Triton, TritonError
from tasks.fleets import LiveFleet
from tasks.world import Pool, Replica, ReplicaState

FILLED = ("READY", "LOADING", "UNLOADING")
PATIENCE = 3.0
"""Times the pool's start_s until a replica that was asked for is given up."""
LEAST_START_S = 30.0
POLL_S = 0.2


class NoSpareError(Exception):
    """No replica of the pool may be profiled in; the text says why, and what to do."""


@contextmanager
def spare(live: LiveFleet, pool: Pool) -> Iterator[Replica]:
    """A spare replica, to be used while the fleet's lock is held. One that was started for it goes again.

    Raises:
        NoSpareError: each of the pool's replicas serves, and it may have no more; or the new one does not come.
    """
    there = {replica.name for replica in live.replicas()}
    if (empty := _first_empty(live, pool.name)) is not None:
        yield empty
        return
    count = next((p.replicas for p in live.pools() if p.name == pool.name), 0)
    if not pool.is_scaled_by_us:
        raise NoSpareError(f"pool {pool.name}: each replica is taken, and another autoscaler owns the count: add one")
    if count >= pool.max_replicas:
        raise NoSpareError(
            f"pool {pool.name}: each of its {count} replicas serves, and it may have no more: raise max_replicas"
        )
    live.scale_up(pool.name, count + 1)
    try:
        yield _awaited(live, pool, there)
    finally:
        for replica in live.replicas():
            if replica.pool == pool.name and replica.name not in there and _is_empty(replica, live):
                live.scale_down(replica.name)


def _awaited(live: LiveFleet, pool: Pool, before: set[str]) -> Replica:
    limit_s = max(PATIENCE * pool.start_s, LEAST_START_S)
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        new = [r for r in live.replicas() if r.pool == pool.name and r.name not in before]
        for replica in new:
            if replica.state is ReplicaState.READY and _is_empty(replica, live):
                return replica
        time.sleep(POLL_S)
    raise NoSpareError(f"pool {pool.name}: the replica that was asked for is not ready after {limit_s:g} s")


def _first_empty(live: LiveFleet, pool: str) -> Replica | None:
    ready = [r for r in live.replicas() if r.pool == pool and r.state is ReplicaState.READY]
    return next((replica for replica in ready if _is_empty(replica, live)), None)


def _is_empty(replica: Replica, live: LiveFleet) -> bool:
    """No model in it, no request sent to it; one that cannot be read is not known to be empty."""
    if any(replica.name in targets for targets in live.routes().values()):
        return False
    try:
        with Triton(replica) as triton:
            return not any(status.state in FILLED for status in triton.index().values())
    except TritonError:
        return False
