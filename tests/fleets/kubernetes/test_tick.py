"""Whole ticks on a real API server, with its controllers, and a real Triton behind every pod."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from tasks.act import act
from tasks.config import Config
from tasks.decision import Outcome, Result, StepKind, Tick
from tasks.fleets import FleetBusyError, LiveFleet
from tasks.fleets.kubernetes import KubernetesFleet
from tasks.forecast import forecast
from tasks.observe import observe
from tasks.place import place
from tasks.plan import plan
from tasks.size import size
from tests.fleets.kubernetes.cluster import MODELS, Cluster, chart_rights, eventually, hpa
from tests.fleets.kubernetes.control_plane import ControlPlane
from tests.fleets.kubernetes.faults import Faulty
from tests.fleets.kubernetes.gateway import Gateway
from tests.fleets.kubernetes.kubelet import Kubelet
from tests.prometheus_server import prometheus_server
from tests.triton_server import TritonServer, triton_server

pytestmark = pytest.mark.kubernetes

DELAY_S = 2.0
"""How late the gateway follows."""
POOLS = {
    "small": {"memory": "1GB", "compute": 8, "min_replicas": 1, "max_replicas": 4, "start_s": 5},
    "large": {"memory": "2GB", "compute": 8, "min_replicas": 1, "max_replicas": 2, "start_s": 5},
}
MODEL = {"footprint": "300MB", "service_ms": 20, "queue_ms": 100, "load_s": 2, "max_copies": 4}
_numbers = itertools.count(1)


class Stage:
    """A cluster whose pods are real Tritons, and ticks on it."""

    def __init__(self, cluster: Cluster, folder: Path, prometheus: str, stack: ExitStack) -> None:
        self.cluster, self._folder, self._prometheus = cluster, folder, prometheus
        self.kubelet: Kubelet = cluster.kubelet(self._run)
        self._stack = stack

    def config(self, pools: dict[str, Any] | None = None, propagation_s: float = 0.0, **policies: Any) -> Config:
        """``policies``: what differs from ``MODEL`` in a model. ``slow`` is asked by nobody, and known."""
        return self.cluster.config(
            fleet={"kind": "kubernetes", "namespace": self.cluster.namespace, "propagation_s": propagation_s},
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

    def _has_large(self) -> bool:
        return any("large" in name for name in self.cluster.pods())

    def _run(self, pod: str, address: str) -> AbstractContextManager[TritonServer]:
        folder = self._folder / f"{next(_numbers)}"
        return triton_server(folder, pod, host=address, ports=(8000, 8001, 8002))


@pytest.fixture(scope="module")
def prometheus(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Each model but ``slow`` is asked once a second, from ten minutes ago until in ten minutes."""
    now = time.time()
    rps_by_model = {model: float(model != "slow") for model in MODELS}
    samples = {
        f'asked{{model="{model}"}}': {now + at: rps for at in range(-600, 600, 5)}
        for model, rps in rps_by_model.items()
    }
    with prometheus_server(tmp_path_factory.mktemp("prometheus"), samples) as url:
        yield url


@pytest.fixture
def stage(cluster: Cluster, prometheus: str, pod_network: str, tmp_path: Path) -> Iterator[Stage]:
    if pod_network:
        pytest.skip(pod_network)
    with ExitStack() as stack:
        yield Stage(cluster, tmp_path, prometheus, stack)


def failed(tick: Tick) -> list[str]:
    return [f"{o.step}: {o.detail}" for o in tick.outcomes if o.result is Result.FAILED]


def kinds(*ticks: Tick) -> set[StepKind]:
    return {o.step.kind for tick in ticks for o in tick.outcomes if o.result is Result.DONE}


