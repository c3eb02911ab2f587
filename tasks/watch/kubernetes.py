"""The pools of a cluster as a listener sees them: pods, Deployments, HPAs and what the HPAs said."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace

from tasks.config import Config, ConfigError
from tasks.fleets.kubernetes import connect_api
from tasks.fleets.kubernetes.api import Api
from tasks.fleets.kubernetes.call import Json
from tasks.fleets.kubernetes.names import POOL_LABEL
from tasks.fleets.kubernetes.picture import HPA_VERSIONS
from tasks.fleets.kubernetes.pods import (
    is_over,
    is_terminating,
    is_true,
    labelled_models,
    life_of,
    name_of,
    pool_of,
)
from tasks.sections import KubernetesSection
from tasks.watch.changes import Rescale, Seen, Snapshot
from tasks.watch.mirror import Mirror
from tasks.watch.unserved import from_prometheus

LOOK_S = 5.0
"""Between two looks at Prometheus, which scrapes the gateway as often."""
RESCALED = "SuccessfulRescale"


class KubernetesSource:
    """``tasks.watch.sources.Source`` for the pools of one namespace. ``close`` ends its watches."""

    def __init__(self, config: Config, api: Api | None = None) -> None:
        """Raises:
        FleetUnreadableError: there is no cluster to talk to, or a right to list is missing.
        """
        if not isinstance(config.fleet, KubernetesSection):
            raise ConfigError(f"fleet.kind is {config.fleet.kind}, not kubernetes")
        api = api or connect_api(config.fleet)
        self._url, self._query = config.metrics.prometheus_url or "", config.metrics.unserved_query
        self._changed = threading.Event()
        selector = f"{POOL_LABEL} in ({','.join(sorted(config.pools))})"
        on_change = self._changed.set
        self._pods = Mirror(api, api.path("v1", "pods"), on_change, labelSelector=selector)
        self._deployments = Mirror(api, api.path("apps/v1", "deployments"), on_change, labelSelector=selector)
        self._events = Mirror(api, api.path("v1", "events"), on_change, fieldSelector=f"reason={RESCALED}")
        version = api.served(*HPA_VERSIONS)
        self._hpas = Mirror(api, api.path(version, "horizontalpodautoscalers"), on_change) if version else None
        self._mirrors = [m for m in (self._pods, self._deployments, self._events, self._hpas) if m is not None]
        for mirror in self._mirrors:
            mirror.start()
        self._over = threading.Event()
        self._unserved: Mapping[str, float] | None = None
        threading.Thread(target=self._ask_gateway, name="watch-gateway", daemon=True).start()

    def look(self) -> Snapshot:
        """What the watches and Prometheus have told so far."""
        self._changed.clear()
        seen = snapshot(
            self._pods.items(),
            self._deployments.items(),
            self._hpas.items() if self._hpas else (),
            self._events.items(),
        )
        return replace(seen, unserved_by_model=self._unserved)

    def wait(self) -> bool:
        return self._changed.wait(LOOK_S)

    def close(self) -> None:
        self._over.set()
        for mirror in self._mirrors:
            mirror.stop()

    def _ask_gateway(self) -> None:
        """In a thread of its own: a Prometheus that hangs must not hold up what a watch told."""
        while not self._over.is_set():
            found = from_prometheus(self._url, self._query)
            if found is not None and found != self._unserved:
                self._unserved = found
                self._changed.set()
            self._over.wait(LOOK_S)


def snapshot(
    pods: Iterable[Json], deployments: Iterable[Json], hpas: Iterable[Json], events: Iterable[Json]
) -> Snapshot:
    """The fleet as these objects have it; nothing of the gateway. Pure."""
    by_pool = {pool_of(deployment): deployment for deployment in deployments}
    pool_by_deployment = {name_of(deployment): pool for pool, deployment in by_pool.items()}
    targets = {name_of(hpa): hpa["spec"]["scaleTargetRef"] for hpa in hpas}
    rescales: dict[str, Rescale] = {}
    for event in events:
        target = targets.get(event["involvedObject"].get("name", ""), {})
        pool = pool_by_deployment.get(target.get("name", "")) if target.get("kind") == "Deployment" else None
        told = Rescale(_at(event), event.get("message", ""))
        if pool is not None and (pool not in rescales or told.at > rescales[pool].at):
            rescales[pool] = told
    return Snapshot(
        replicas={name_of(pod): _seen(pod) for pod in pods if not is_over(pod)},
        count_by_pool={pool: int(deployment["spec"].get("replicas", 1)) for pool, deployment in by_pool.items()},
        rescale_by_pool=rescales,
    )


def _seen(pod: Json) -> Seen:
    """Its containers' being ready is what a load needs; the pod's being ready is what requests need, and false, too,
    when its node is gone or it was emptied."""
    status = pod.get("status", {})
    is_there = bool(status.get("podIP")) and not is_terminating(pod)
    return Seen(
        pool=pool_of(pod),
        life=life_of(pod),
        is_ready=is_there and is_true(pod, "ContainersReady"),
        is_serving=is_there and is_true(pod, "Ready"),
        carries=labelled_models(pod),
    )


def _at(event: Json) -> str:
    """When it was last seen; API versions differ in where they say so."""
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")
