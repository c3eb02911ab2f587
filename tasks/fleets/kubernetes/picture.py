"""The cluster as it is now: one list for each kind, kept for a moment so that many steps share it."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from tasks.config import Config
from tasks.decision import REASONS
from tasks.fleets import FleetUnreadableError
from tasks.fleets.kubernetes.api import Api
from tasks.fleets.kubernetes.call import Json
from tasks.fleets.kubernetes.names import POOL_LABEL
from tasks.fleets.kubernetes.pods import (
    Node,
    is_over,
    is_rolled_out,
    name_of,
    newest,
    node_of,
    pool_of,
    replica,
    routed_models,
    superseded,
)
from tasks.world import Pool, Replica, ReplicaState

FRESH_S = 1.0
"""How old a list of pods may be when a step looks at it. What we write ourselves is in it at once."""
NODES_FRESH_S = 10.0
"""How old a list of nodes may be: it is long, and a node is called down after 40 s at the earliest."""
HPA_VERSIONS = ("autoscaling/v2", "autoscaling/v2beta2", "autoscaling/v1")


class Picture:
    """Pools, replicas and routes as the API server has them. May be used from several threads."""

    def __init__(self, api: Api, config: Config) -> None:
        self._api = api
        self._pools = config.domain_pools()
        self._gpu_types = frozenset(pool.gpu_type for pool in self._pools)
        self._lock = threading.Lock()
        self._pods: dict[str, Json] = {}
        self._read_at = -FRESH_S
        self._node_by_name: dict[str, Node] = {}
        self._nodes_read_at = -NODES_FRESH_S
        self._superseded: frozenset[str] = frozenset()
        self._superseded_read_at = -FRESH_S

    def pools(self) -> tuple[Pool, ...]:
        """With the count asked for now, and whether an HPA owns it."""
        deployments = self.deployments()
        scaled_by_hpa = self._scaled_by_hpa()
        return tuple(
            replace(
                pool,
                replicas=int(deployments[pool.name]["spec"].get("replicas", 1)),
                is_scaled_by_us=pool.is_scaled_by_us and name_of(deployments[pool.name]) not in scaled_by_hpa,
            )
            for pool in self._pools
        )

    def deployments(self) -> dict[str, Json]:
        """By pool.

        Raises:
            FleetUnreadableError: a pool has none, or more than one.
        """
        found: dict[str, Json] = {}
        for deployment in self._api.items(self._api.path("apps/v1", "deployments"), labelSelector=self._selector):
            pool = pool_of(deployment)
            if pool in found:
                both = f"{name_of(found[pool])} and {name_of(deployment)}"
                raise FleetUnreadableError(f"pool {pool}: Deployments {both} are both labelled {POOL_LABEL}={pool}")
            found[pool] = deployment
        if missing := [pool.name for pool in self._pools if pool.name not in found]:
            label = f"the label {POOL_LABEL}={missing[0]}"
            raise FleetUnreadableError(
                f"pool {missing[0]}: no Deployment in namespace {self._api.namespace} has {label}; its pods need it too"
            )
        return found

    def pods(self, max_age_s: float = FRESH_S) -> dict[str, Json]:
        """The pools' pods by name, without those that are over."""
        with self._lock:
            if time.monotonic() - self._read_at > max_age_s:
                listed = self._api.items(self._api.path("v1", "pods"), labelSelector=self._selector)
                self._pods = {name_of(pod): pod for pod in listed if not is_over(pod)}
                self._read_at = time.monotonic()
            return dict(self._pods)

    def pod(self, name: str) -> Json | None:
        """One pod; looked for again before it is called gone."""
        return self.pods().get(name) or self.pods(max_age_s=0).get(name)

    def keep(self, pod: Json) -> None:
        """Take over a pod as the API server answered it to a write of ours."""
        with self._lock:
            self._pods[name_of(pod)] = pod

    def replicas(self) -> tuple[Replica, ...]:
        by_name = {pool.name: pool for pool in self._pools}
        pods = self.pods()
        nodes = self._nodes({pod["spec"].get("nodeName", "") for pod in pods.values()} - {""})
        found = [
            replica(pod, by_name[pool_of(pod)], self._gpu_types, nodes.get(pod["spec"].get("nodeName", ""), Node()))
            for _, pod in sorted(pods.items())
        ]
        old = self.superseded()
        return tuple(
            replace(r, state=ReplicaState.LEAVING, is_superseded=True, detail=REASONS["superseded"])
            if r.name in old and r.state is ReplicaState.READY
            else r
            for r in found
        )

    def superseded(self) -> frozenset[str]:
        """Pods that a rollout of their pool replaces next: of an older revision, while there are more than asked. None
        where somebody has paused it: then the Deployment makes up for every pod that goes."""
        pods = self.pods()
        with self._lock:
            if self._superseded_read_at == self._read_at:
                return self._superseded
            read_at = self._read_at
        pods_by_pool: defaultdict[str, list[Json]] = defaultdict(list)
        for pod in pods.values():
            pods_by_pool[pool_of(pod)].append(pod)
        rolled = [pool for pool, its in pods_by_pool.items() if is_rolled_out(its)]
        found: set[str] = set()
        if rolled:
            sets = self._api.items(self._api.path("apps/v1", "replicasets"), labelSelector=self._selector)
            templates, deployments = newest(sets), self.deployments()
            for pool in rolled:
                spec = deployments[pool]["spec"]
                if not spec.get("paused"):
                    found |= superseded(pods_by_pool[pool], templates.get(pool, ""), int(spec.get("replicas", 1)))
        with self._lock:
            self._superseded, self._superseded_read_at = frozenset(found), read_at
        return frozenset(found)

    def routes(self) -> dict[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        for name, pod in self.pods().items():
            for model in routed_models(pod):
                found.setdefault(model, set()).add(name)
        return {model: frozenset(names) for model, names in found.items()}

    @property
    def _selector(self) -> str:
        return f"{POOL_LABEL} in ({','.join(sorted(pool.name for pool in self._pools))})"

    def _nodes(self, names: set[str]) -> Mapping[str, Node]:
        """Those that are there, and those of ``names`` that are not: down. Read again when a pod is on a node that was
        not seen."""
        is_fresh = time.monotonic() - self._nodes_read_at <= NODES_FRESH_S
        if names and not (is_fresh and names <= self._node_by_name.keys()):
            gone = {name: Node(why_down=f"node {name} is gone") for name in names}
            self._node_by_name = gone | {name_of(node): node_of(node) for node in self._api.items("/api/v1/nodes")}
            self._nodes_read_at = time.monotonic()
        return self._node_by_name

    def _scaled_by_hpa(self) -> set[str]:
        """Names of the Deployments that a HorizontalPodAutoscaler scales."""
        version = self._api.served(*HPA_VERSIONS)
        if version is None:
            return set()
        targets = (
            hpa["spec"]["scaleTargetRef"]
            for hpa in self._api.items(self._api.path(version, "horizontalpodautoscalers"))
        )
        return {target["name"] for target in targets if target["kind"] == "Deployment"}