def test_models_move_and_pools_scale_by_three_and_no_request_fails(stage: Stage, tmp_path: Path) -> None:
    """Behind a gateway that follows the selectors two seconds late; a policy asks for each change."""
    stage.cluster.pool("small", 1)
    stage.cluster.pool("large", 1)
    one = {"min_copies": 1, "pools": ["small"]}
    config = stage.config(POOLS, DELAY_S + 1, echo=one, other=one)
    stage.ticks_until(config, lambda: bool(stage.serving("echo") and stage.serving("other")))
    (tmp_path / "envoy").mkdir()
    with Gateway(stage.cluster, tmp_path / "envoy", DELAY_S).running() as gateway:
        eventually(lambda: {gateway.infer(model) for model in ("echo", "other")} == {200})
        with gateway.load("echo", "other"):
            up = stage.config(POOLS, DELAY_S + 1, echo=one | {"min_copies": 4}, other=one)
            ticks = stage.ticks_until(up, lambda: len(stage.serving("echo")) == 4)
            assert stage.count() == 5
            moved = stage.config(POOLS, DELAY_S + 1, echo=one, other={"min_copies": 1, "pools": ["large"]})
            ticks += stage.ticks_until(moved, lambda: set(stage.serving("other").values()) == {"large"})
            ticks += stage.ticks_until(moved, lambda: stage.count() == 2)
            assert set(stage.serving("echo").values()) == {"small"}
            assert stage.tick(moved).plan.steps == ()
            time.sleep(DELAY_S)
    assert [line for tick in ticks for line in failed(tick)] == []
    assert kinds(*ticks) == set(StepKind)
    assert gateway.wrong == set()
    assert set(gateway.statuses) == {200}
    assert gateway.statuses[200] > 300
    print(f"{gateway.statuses[200]} requests through {len(ticks)} ticks, 0 failed")


def test_a_killed_pod_is_replaced_and_filled_anew(stage: Stage) -> None:
    stage.cluster.pool("small", 2)
    config = stage.config({"small": POOLS["small"]}, echo={"min_copies": 2})
    stage.ticks_until(config, lambda: len(stage.serving("echo")) == 2)
    killed, other = sorted(stage.serving("echo"))
    stage.cluster.delete("v1", "pods", killed)
    eventually(lambda: killed not in stage.cluster.pods())
    stage.ticks_until(config, lambda: len(stage.serving("echo")) == 2)
    assert other in stage.serving("echo")
    assert killed not in stage.serving("echo")
    assert stage.count() == 2


def test_a_restarted_container_and_a_label_edited_by_hand_are_put_right(stage: Stage) -> None:
    stage.cluster.pool("small", 2)
    config = stage.config({"small": POOLS["small"]}, echo={"min_copies": 2}, other={"min_copies": 1})
    stage.ticks_until(config, lambda: len(stage.serving("echo")) == 2 and bool(stage.serving("other")))
    crashed, edited = sorted(stage.serving("echo"))
    stage.kubelet.crash(crashed)
    stage.kubelet.restart(crashed)
    eventually(lambda: [r.state for r in stage.cluster.fleet(config).replicas()] == ["ready"] * 2)
    stage.cluster.label(edited, "model.triton-placement/echo", None)
    stage.cluster.label(edited, "model.triton-placement/slow", "ready")
    ticks = stage.ticks_until(config, lambda: len(stage.serving("echo")) == 2 and not stage.serving("slow"))
    ticks += stage.ticks_until(config, lambda: stage.tick(config).plan.steps == ())
    first = [str(outcome.step) for outcome in ticks[0].outcomes if outcome.result is Result.DONE]
    assert f"unroute slow {edited}" in first
    assert f"route echo {edited}" in first
    assert f"unroute echo {crashed}" in first
    assert {StepKind.LOAD, StepKind.ROUTE} <= kinds(*ticks)


def test_a_replica_that_an_hpa_brings_gets_its_share_by_the_first_tick(stage: Stage) -> None:
    stage.cluster.pool("small", 1)
    config = stage.config({"small": POOLS["small"] | {"owner": "hpa"}}, echo={"min_copies": 2})
    (tick, *_) = stage.ticks_until(config, lambda: len(stage.serving("echo")) == 1)
    assert tick.placement.replicas_by_pool == {"small": 2}, "what is wanted is published"
    assert stage.cluster.scale_of("small") == 1
    hpa(stage.cluster, at_least=2)
    fleet = stage.cluster.fleet(config)
    eventually(lambda: [r.state for r in fleet.replicas()] == ["ready"] * 2, 30)
    time.sleep(1)
    tick = stage.tick(config)
    assert failed(tick) == []
    assert len(stage.serving("echo")) == 2
    costs = {
        pod["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"]
        for pod in stage.cluster.pods().values()
    }
    assert costs == {"1"}


