"""The fleet on Kubernetes: a pool is a Deployment, a replica is a pod, a route is a label that a Service selects.

Nothing is kept between two ticks: labels, annotations and counts in the cluster are all there is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager

from tasks.config import Config, ConfigError
from tasks.decision import Tick
from tasks.fleets import FleetUnreadableError, LiveFleet
from tasks.fleets.kubernetes.api import Api
from tasks.fleets.kubernetes.connection import api_client
from tasks.fleets.kubernetes.events import emit, news
from tasks.fleets.kubernetes.lease import Lease
from tasks.fleets.kubernetes.picture import Picture
from tasks.fleets.kubernetes.routing import Routing
from tasks.fleets.kubernetes.scaling import Scaling
from tasks.sections import KubernetesSection
from tasks.world import Model, Pool, Replica

log = logging.getLogger(__name__)


class KubernetesFleet(LiveFleet):
    """``tasks.fleets.LiveFleet`` for the pools of one namespace. May be used from several threads."""

    def __init__(self, config: Config, api: Api | None = None) -> None:
        """Raises:
        FleetUnreadableError: there is no cluster to talk to.
        """
        if not isinstance(config.fleet, KubernetesSection):
            raise ConfigError(f"fleet.kind is {config.fleet.kind}, not kubernetes")
        self._api = api or connect_api(config.fleet)
        self.prometheus_url = config.metrics.prometheus_url or ""
        self.pushgateway_url = config.metrics.pushgateway_url or ""
        self.linger_s = config.fleet.linger_s
        self._picture = Picture(self._api, config)
        self._routing = Routing(self._api, self._picture, config.fleet)
        self._scaling = Scaling(self._api, self._picture, self._routing)
        self._lease = Lease(self._api)

    def pools(self) -> tuple[Pool, ...]:
        """The configured pools with the count asked for now; those that an HPA scales are not scaled by us."""
        return self._picture.pools()

    def replicas(self) -> tuple[Replica, ...]:
        """Every pod of the pools. READY: its containers are, whatever our readiness gate says."""
        return self._picture.replicas()

    def routes(self) -> Mapping[str, frozenset[str]]:
        """Pods by model that are labelled for it and whose gate is open."""
        return self._picture.routes()

    def failing_copies(self) -> Mapping[tuple[str, str], str]:
        """None: gateways differ in what they know of a pod. Triton's own metrics tell."""
        return {}

    def declare(self, models: Iterable[Model]) -> None:
        """Keep a Service, and with a Gateway an HTTPRoute, for each of these models and for no other; put right what
        somebody changed on the pods."""
        self._routing.keep_costs()
        self._routing.declare(model.name for model in models)

    def route(self, model: str, replica: str) -> None:
        """Send requests of the model to the pod too; return when its endpoint is there and has propagated."""
        self._routing.route(model, replica)

    def unroute(self, model: str, replica: str) -> None:
        """Send no request of the model to the pod; return when its endpoint is gone and that has propagated."""
        self._routing.unroute(model, replica)

    def scale_up(self, pool: str, count: int) -> None:
        """Ask for ``count`` replicas in the pool; never fewer than there are."""
        self._scaling.up(pool, count)

    def scale_down(self, replica: str) -> None:
        """Remove this one, emptied, pod, while no other can be taken instead."""
        self._scaling.down(replica)

    def exclusive(self, timeout_s: float) -> AbstractContextManager[None]:
        """Hold the Lease; wait for another holder at most ``timeout_s``, then raise ``FleetBusyError``."""
        return self._lease.held(timeout_s)

    def still_exclusive(self) -> bool:
        """Whether the Lease is still ours, read again."""
        return self._lease.is_held()

    def tell(self, tick: Tick) -> None:
        """Events on the Deployments for what the tick did and could not do. Never raises: the tick is done."""
        try:
            if found := news(tick):
                emit(found, self._picture.deployments(), self._api)
        except FleetUnreadableError as error:
            log.warning("no Events for this tick: %s", error)


def connect_api(section: KubernetesSection) -> Api:
    client, own_namespace = api_client(section.context)
    return Api(client, section.namespace or own_namespace)
