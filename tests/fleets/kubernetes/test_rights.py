"""What the chart grants is enough, and one verb less is not: the error names it."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kubernetes.config import incluster_config

from tasks.decision import Outcome, Placement, Plan, Reason, Result, Step, StepKind, Tick
from tasks.fleets import FleetUnreadableError
from tasks.fleets.kubernetes import KubernetesFleet
from tasks.fleets.kubernetes.connection import api_client
from tasks.world import Fleet, Observation
from tests.fleets.kubernetes.cluster import Cluster, Right, chart_rights, eventually, roll
from tests.fleets.kubernetes.control_plane import ADMIN, ControlPlane

pytestmark = pytest.mark.kubernetes

WORKER = chart_rights("worker")
GATEWAY = {
    "kind": "kubernetes",
    "propagation_s": 0.0,
    "linger_s": 0.0,
    "gateway": {"name": "inference", "namespace": "gateway"},
}
_names = itertools.count(1)


@pytest.fixture(scope="module")
def shared(plane: ControlPlane) -> Iterator[Cluster]:
    """A namespace with a ready pod, for all tests here: each comes with an account of its own."""
    with ExitStack() as stack:
        cluster = Cluster(plane, "rights", stack)
        cluster.kubelet()
        cluster.pool("small", 1)
        eventually(lambda: [r.state for r in cluster.fleet().replicas()] == ["ready"])
        yield cluster


def replaces_a_pod(cluster: Cluster, rights: list[Right]) -> None:
    """What a tick does in a rollout, in a pool that is new."""
    pool = f"rolled-{next(_names)}"
    cluster.pool(pool, 1)
    config = cluster.config(pool)
    fleet = cluster.fleet(config, token=cluster.account(rights))
    try:
        eventually(lambda: [r.state for r in cluster.fleet(config).replicas()] == ["ready"])
        (old,) = (replica.name for replica in cluster.fleet(config).replicas())
        roll(cluster, pool)
        eventually(lambda: {r.name: r.state for r in cluster.fleet(config).replicas()}[old] == "leaving")
        assert {r.name: r.state for r in fleet.replicas()}[old] == "leaving"
        fleet.scale_down(old)
    finally:
        cluster.delete("apps/v1", "deployments", f"triton-{pool}")


def everything(cluster: Cluster, rights: list[Right]) -> None:
    """All else that a tick may do, on a model that is new."""
    model = f"model-{next(_names)}"
    models = {model: {"footprint": "1MB", "service_ms": 1}, "echo": {"footprint": "1MB", "service_ms": 1}}
    config = cluster.config("small", models=models, fleet=GATEWAY)
    fleet = cluster.fleet(config, token=cluster.account(rights))
    eventually(lambda: [r.state for r in cluster.fleet().replicas()] == ["ready"])
    pod = cluster.fleet().replicas()[0].name
    time.sleep(0.2)  # the API server learns of new roles by a watch
    with fleet.exclusive(5):
        pools, replicas = fleet.pools(), fleet.replicas()
        fleet.declare(config.domain_models())
        for kind in ("v1/services", "gateway.networking.k8s.io/v1/httproutes"):
            path = cluster.api.path(*kind.rsplit("/", 1), f"model-{model}")
            cluster.api.patch(path, {"metadata": {"annotations": {"triton-placement/model": "edited"}}})
        fleet.declare(config.domain_models())
        fleet.route(model, pod)
        fleet.unroute(model, pod)
        fleet.declare(m for m in config.domain_models() if m.name == "echo")
        fleet.scale_up("small", pools[0].replicas + 1)
        cluster.api.patch(
            cluster.api.path("apps/v1", "deployments", "triton-small", "scale"), {"spec": {"replicas": 1}}
        )
        step = Step(1, StepKind.LOAD, Reason("placed", "for the test"), model, pod)
        outcomes = (Outcome(step, Result.DONE),)
        seen = Observation(0.0, Fleet(config.domain_models(), pools, replicas, ()))
        fleet.tell(Tick("apply", seen, (), (), Placement((), {}), Plan((step,)), outcomes))


def test_what_the_chart_grants_is_enough(shared: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    everything(shared, WORKER)
    replaces_a_pod(shared, WORKER)
    assert not caplog.records


@pytest.mark.parametrize(("resource", "verb"), [(resource, verb) for _, resource, verbs in WORKER for verb in verbs])
def test_one_verb_less_is_not_enough_and_is_named(
    shared: Cluster, resource: str, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Events are told in the log: without them the tick goes on. So is a lease that cannot be given back."""
    less = [(group, r, [v for v in verbs if (r, v) != (resource, verb)]) for group, r, verbs in WORKER]
    if (resource, verb) == ("leases", "create"):
        shared.delete("coordination.k8s.io/v1", "leases", "triton-placement")
    try:
        (replaces_a_pod if resource.startswith("replicasets") else everything)(shared, less)
        said = caplog.text
    except FleetUnreadableError as error:
        said = str(error)
    assert re.search(f"grants .*'{verb}'.* on '{resource}'", said)


def test_a_pod_of_the_cluster_finds_it_by_its_service_account(
    shared: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(shared.account(WORKER))
    (tmp_path / "namespace").write_text(shared.namespace)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(shared.plane.certificate))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(shared.plane.port))
    sections = {"fleet": {"kind": "kubernetes"}}
    time.sleep(0.2)
    assert len(KubernetesFleet(shared.config("small", **sections)).replicas()) == 1


def test_outside_the_namespace_is_the_contexts(shared: Cluster) -> None:
    _, namespace = api_client("test", shared.plane.kubeconfig(ADMIN, shared.namespace))
    assert namespace == shared.namespace


def test_without_a_cluster_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(FleetUnreadableError, match="set KUBECONFIG, or run in one"):
        api_client(None, tmp_path / "none")