# --- faults in the middle of a whole tick


@pytest.fixture
def settled(stage: Stage) -> Config:
    """One copy of ``echo``; a tick on this configuration loads and routes ``other`` beside it."""
    stage.cluster.pool("small", 1)
    stage.ticks_until(stage.config(echo={"min_copies": 1}), lambda: bool(stage.serving("echo")))
    return stage.config(echo={"min_copies": 1}, other={"min_copies": 1})


def is_whole(stage: Stage) -> bool:
    return bool(stage.serving("echo") and stage.serving("other"))


def test_the_api_server_restarts_in_the_middle_of_a_tick(stage: Stage, settled: Config) -> None:
    plane, live = stage.cluster.plane, stage.cluster.fleet(settled)
    is_down = threading.Event()

    def stop_before_the_label(method: str, path: str, before: int) -> None:
        if method == "PATCH" and "/pods/" in path and not is_down.is_set():
            plane.stop("kube-apiserver")
            is_down.set()

    Faulty(live, stop_before_the_label)
    with ThreadPoolExecutor(1) as pool:
        ticked = pool.submit(stage.tick, settled, live)
        assert is_down.wait(30)
        plane.start_api_server()
        ticked.result()
    stage.ticks_until(settled, lambda: is_whole(stage), 3)


def test_the_first_write_of_each_thing_meets_a_conflict(stage: Stage, settled: Config) -> None:
    """409 on every first write: all is done in this tick all the same."""
    live = stage.cluster.fleet(settled)
    Faulty(live, lambda method, _path, before: (409, {}) if method in ("PATCH", "PUT") and before == 0 else None)
    assert failed(stage.tick(settled, live)) == []
    assert is_whole(stage)


def test_a_pod_that_is_deleted_between_decision_and_act_stops_nothing_else(stage: Stage, settled: Config) -> None:
    live: Any = stage.cluster.fleet(settled)
    (pod,) = stage.serving("echo")

    def delete_before_the_label(method: str, path: str, before: int) -> None:
        if method == "PATCH" and path.endswith(f"/pods/{pod}") and pod in stage.cluster.pods():
            stage.cluster.delete("v1", "pods", pod)
            eventually(lambda: pod not in stage.cluster.pods())

    Faulty(live, delete_before_the_label)
    tick = stage.tick(settled, live)
    assert [line for line in failed(tick) if "not found" in line or "gone" in line]
    stage.ticks_until(settled, lambda: is_whole(stage))
    assert pod not in stage.serving("echo")


def test_of_two_ticks_at_once_one_acts(stage: Stage, settled: Config) -> None:
    def tick(live: KubernetesFleet) -> tuple[Outcome, ...] | None:
        try:
            return stage.tick(settled, live).outcomes
        except FleetBusyError:
            return None

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(tick, (stage.cluster.fleet(settled), stage.cluster.fleet(settled))))
    done = [str(o.step) for outcomes in results for o in outcomes or () if o.result is Result.DONE and o.detail == ""]
    assert len([step for step in done if step.startswith("load other")]) == 1
    assert is_whole(stage)


def test_a_missing_right_ends_the_tick_with_its_name_before_it_acts(stage: Stage, settled: Config) -> None:
    less = [
        (group, resource, [verb for verb in verbs if (resource, verb) != ("horizontalpodautoscalers", "list")])
        for group, resource, verbs in chart_rights("worker")
    ]
    live = stage.cluster.fleet(settled, token=stage.cluster.account(less))
    time.sleep(0.2)
    before = stage.cluster.versions()
    with pytest.raises(Exception, match="grants 'list' on 'horizontalpodautoscalers'"):
        stage.tick(settled, live)
    assert stage.cluster.versions() == before
