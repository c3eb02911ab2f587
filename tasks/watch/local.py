"""The local fleet as a listener sees it: asked every second, since supervisord and Envoy tell nobody by themselves."""

from __future__ import annotations

import time
from collections import defaultdict

from tasks.config import Config
from tasks.fleets.local import LocalFleet
from tasks.watch.changes import Seen, Snapshot
from tasks.watch.unserved import from_envoy
from tasks.world import Replica, ReplicaState

LOOK_S = 1.0


class LocalSource:
    """``tasks.watch.sources.Source`` for the servers on this machine."""

    def __init__(self, config: Config) -> None:
        self._live = LocalFleet(config)
        self._doubtful: frozenset[str] = frozenset()
        self._last: dict[str, Seen] = {}

    def look(self) -> Snapshot:
        """Replicas, counts and the gateway's counters now. One that answers nothing is given a second chance: a machine
        out of breath is no lost replica."""
        live = self._live
        replicas = live.replicas()
        carries: defaultdict[str, set[str]] = defaultdict(set)
        for model, names in live.routes().items():
            for name in names:
                carries[name].add(model)
        seen = {replica.name: _seen(replica, carries[replica.name]) for replica in replicas}
        hung = frozenset(r.name for r in replicas if r.state is ReplicaState.UNREACHABLE)
        for name in hung - self._doubtful:
            if name in self._last and self._last[name].life == seen[name].life:
                seen[name] = self._last[name]
        self._doubtful, self._last = hung, seen
        return Snapshot(
            seen,
            {pool.name: pool.replicas for pool in live.pools()},
            unserved_by_model=from_envoy(live.state.address("gateway_admin")),
        )

    def wait(self) -> bool:
        """For a second. Never True: what changed within it is already seen together."""
        time.sleep(LOOK_S)
        return False


def _seen(replica: Replica, carries: set[str]) -> Seen:
    is_ready = replica.state is ReplicaState.READY
    return Seen(replica.pool, replica.life, is_ready, is_ready, frozenset(carries))
