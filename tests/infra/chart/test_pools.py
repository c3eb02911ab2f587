"""What the chart makes of a pool: Triton's flags, its security, its life and death, its repository."""

from __future__ import annotations

from typing import Any

import helm_python as helm
import pytest

from tests.infra.chart.rendering import NAMES, release, rendered, values


def triton(pod: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = pod["spec"]["containers"][0]
    return container


@pytest.mark.parametrize("name", NAMES)
def test_triton_loads_nothing_by_itself_and_its_control_asks_for_the_secret(name: str) -> None:
    for pod in release(name).replicas().values():
        container = triton(pod)
        assert "--model-control-mode=explicit" in container["args"]
        assert "--strict-readiness=false" in container["args"]
        control = "model-repository,model-config,shared-memory,trace,logging:$(TRITON_CONTROL)"
        assert f"--http-restricted-api={control}" in container["args"]
        assert f"--grpc-restricted-protocol={control}" in container["args"]
        assert {v["name"]: "secretKeyRef" in v.get("valueFrom", {}) for v in container["env"]}["TRITON_CONTROL"]


@pytest.mark.parametrize("name", NAMES)
def test_no_container_is_root_or_writes_to_its_image(name: str) -> None:
    for pod in release(name).pods().values():
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert pod["spec"]["securityContext"]["runAsUser"] > 0
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["spec"]["containers"] + pod["spec"].get("initContainers", []):
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"]
            assert not own["allowPrivilegeEscalation"]
            assert own["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", NAMES)
def test_only_who_talks_to_kubernetes_has_a_token(name: str) -> None:
    """The worker and the listener; a replica only with an account of its own, for an object store."""
    has_token = {n for n, pod in release(name).pods().items() if pod["spec"]["automountServiceAccountToken"]}
    with_account = {n for n, pod in release(name).pods().items() if pod["spec"].get("serviceAccountName")}
    assert has_token == with_account
    expected = {"demo-worker"} | ({"demo-listener"} if name != "no-operator" else set())
    assert has_token - set(release(name).replicas()) == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_replica_outlives_its_requests(name: str) -> None:
    """Grace period > preStop (the gateways notice) + exit timeout (requests in flight end)."""
    for pod in release(name).replicas().values():
        container = triton(pod)
        pre_stop_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
        exit_s = next(int(a.split("=")[1]) for a in container["args"] if a.startswith("--exit-timeout-secs"))
        assert pod["spec"]["terminationGracePeriodSeconds"] > pre_stop_s + exit_s


@pytest.mark.parametrize("name", NAMES)
def test_no_probe_asks_whether_models_are_ready(name: str) -> None:
    """/v2/health/ready can say no while a model loads: a probe on it would restart a server that is busy loading."""
    for pod in release(name).replicas().values():
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert triton(pod)[probe]["httpGet"] == {"path": "/v2/health/live", "port": "http"}


@pytest.mark.parametrize("name", NAMES)
def test_an_upgrade_leaves_the_count_alone(name: str) -> None:
    for pool in release(name).replicas():
        assert "replicas" not in release(name).one("Deployment", pool)["spec"]


@pytest.mark.parametrize("name", NAMES)
def test_a_newer_chart_alone_rolls_nothing_out(name: str) -> None:
    """A pod template that names the chart's version changes with it, and each model would be loaded again."""
    for pool, pod in release(name).replicas().items():
        assert pod["metadata"]["labels"] == release(name).one("Deployment", pool)["spec"]["selector"]["matchLabels"]


REPOSITORIES = {
    "kind-cpu": ("/repository", "emptyDir", True),
    "claim-strict": ("/repository", "persistentVolumeClaim", False),
    "gpu-objectstore": ("s3://models/production", None, False),
    "workload-identity": ("gs://models/production", None, False),
}


@pytest.mark.parametrize("name", REPOSITORIES)
def test_the_model_repository_is_read_only(name: str) -> None:
    where, volume_kind, is_copied = REPOSITORIES[name]
    for pod in release(name).replicas().values():
        assert f"--model-repository={where}" in triton(pod)["args"]
        volumes = {v["name"]: v for v in pod["spec"]["volumes"]}
        mounts = {m["name"]: m for m in triton(pod)["volumeMounts"]}
        assert ("repository" in volumes) == (volume_kind is not None)
        if volume_kind:
            assert volume_kind in volumes["repository"]
            assert mounts["repository"]["readOnly"]
        assert bool(pod["spec"].get("initContainers")) == is_copied


TMP = {"demo-l4": "30Gi", "demo-h100": "100Gi", "demo-l40s": "60Gi"}


@pytest.mark.parametrize("name", NAMES)
def test_tmp_has_room_for_what_triton_downloads(name: str) -> None:
    """With an object store more than the replica's memory, since the files of all its models are there; else 2 GiB."""
    for pool, pod in release(name).replicas().items():
        (tmp,) = (v["emptyDir"]["sizeLimit"] for v in pod["spec"]["volumes"] if v["name"] == "tmp")
        assert tmp == TMP.get(pool, "2Gi")
        if "objectStore" in values(name)["triton"]["repository"]:
            memory = values(name)["placement"]["pools"][pool.removeprefix("demo-")]["memory"]
            assert int(tmp.removesuffix("Gi")) > int(memory.removesuffix("GiB"))


def test_an_object_store_without_room_for_its_files_is_refused() -> None:
    own = values("gpu-objectstore")
    del own["pools"]["l4"]["tmp"]
    with pytest.raises(helm.HelmRenderError, match=r"pools\.l4\.tmp: .*evicted.*poolDefaults\.tmp"):
        rendered(own)


def test_a_pools_settings_replace_the_defaults() -> None:
    pods = release("gpu-objectstore").replicas()
    for pool, product, shm in (("l4", "NVIDIA-L4", "1Gi"), ("h100", "NVIDIA-H100-80GB-HBM3", "8Gi")):
        pod = pods[f"demo-{pool}"]
        assert pod["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": product}
        assert triton(pod)["resources"]["limits"] == {"memory": "32Gi", "nvidia.com/gpu": 1}
        assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shm}} in pod["spec"]["volumes"]
    assert "--model-load-gpu-limit=0:0.95" in triton(pods["demo-h100"])["args"]
    assert "--model-load-gpu-limit=0:0.95" not in triton(pods["demo-l4"])["args"]


