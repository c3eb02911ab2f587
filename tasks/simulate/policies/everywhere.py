"""Every model in every replica, the replicas scaled by HPA: what scaling Triton by copying its pod does.

Where not all models fit into one replica, they are divided into as few Deployments as do, each with an HPA of its own.
The metric is the larger of two, each over its target, as HPA does with several: how busy the busiest model's instances
are against ``busy``, and the device against the same; or, with ``is_by_queue``, the mean queue time of the model that
comes closest to its own limit, ``nv_inference_queue_duration_us / nv_inference_request_success``, the metric of
NVIDIA's tutorials for autoscaling Triton on Kubernetes (triton-inference-server/tutorials, ``Deployment/Kubernetes``),
against a share of the objective. Targets are tuned: the best of several is reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tasks.simulate.demand import Floats
from tasks.simulate.fleet import SimulatedFleet
from tasks.simulate.policies.deployments import Deployments, groups
from tasks.simulate.policies.hpa import METRIC_S, SYNC_S, Hpa
from tasks.simulate.tables import LOADED, Ints
from tasks.simulate.traffic import Gateway


@dataclass(slots=True, eq=False)
class Everywhere:
    """Groups of models as Deployments under HPA."""

    target: float = 0.5
    is_by_queue: bool = False
    name: str = "every model everywhere, HPA"
    period_s: float = SYNC_S
    holds_cold: bool = False
    is_busy: bool = False
    _hpa: Hpa = field(init=False)
    _fleet: SimulatedFleet = field(init=False)
    _gateway: Gateway = field(init=False)
    _deployments: Deployments = field(init=False)
    _group: Ints = field(init=False)
    """(models,): the Deployment of each."""

    def begin(self, fleet: SimulatedFleet, gateway: Gateway) -> None:
        self._fleet, self._gateway = fleet, gateway
        self._deployments = Deployments(fleet, *groups(fleet.scenario))
        self._group = np.zeros(len(fleet.scenario.models), dtype=int)
        for group, models in enumerate(self._deployments.models):
            self._group[models] = group
        most = [fleet.scenario.pools[pool].max_replicas for pool in self._deployments.pool]
        self._hpa = Hpa(max_pods=np.array(most))
        self._deployments.set(np.ones(len(self._deployments.models), dtype=int))

    def tick(self) -> None:
        current, ready = self._deployments.counts(), self._deployments.ready()
        ratio = np.full(len(current), np.nan)
        if self._gateway.busy:
            ratio = np.zeros(len(current))
            np.maximum.at(ratio, self._group, self._metric() / self.target)
            if not self.is_by_queue:
                ratio = np.maximum(ratio, self._device(len(current)) / self.target)
        self._deployments.set(self._hpa.pods(self._fleet.now, current, ready, ratio))

    def _metric(self) -> Floats:
        """(models,): mean busy share, or mean queue time as a share of the limit."""
        if not self.is_by_queue:
            return self._gateway.recent(self._gateway.busy, METRIC_S)
        limits_s = np.array([model.objective.queue_ms / 1000 for model in self._fleet.scenario.models])
        queue: Floats = self._gateway.recent(self._gateway.waits, METRIC_S) / limits_s
        return queue

    def _device(self, groups: int) -> Floats:
        """(groups,): mean share of compute in use over the replicas that hold the group."""
        copies, replicas, gateway = self._fleet.copies, self._fleet.replicas, self._gateway
        loaded = np.flatnonzero(copies.state == LOADED)
        group, row = self._group[copies.model[loaded]], copies.replica[loaded]
        pairs = np.unique(np.stack([group, row]), axis=1)
        used = np.resize(gateway.device, len(replicas.state))[pairs[1]] / np.maximum(replicas.compute[pairs[1]], 1e-9)
        count = np.bincount(pairs[0], minlength=groups)
        share: Floats = np.bincount(pairs[0], used, minlength=groups) / np.maximum(count, 1)
        return share
