"""One namespace of the control plane, with what a test puts there."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import yaml

from tasks.config import Config
from tasks.fleets.kubernetes import KubernetesFleet
from tasks.fleets.kubernetes.api import Api
from tasks.fleets.kubernetes.call import Call, Json
from tests.fleets.kubernetes.control_plane import ADMIN, ControlPlane
from tests.fleets.kubernetes.kubelet import Kubelet, Run

MODELS = ("echo", "other", "slow")
Right = tuple[str, str, list[str]]
"""API group, resource, verbs."""
CHART = Path("infra/helm/triton-placement/templates/access.yaml")
_numbers = itertools.count(1)


def chart_rights(role: str) -> list[Right]:
    """What the chart grants to the ``worker`` or the ``listener``, nodes included."""
    wanted = {"worker": ("worker", "nodes"), "listener": ("listener",)}[role]
    rights: list[Right] = []
    of = ""
    for line in CHART.read_text().splitlines():
        if named := re.search(r'"of" "(\w+)"', line):
            of = named[1] if line.strip().startswith("name:") else of
        elif line.startswith("  - {apiGroups:") and of in wanted:
            (rule,) = yaml.safe_load(line)
            rights += [(group, r, rule["verbs"]) for group in rule["apiGroups"] for r in rule["resources"]]
    return rights


class Cluster:
    """One namespace, with what a test puts there."""

    def __init__(self, plane: ControlPlane, namespace: str, stack: ExitStack) -> None:
        self.plane, self.namespace, self._stack = plane, namespace, stack
        self.api: Api = plane.api(namespace)
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        self.api.call(Call("POST", "/api/v1/namespaces", body=body))

    def kubelet(self, run: Run | None = None) -> Kubelet:
        return self._stack.enter_context(Kubelet(self.plane.api(self.namespace), run))

    def pool(self, pool: str, replicas: int, *, name: str | None = None) -> None:
        self.create("apps/v1", "deployments", deployment(name or f"triton-{pool}", pool, replicas))

    def create(self, group_version: str, resource: str, body: Json) -> Json:
        return self.api.call(Call("POST", self.api.path(group_version, resource), body=body))

    def pods(self) -> dict[str, Json]:
        return {pod["metadata"]["name"]: pod for pod in self.api.items(self.api.path("v1", "pods"))}

    def config(self, *pools: str, **sections: object) -> Config:
        return config(self.namespace, *pools, **sections)

    def fleet(self, config: Config | None = None, token: str = ADMIN, give_up_s: float = 25.0) -> KubernetesFleet:
        """A fleet of its own, as another process would have it."""
        return KubernetesFleet(config or self.config("small"), self.plane.api(self.namespace, token, give_up_s))

    def delete(self, group_version: str, resource: str, name: str) -> None:
        self.api.call(Call("DELETE", self.api.path(group_version, resource, name)))

    def account(self, rights: Iterable[Right]) -> str:
        """The token of a new service account with exactly these rights."""
        name = f"account-{next(_numbers)}"
        self.create("v1", "serviceaccounts", {"metadata": {"name": name}})
        for kind, where, cluster_wide in (("Role", self.namespace, False), ("ClusterRole", "", True)):
            rules = [
                {"apiGroups": [group], "resources": [resource], "verbs": verbs}
                for group, resource, verbs in rights
                if (resource == "nodes") is cluster_wide and verbs
            ]
            root = "/apis/rbac.authorization.k8s.io/v1" + (f"/namespaces/{where}" if where else "")
            of = {"metadata": {"name": f"{self.namespace}-{name}"}}
            self.api.call(Call("POST", f"{root}/{kind.lower()}s", body=of | {"rules": rules}))
            subjects = [{"kind": "ServiceAccount", "name": name, "namespace": self.namespace}]
            role = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": of["metadata"]["name"]}
            self.api.call(
                Call("POST", f"{root}/{kind.lower()}bindings", body=of | {"roleRef": role, "subjects": subjects})
            )
        path = self.api.path("v1", "serviceaccounts", name, "token")
        return str(self.api.call(Call("POST", path, body={"spec": {}}))["status"]["token"])

    def label(self, pod: str, key: str, value: str | None) -> None:
        """As somebody would with kubectl."""
        self.api.patch(self.api.path("v1", "pods", pod), {"metadata": {"labels": {key: value}}})

    def versions(self) -> dict[str, str]:
        """Resource versions of all pods and Services: they change with every write."""
        found = [thing for kind in ("pods", "services") for thing in self.api.items(self.api.path("v1", kind))]
        return {thing["metadata"]["name"]: thing["metadata"]["resourceVersion"] for thing in found}

    def scale_of(self, pool: str) -> int:
        return int(self.api.get(self.api.path("apps/v1", "deployments", f"triton-{pool}", "scale"))["spec"]["replicas"])


def config(namespace: str, *pools: str, **sections: object) -> Config:
    return Config.model_validate(
        {
            "fleet": {"kind": "kubernetes", "namespace": namespace, "propagation_s": 0.0, "linger_s": 0.0},
            "pools": {pool: {"memory": "1GB", "min_replicas": 1, "max_replicas": 8} for pool in pools},
            "models": {name: {"footprint": "300MB", "service_ms": 20, "max_copies": 4} for name in MODELS},
            "metrics": {"prometheus_url": "http://127.0.0.1:9", "pushgateway_url": "http://127.0.0.1:9"},
        }
        | sections
    )


def deployment(name: str, pool: str, replicas: int) -> Json:
    labels = {"triton-placement/pool": pool}
    ports = [{"name": n, "containerPort": p} for n, p in (("http", 8000), ("grpc", 8001), ("metrics", 8002))]
    gates = [{"conditionType": "triton-placement/carrying"}]
    container = {"name": "triton", "image": "triton", "ports": ports}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": labels}, "spec": {"readinessGates": gates, "containers": [container]}},
        },
    }


def roll(cluster: Cluster, pool: str = "small", **template: object) -> None:
    """A newer revision of the pool's pods, as an upgrade makes it."""
    body = {"metadata": {"annotations": {"revision": str(next(_numbers))}}, **template}
    cluster.api.patch(
        cluster.api.path("apps/v1", "deployments", f"triton-{pool}"),
        {"spec": {"template": body, "minReadySeconds": 300}},
    )


def hpa(cluster: Cluster, at_least: int, pool: str = "small", at_most: int = 5) -> None:
    """One whose lower bound is all that it goes by: no metrics server is there."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"triton-{pool}"}
    spec = {"scaleTargetRef": target, "minReplicas": at_least, "maxReplicas": at_most}
    cluster.create("autoscaling/v1", "horizontalpodautoscalers", {"metadata": {"name": pool}, "spec": spec})


def eventually(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something is so; fail when it is not in time."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.1)
