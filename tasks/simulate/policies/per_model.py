"""One Deployment a model, each pod with a GPU of its own and under its own HPA: Kubernetes as it comes.

A pod asks for ``nvidia.com/gpu: 1``: the device plugin gives out whole GPUs. The metric is how busy the model's
instances are, against a target that is tuned (the best of several is reported); HPA as in ``hpa``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tasks.simulate.fleet import SimulatedFleet
from tasks.simulate.policies.deployments import Deployments, cheapest_pool
from tasks.simulate.policies.hpa import METRIC_S, SYNC_S, Hpa
from tasks.simulate.traffic import Gateway


@dataclass(slots=True, eq=False)
class PerModel:
    """Deployments of one model each under HPA."""

    target: float = 0.5
    name: str = "one Deployment a model, HPA"
    period_s: float = SYNC_S
    holds_cold: bool = False
    is_busy: bool = False
    _hpa: Hpa = field(init=False)
    _fleet: SimulatedFleet = field(init=False)
    _gateway: Gateway = field(init=False)
    _deployments: Deployments = field(init=False)

    def begin(self, fleet: SimulatedFleet, gateway: Gateway) -> None:
        self._fleet, self._gateway = fleet, gateway
        models = range(len(fleet.scenario.models))
        pools = [cheapest_pool(fleet.scenario, model, is_shared=False) for model in models]
        self._deployments = Deployments(fleet, pools, [[model] for model in models])
        most = [fleet.scenario.pools[pool].max_replicas for pool in self._deployments.pool]
        self._hpa = Hpa(max_pods=np.array(most))
        self._deployments.set(np.ones(len(pools), dtype=int))

    def tick(self) -> None:
        current, ready = self._deployments.counts(), self._deployments.ready()
        ratio = np.full(len(current), np.nan)
        if self._gateway.busy:
            ratio = self._gateway.recent(self._gateway.busy, METRIC_S) / self.target
        self._deployments.set(self._hpa.pods(self._fleet.now, current, ready, ratio))
