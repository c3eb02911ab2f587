"""A replica's GPU type and memory by each source that there is on a cluster, and where they disagree."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.config import Config
from tasks.decision import Tick
from tasks.forecast import forecast
from tasks.observe import observe
from tasks.place import place
from tasks.plan import plan
from tasks.size import size
from tests.fleets.kubernetes.cluster import Cluster, deployment, eventually
from tests.fleets.kubernetes.stage import Stage
from tests.prometheus_server import prometheus_server

pytestmark = pytest.mark.kubernetes

GB, MIB = 10**9, 2**20
LABELS = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "16384"}


@pytest.fixture
def pods(stage: Stage) -> Iterator[list[str]]:
    """One on ``node-a``, whose labels tell of its GPUs, and one on ``node-b``, which has none. Each asks for a GPU."""
    cluster = stage.cluster
    label(cluster, LABELS)
    body = deployment("triton-small", "small", 2)
    body["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    cluster.create("apps/v1", "deployments", body)
    eventually(lambda: [r.state for r in cluster.fleet().replicas()] == ["ready"] * 2)
    yield sorted(cluster.pods(), key=lambda pod: str(cluster.pods()[pod]["spec"]["nodeName"]))
    label(cluster, dict.fromkeys(LABELS))


def label(cluster: Cluster, labels: dict[str, str] | dict[str, None]) -> None:
    cluster.api.patch("/api/v1/nodes/node-a", {"metadata": {"labels": labels}})


def config(cluster: Cluster, prometheus: str) -> Config:
    pool = {"memory": "24GB", "gpu_type": "NVIDIA-L4", "max_replicas": 4}
    where = {"prometheus_url": prometheus, "pushgateway_url": "http://127.0.0.1:9"}
    return cluster.config(pools={"small": pool}, metrics=where)


def test_the_least_of_declaration_label_and_report_counts_and_is_told(
    cluster: Cluster, pods: list[str], tmp_path: Path
) -> None:
    """Declared are 24 GB. The label of ``node-a`` gives 17.18 GB; the pod on ``node-b`` reports 20 GB."""
    labelled, bare = pods
    now = time.time()
    samples = {f'nv_gpu_memory_total_bytes{{replica="{bare}",gpu_uuid="GPU-1"}}': {now - 5: 20.0 * GB}}
    with prometheus_server(tmp_path, samples) as url:
        settings = config(cluster, url)
        seen = observe(settings, cluster.fleet(settings), now)
    assert {r.name: r.memory_bytes for r in seen.fleet.replicas} == {labelled: 16384 * MIB, bare: 20 * GB}
    assert {r.gpu_type for r in seen.fleet.replicas} == {"NVIDIA-L4"}
    (pool,) = seen.fleet.pools
    assert pool.memory_bytes == 16384 * MIB
    limits = settings.limits.limits()
    forecasts = forecast(seen, limits)
    sizings = size(seen, forecasts, limits)
    placement = place(seen, sizings, limits)
    steps = plan(seen, placement, sizings, limits)
    cluster.fleet(settings).tell(Tick("apply", seen, forecasts, sizings, placement, steps))
    says = f"24.00 GB declared, {labelled} has 17.18 GB by its node's nvidia.com/gpu.memory"
    events = cluster.api.items(cluster.api.path("v1", "events"))
    (told,) = (event["message"] for event in events if event["reason"] == "HeldLessMemory")
    assert says in told


def test_without_a_report_the_pod_without_a_label_is_no_larger_than_its_pools_others(
    cluster: Cluster, pods: list[str]
) -> None:
    settings = config(cluster, "http://127.0.0.1:9")
    seen = observe(settings, cluster.fleet(settings), time.time())
    assert {r.memory_bytes for r in seen.fleet.replicas} == {16384 * MIB}
    label(cluster, {"nvidia.com/gpu.memory": None})
    seen = observe(settings, cluster.fleet(settings), time.time())
    assert {r.memory_bytes for r in seen.fleet.replicas} == {24 * GB}
    assert seen.fleet.pools[0].detail == ""