def test_gpus_by_another_name_and_none_at_all() -> None:
    strict, cpu = (release(name).replicas() for name in ("claim-strict", "kind-cpu"))
    assert triton(strict["demo-a10"])["resources"] == {"limits": {"nvidia.com/mig-2g.20gb": 1}}
    assert triton(cpu["demo-small"])["resources"]["limits"] == {"memory": "1200Mi"}


def test_an_hpa_owns_the_count_where_the_configuration_says_so() -> None:
    hpas = release("gpu-objectstore").of("HorizontalPodAutoscaler")
    assert [h["metadata"]["name"] for h in hpas] == ["demo-h100"]
    spec = hpas[0]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 4)
    external = spec["metrics"][0]["external"]
    assert external["metric"]["selector"] == {"matchLabels": {"pool": "h100"}}
    assert external["target"] == {"type": "AverageValue", "averageValue": "1"}
    assert release("workload-identity").of("HorizontalPodAutoscaler") == []


@pytest.mark.parametrize("name", NAMES)
def test_disruption_budgets_select_their_pool_alone(name: str) -> None:
    budgets = release(name).of("PodDisruptionBudget")
    assert len(budgets) == (0 if name == "no-operator" else len(release(name).replicas()))
    for budget in budgets:
        wanted = budget["spec"]["selector"]["matchLabels"].items()
        chosen = [n for n, p in release(name).pods().items() if wanted <= p["metadata"]["labels"].items()]
        assert chosen == [budget["metadata"]["name"]]


def test_a_secret_that_is_given_is_used_and_none_is_made() -> None:
    assert release("claim-strict").of("Secret") == []
    pod = release("claim-strict").replicas()["demo-a10"]
    source = next(v for v in triton(pod)["env"] if v["name"] == "TRITON_CONTROL")
    assert source["valueFrom"]["secretKeyRef"] == {"name": "triton-control", "key": "control"}


@pytest.mark.parametrize("name", NAMES)
def test_a_rollout_leaves_the_time_to_empty_a_replica_and_is_not_called_stuck_for_it(name: str) -> None:
    for pool in release(name).replicas():
        spec = release(name).one("Deployment", pool)["spec"]
        assert spec["minReadySeconds"] == 300
        assert spec["progressDeadlineSeconds"] >= 300 + 300 + 600


def test_a_rollout_without_a_gpu_to_spare() -> None:
    rolling = release("claim-strict").one("Deployment", "demo-a10")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 0, "maxUnavailable": 1}


def test_a_release_of_another_name_touches_nothing_of_this_one() -> None:
    own = values("kind-cpu")
    selector = release("kind-cpu").one("Deployment", "demo-small")["spec"]["selector"]["matchLabels"]
    assert selector["app.kubernetes.io/instance"] == "demo"
    assert {o["metadata"]["name"].split("-")[0] for o in rendered(own).items} == {"demo", "triton"}
    assert [o["metadata"]["name"] for o in rendered(own).items if o["metadata"]["name"].startswith("triton")] == [
        "triton-demo-nodes",
        "triton-demo-nodes",
    ]
