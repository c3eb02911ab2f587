"""What goes wrong between the API server and a whole tick, in the middle of it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tasks.config import Config
from tasks.decision import Outcome, Result
from tasks.fleets import FleetBusyError
from tasks.fleets.kubernetes import KubernetesFleet
from tests.fleets.kubernetes.cluster import chart_rights, eventually
from tests.fleets.kubernetes.faults import Faulty
from tests.fleets.kubernetes.stage import Stage, failed

pytestmark = pytest.mark.kubernetes


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
