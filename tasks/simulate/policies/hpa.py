"""Kubernetes' HorizontalPodAutoscaler, many at once, by its source rather than by its summary.

Rules and constants, of kubernetes v1.33:
- sync every 15 s, tolerance 0.1, scale-down stabilisation 300 s: the defaults of kube-controller-manager
  (``--horizontal-pod-autoscaler-sync-period``, ``-tolerance``, ``-downscale-stabilization``).
- pods without metrics yet count as idle when scaling up, and as at the target when scaling down; a count that the
  recalculation moves across the current one stays (``pkg/controller/podautoscaler/replica_calculator.go``,
  ``calcPlainMetricReplicas``).
- up: at most the larger of 4 pods and 100 % in 15 s, at once; down: at most 100 % in 15 s, to the highest
  recommendation of the last 300 s (``pkg/apis/autoscaling/v2/defaults.go``, ``horizontal.go``,
  ``stabilizeRecommendationWithBehaviors``).

Worked example: 4 pods at 90 % of a target of 60 %: ceil(4 * 1.5) = 6.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tasks.simulate.demand import Floats
from tasks.simulate.tables import Ints

SYNC_S = 15.0
TOLERANCE = 0.1
DOWN_STABILISATION_S = 300.0
UP_PODS, UP_SHARE = 4, 2.0
METRIC_S = 30.0
"""Window of the metric: twice a scrape interval of 15 s, the least with which a rate can be had."""


@dataclass(slots=True, eq=False)
class Hpa:
    """One autoscaler an element."""

    max_pods: Ints
    """``maxReplicas`` of each."""
    min_pods: int = 1
    _recommended: list[tuple[float, Floats]] = field(default_factory=list)

    def pods(self, now: float, current: Ints, ready: Ints, ratio: Floats) -> Ints:
        """How many pods each Deployment should have.

        ``ratio`` is the mean of the metric over its ready pods, divided by the target; not finite: no metric.
        """
        wish = np.where(np.isfinite(ratio) & (ready > 0), _calculated(current, ready, ratio), current)
        self._recommended.append((now, wish))
        self._recommended = [(at, r) for at, r in self._recommended if at > now - DOWN_STABILISATION_S]
        highest = np.max([r for _, r in self._recommended], axis=0)
        stable = np.where(wish > current, wish, np.minimum(highest, current))
        most = np.maximum(current + UP_PODS, np.ceil(current * UP_SHARE))
        pods: Ints = np.clip(np.minimum(stable, most), self.min_pods, self.max_pods).astype(np.int64)
        return pods


def _calculated(current: Ints, ready: Ints, ratio: Floats) -> Floats:
    missing = np.maximum(current - ready, 0)
    with np.errstate(invalid="ignore"):
        plain = np.where(np.abs(ratio - 1) <= TOLERANCE, current, _ceil(ratio * ready))
        # as if those without metrics were idle, or at the target
        filled = np.where(ratio > 1, ratio * ready, ratio * ready + missing)
        again = filled / np.maximum(current, 1)
        crosses = (np.abs(again - 1) <= TOLERANCE) | ((ratio > 1) & (again < 1)) | ((ratio < 1) & (again > 1))
        wish: Floats = np.where(missing == 0, plain, np.where(crosses, current, _ceil(filled)))
    return wish


def _ceil(values: Floats) -> Floats:
    rounded: Floats = np.ceil(np.round(values, 6))
    return rounded
