"""Events on the pools' Deployments, read back as ``kubectl describe`` reads them."""

from __future__ import annotations

from functools import partial
from time import gmtime, strftime
from types import SimpleNamespace

import pytest

from tasks.decision import Hold, Outcome, Placement, Plan, Reason, Result, Step, StepKind, Tick
from tasks.fleets.kubernetes import KubernetesFleet, events
from tasks.fleets.kubernetes.call import Json
from tasks.world import Fleet, Observation
from tests.fleets.kubernetes.cluster import Cluster, eventually
from tests.fleets.kubernetes.faults import Faulty

pytestmark = pytest.mark.kubernetes

LOAD = Step(1, StepKind.LOAD, Reason("placed", "9 of 10 GB are free"), "echo", "")
REFUSED = "Triton answers: failed to poll from model repository"
NO_ROOM = Hold("model:other", Reason("no_room", "12 GB wanted, 9 GB free at most"))


@pytest.fixture
def pod(cluster: Cluster) -> str:
    cluster.kubelet()
    cluster.pool("small", 1)
    eventually(lambda: [r.state for r in cluster.fleet().replicas()] == ["ready"])
    return cluster.fleet().replicas()[0].name


def tick(cluster: Cluster, pod: str, result: Result, *, detail: str = "", holds: tuple[Hold, ...] = ()) -> Tick:
    live, models = cluster.fleet(), cluster.config("small").domain_models()
    step = Step(LOAD.id, LOAD.kind, LOAD.reason, LOAD.model, pod)
    seen = Observation(0.0, Fleet(models, live.pools(), live.replicas(), ()))
    outcomes = (Outcome(step, result, 2.5, detail),)
    return Tick("apply", seen, (), (), Placement((), {}), Plan((step,), holds), outcomes)


def described(cluster: Cluster) -> list[tuple[str, str, str, str, int]]:
    """Type, reason, who says so, message and how often: the lines of ``kubectl describe deployment``, which looks for
    Events by these four fields."""
    about = cluster.api.get(cluster.api.path("apps/v1", "deployments", "triton-small"))["metadata"]
    fields = {"kind": "Deployment", "name": about["name"], "namespace": about["namespace"], "uid": about["uid"]}
    selector = ",".join(f"involvedObject.{key}={value}" for key, value in fields.items())
    found = cluster.api.items(cluster.api.path("v1", "events"), fieldSelector=selector)
    ours = [event for event in found if event["source"]["component"] == "triton-placement"]
    return sorted((e["type"], e["reason"], e["source"]["component"], e["message"], e["count"]) for e in ours)


def event(cluster: Cluster, reason: str) -> Json:
    (found,) = (e for e in cluster.api.items(cluster.api.path("v1", "events")) if e["reason"] == reason)
    return found


def test_what_was_done_and_what_was_not_is_on_the_deployment(cluster: Cluster, pod: str) -> None:
    live = cluster.fleet()
    live.tell(tick(cluster, pod, Result.DONE))
    live.tell(tick(cluster, pod, Result.FAILED, detail=REFUSED, holds=(NO_ROOM,)))
    why = "Why: placed: 9 of 10 GB are free"
    us = "triton-placement"
    assert described(cluster) == [
        ("Normal", "Load", us, f"load echo {pod}: done in 2.5 s. {why}", 1),
        ("Warning", "HeldNoRoom", us, "model:other is held. no_room: 12 GB wanted, 9 GB free at most", 1),
        ("Warning", "LoadFailed", us, f"load echo {pod}: failed in 2.5 s. {REFUSED} {why}", 1),
    ]


def test_what_happens_again_is_counted_on(cluster: Cluster, pod: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tick is a fleet of its own: what was told before is read from the cluster."""
    for second, times in ((0, 1), (30, 2), (60, 3)):
        monkeypatch.setattr(events, "time", SimpleNamespace(gmtime=partial(gmtime, 1.7e9 + second), strftime=strftime))
        cluster.fleet().tell(tick(cluster, pod, Result.FAILED, detail=f"{REFUSED}, try {times}"))
    told = event(cluster, "LoadFailed")
    assert told["count"] == 3
    assert (told["firstTimestamp"], told["lastTimestamp"]) == ("2023-11-14T22:13:20Z", "2023-11-14T22:14:20Z")
    assert "try 3" in told["message"]


def test_the_same_twice_in_a_tick_is_counted_twice(cluster: Cluster, pod: str) -> None:
    cluster.fleet().tell(tick(cluster, pod, Result.DONE, holds=(NO_ROOM, NO_ROOM)))
    assert event(cluster, "HeldNoRoom")["count"] == 2


def test_a_deployment_that_was_made_anew_starts_anew(cluster: Cluster, pod: str) -> None:
    cluster.fleet().tell(tick(cluster, pod, Result.DONE, holds=(NO_ROOM,)))
    cluster.delete("apps/v1", "deployments", "triton-small")
    eventually(lambda: pod not in cluster.pods())
    cluster.pool("small", 1)
    eventually(lambda: [r.state for r in cluster.fleet().replicas()] == ["ready"])
    cluster.fleet().tell(tick(cluster, pod, Result.SKIPPED, holds=(NO_ROOM,)))
    assert [(reason, count) for _, reason, _, _, count in described(cluster)] == [("HeldNoRoom", 1)]


def test_it_takes_one_list_and_a_write_for_each_and_nothing_without_news(cluster: Cluster, pod: str) -> None:
    def calls(told: Tick) -> list[tuple[str, int]]:
        live: KubernetesFleet = cluster.fleet()
        faulty = Faulty(live)
        live.tell(told)
        return sorted((method, count) for (method, path), count in faulty.calls.items() if "/events" in path)

    assert calls(tick(cluster, pod, Result.DONE, holds=(NO_ROOM,))) == [("GET", 1), ("PATCH", 1), ("PATCH", 1)]
    assert calls(tick(cluster, pod, Result.SKIPPED)) == []
