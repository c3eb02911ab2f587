"""A cluster whose pods are real Tritons, and whole ticks on it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.act import act
from tasks.config import Config
from tasks.decision import Result, StepKind, Tick
from tasks.fleets import LiveFleet
from tasks.forecast import forecast
from tasks.observe import observe
from tasks.place import place
from tasks.plan import plan
from tasks.size import size
from tests.fleets.kubernetes.cluster import Cluster
from tests.fleets.kubernetes.kubelet import Kubelet
from tests.triton_server import TritonServer, triton_server

POOLS = {
    "small": {"memory": "1GB", "compute": 8, "min_replicas": 1, "max_replicas": 4, "start_s": 5},
    "large": {"memory": "2GB", "compute": 8, "min_replicas": 1, "max_replicas": 2, "start_s": 5},
}
MODEL = {"footprint": "300MB", "service_ms": 20, "queue_ms": 100, "load_s": 2, "max_copies": 4}
_numbers = itertools.count(1)


class Stage:
    """A cluster whose pods are real Tritons, and ticks on it."""

    def __init__(self, cluster: Cluster, folder: Path, prometheus: str) -> None:
        self.cluster, self._folder, self._prometheus = cluster, folder, prometheus
        self.servers: dict[str, TritonServer] = {}
        """By pod, the newest of each."""
        self.kubelet: Kubelet = cluster.kubelet(self._run)

    def config(self, pools: dict[str, Any] | None = None, propagation_s: float = 0.0, **policies: Any) -> Config:
        """``policies``: what differs from ``MODEL`` in a model. ``slow`` is asked by nobody, and known."""
        return self.cluster.config(
            fleet={
                "kind": "kubernetes",
                "namespace": self.cluster.namespace,
                "propagation_s": propagation_s,
                "linger_s": 0.0,
            },
            pools=pools or {"small": POOLS["small"]},
            models={
                name: MODEL | policy for name, policy in {"slow": {"min_copies": 0, "idle_s": 60}, **policies}.items()
            },
            limits={"interval_s": 5, "budget": 8, "stale_s": 30, "stabilisation_s": 0, "act_s": 60},
            metrics={
                "prometheus_url": self._prometheus,
                "pushgateway_url": "http://127.0.0.1:9",
                "demand_query": "max by (model) (asked)",
                "window_s": 20,
                "step_s": 5,
                "history_s": 120,
            },
        )

    def tick(self, config: Config, live: LiveFleet | None = None) -> Tick:
        """As flows/reconcile.py does it, but for Prefect."""
        live = live or self.cluster.fleet(config)
        limits, now = config.limits.limits(), time.time()
        with live.exclusive(1):
            observation = observe(config, live, now)
            forecasts = forecast(observation, limits)
            sizings = size(observation, forecasts, limits)
            placement = place(observation, sizings, limits)
            steps = plan(observation, placement, sizings, limits)
            outcomes = act(steps, live, observation, config, should_stop=lambda: not live.still_exclusive())
        tick = Tick("apply", observation, forecasts, sizings, placement, steps, outcomes)
        live.tell(tick)
        return tick

    def ticks_until(self, config: Config, is_so: Callable[[], bool], most: int = 12) -> list[Tick]:
        ticks: list[Tick] = []
        while not is_so():
            assert len(ticks) < most, [str(outcome) for tick in ticks for outcome in tick.outcomes][-20:]
            ticks.append(self.tick(config))
            time.sleep(0.3)
        return ticks

    def serving(self, model: str) -> dict[str, str]:
        """Pool by pod that carries the model and is Ready."""
        found = self.cluster.fleet(self.config(POOLS) if self._has_large() else None)
        pool_by_pod = {replica.name: replica.pool for replica in found.replicas()}
        return {pod: pool_by_pod[pod] for pod in found.routes().get(model, ()) if pod in pool_by_pod}

    def count(self) -> int:
        return sum("deletionTimestamp" not in pod["metadata"] for pod in self.cluster.pods().values())

    def repositories(self) -> list[Path]:
        """The model repository of each pod that was started."""
        return list(self._folder.glob("*/*/repository"))

    def _has_large(self) -> bool:
        return any("large" in name for name in self.cluster.pods())

    @contextmanager
    def _run(self, pod: str, address: str) -> Iterator[TritonServer]:
        folder = self._folder / f"{next(_numbers)}"
        with triton_server(folder, pod, host=address, ports=(8000, 8001, 8002)) as server:
            self.servers[pod] = server
            yield server


def failed(tick: Tick) -> list[str]:
    return [f"{o.step}: {o.detail}" for o in tick.outcomes if o.result is Result.FAILED]


def kinds(*ticks: Tick) -> set[StepKind]:
    return {o.step.kind for tick in ticks for o in tick.outcomes if o.result is Result.DONE}
