"""Whole ticks on a real API server, with its controllers, and a real Triton behind every pod."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput

from tasks.decision import Result, StepKind
from tasks.fleets.kubernetes.names import service_name
from tasks.fleets.kubernetes.routing import SLICE_VERSIONS
from tests.fleets.kubernetes.cluster import eventually
from tests.fleets.kubernetes.gateway import Gateway
from tests.fleets.kubernetes.stage import POOLS, Stage, failed, kinds

pytestmark = pytest.mark.kubernetes

DELAY_S = 2.0
"""How late the gateway follows."""


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
    assert kinds(*ticks) == set(StepKind) - {StepKind.WEIGH}, "its gateway splits evenly"
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
    eventually(lambda: "starting" in [r.state for r in stage.cluster.fleet(config).replicas()])
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


def test_a_grpc_client_that_goes_to_the_models_service_is_answered(stage: Stage) -> None:
    """At what the Service's port ``grpc`` leads to."""
    stage.cluster.pool("small", 1)
    one = {"min_copies": 1}
    stage.ticks_until(stage.config(echo=one, other=one), lambda: bool(stage.serving("echo") and stage.serving("other")))
    for model in ("echo", "other"):
        (target,) = grpc_targets(stage, model)
        tensor = InferInput("x", [1], "FP32").set_data_from_numpy(np.array([7.0], dtype=np.float32))
        with InferenceServerClient(target) as client:
            assert client.infer(model, [tensor]).as_numpy("y").tolist() == [7.0]
    assert grpc_targets(stage, "slow") == []


def grpc_targets(stage: Stage, model: str) -> list[str]:
    """host:port of each ready endpoint of the model's Service, by the port's name."""
    api = stage.cluster.api
    selector = f"kubernetes.io/service-name={service_name(model)}"
    path = api.path(api.served(*SLICE_VERSIONS) or "", "endpointslices")
    return [
        f"{address}:{port['port']}"
        for piece in api.items(path, labelSelector=selector)
        for port in piece.get("ports") or []
        for endpoint in piece.get("endpoints") or []
        for address in endpoint["addresses"]
        if port["name"] == "grpc" and endpoint["conditions"]["ready"]
    ]
