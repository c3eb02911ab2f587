"""What a pod's, a node's and a Deployment's JSON say, in the project's words. Pure: nothing is read here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tasks.fleets.kubernetes.call import Json
from tasks.fleets.kubernetes.names import DELETION_COST, GATE, POOL_LABEL, labelled_model
from tasks.world import Pool, Replica, ReplicaState

PORT_BY_NAME = {"http": 8000, "grpc": 8001, "metrics": 8002}
"""Container ports by name, with Triton's own numbers where a pod does not name them."""
REVISION, TEMPLATE_HASH = "deployment.kubernetes.io/revision", "pod-template-hash"
"""On a Deployment's ReplicaSets, the higher the newer; on their pods and on themselves, which of them."""
ZONE = "topology.kubernetes.io/zone"
GPU_PRODUCT, GPU_MEMORY_MIB, GPU = "nvidia.com/gpu.product", "nvidia.com/gpu.memory", "nvidia.com/gpu"
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Node:
    """What a pod's node says."""

    labels: Mapping[str, str] = field(default_factory=dict)
    why_down: str = ""
    """Why its pods get no request. Empty: its kubelet reports."""


def node_of(thing: Json) -> Node:
    """A node whose Ready condition is False or Unknown is down; one that has none yet has just been added."""
    ready = _condition(thing, "Ready")
    status = ready.get("status", "True")
    why = ": ".join(filter(None, (ready.get("reason"), ready.get("message"))))
    down = f"node {name_of(thing)} is {'NotReady' if status == 'False' else 'Unknown'}{f', {why}' if why else ''}"
    return Node(thing["metadata"].get("labels", {}), "" if status == "True" else down)


def name_of(thing: Json) -> str:
    return str(thing["metadata"]["name"])


def pool_of(thing: Json) -> str:
    return str(thing["metadata"].get("labels", {}).get(POOL_LABEL, ""))


def template_of(thing: Json) -> str:
    """Of a pod, or a ReplicaSet: which revision of its Deployment's template."""
    return str(thing["metadata"].get("labels", {}).get(TEMPLATE_HASH, ""))


def is_rolled_out(pods: Iterable[Json]) -> bool:
    """Whether pods of one pool are of several revisions: a rollout is under way."""
    return len({template_of(pod) for pod in pods}) > 1


def replica_set_of(pod: Json) -> str:
    """Empty: it has none."""
    owners = pod["metadata"].get("ownerReferences", [])
    return next((str(owner["name"]) for owner in owners if owner["kind"] == "ReplicaSet"), "")


def newest(replica_sets: Iterable[Json]) -> dict[str, str]:
    """By pool, its Deployment's newest template."""
    found: dict[str, tuple[int, str]] = {}
    for replica_set in replica_sets:
        revision = int(replica_set["metadata"].get("annotations", {}).get(REVISION, "0"))
        found[pool_of(replica_set)] = max(
            found.get(pool_of(replica_set), (0, "")), (revision, template_of(replica_set))
        )
    return {pool: template for pool, (_, template) in found.items()}


def superseded(pods: Iterable[Json], template: str, count: int) -> set[str]:
    """Of one pool's pods, those of an older template that a rollout may have next: as many as able ones are there
    beyond the count, the emptiest first, so that one is emptied at a time and the next tick goes on with it."""
    able = [pod for pod in pods if _is_able(pod)]
    older = [pod for pod in able if template_of(pod) != template]
    older.sort(key=lambda pod: (len(labelled_models(pod)), name_of(pod)))
    return {name_of(pod) for pod in older[: max(0, len(able) - count)]}


def is_over(pod: Json) -> bool:
    """Evicted, failed or completed: only its record is left."""
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def is_terminating(pod: Json) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def is_true(pod: Json, condition: str) -> bool:
    return bool(_condition(pod, condition).get("status") == "True")


def _condition(thing: Json, kind: str) -> Json:
    """Empty: it has none of this kind."""
    return next((c for c in thing.get("status", {}).get("conditions", []) if c["type"] == kind), {})


def has_gate(pod: Json) -> bool:
    return any(gate["conditionType"] == GATE for gate in pod["spec"].get("readinessGates", []))


def is_open(pod: Json) -> bool:
    """Whether the pod's readiness gate lets requests in."""
    return not has_gate(pod) or is_true(pod, GATE)


def is_leaving(pod: Json) -> bool:
    """Emptied, and to go when the count goes down."""
    return deletion_cost(pod) < 0


def labelled_models(pod: Json) -> frozenset[str]:
    """Models that the pod's labels name, whether requests get there or not."""
    found = (labelled_model(key, value) for key, value in pod["metadata"].get("labels", {}).items())
    return frozenset(model for model in found if model is not None)


def routed_models(pod: Json) -> frozenset[str]:
    """Models whose requests are sent to the pod, or were until its containers, its kubelet or its node went down."""
    if is_terminating(pod) or is_over(pod) or not is_open(pod) or is_on_its_way(pod):
        return frozenset()
    return labelled_models(pod)


def is_on_its_way(pod: Json) -> bool:
    """All that makes it ready is so, and its kubelet has yet to say it: it is no endpoint before."""
    return _is_able(pod) and is_open(pod) and not is_true(pod, "Ready")


def _is_able(pod: Json) -> bool:
    """Its containers are ready, and nobody says that it goes or is cut off."""
    return is_true(pod, "ContainersReady") and not is_terminating(pod) and not _why_cut_off(pod)


def is_emptied(pod: Json) -> bool:
    """Nothing is lost with it: its server runs and no model is routed to it."""
    return is_true(pod, "ContainersReady") and not labelled_models(pod)


def deletion_cost(pod: Json) -> int:
    return int(pod["metadata"].get("annotations", {}).get(DELETION_COST, "0"))


def replica(pod: Json, pool: Pool, gpu_types: frozenset[str], node: Node) -> Replica:
    """The GPU type is the node's label where the configuration knows it, else the pool's. The memory is what the pool
    declares, or what the node's label gives for the GPUs that the pod asks for where that is less; what Triton reports
    of them is looked at in ``tasks.observe.gpus``."""
    product = node.labels.get(GPU_PRODUCT, "")
    state, detail = _state(pod, node)
    address = _host(pod)
    ports = _ports(pod) if address else {}
    return Replica(
        name=name_of(pod),
        pool=pool.name,
        gpu_type=product if product in gpu_types else pool.gpu_type,
        memory_bytes=_memory_bytes(pod, pool, node.labels),
        compute=pool.compute,
        state=state,
        http=f"{address}:{ports['http']}" if ports else "",
        grpc=f"{address}:{ports['grpc']}" if ports else "",
        metrics=f"{address}:{ports['metrics']}" if ports else "",
        node=pod["spec"].get("nodeName", ""),
        zone=node.labels.get(ZONE, ""),
        detail=detail,
        life=life_of(pod),
    )


def life_of(pod: Json) -> str:
    """Another one after each restart of a container."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return f"{pod['metadata'].get('uid', '')}/{sum(int(status.get('restartCount', 0)) for status in statuses)}"


def _state(pod: Json, node: Node) -> tuple[ReplicaState, str]:
    """Ready for a load when its containers are; the gate is ours and says something else. A pod that is cut off may
    still answer us, yet no Service sends requests to it: what it held is wanted elsewhere."""
    if is_terminating(pod):
        return ReplicaState.LEAVING, "being deleted"
    if why := node.why_down or _why_cut_off(pod):
        return ReplicaState.UNREACHABLE, why
    if is_true(pod, "ContainersReady") and _host(pod):
        return ReplicaState.READY, ""
    return ReplicaState.STARTING, _why_starting(pod)


def _why_cut_off(pod: Json) -> str:
    """A pod that has all that made it ready, and is not ready any more: the node controller said so, or somebody
    else's readiness gate. Empty as long as the kubelet has yet to see that the gate was opened."""
    needed = ("ContainersReady", GATE) if has_gate(pod) else ("ContainersReady",)
    ready = _condition(pod, "Ready")
    had_all_at = max(str(_condition(pod, kind).get("lastTransitionTime") or "") for kind in needed)
    if ready.get("status") != "False" or not all(is_true(pod, kind) for kind in needed):
        return ""
    if str(ready.get("lastTransitionTime") or "") <= had_all_at:
        return ""
    why = ": ".join(filter(None, (ready.get("reason"), ready.get("message"))))
    return f"its containers are ready, its pod is not any more{f', {why}' if why else ''}"


def _why_starting(pod: Json) -> str:
    """The reason Kubernetes gives: a container's, else the scheduler's."""
    status = pod.get("status", {})
    for container in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
        if waiting := container.get("state", {}).get("waiting"):
            return ": ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))
    unmet = (c for c in status.get("conditions", []) if c["type"] == "PodScheduled" and c["status"] == "False")
    return next((": ".join(filter(None, (c.get("reason"), c.get("message")))) for c in unmet), "not ready yet")


def _host(pod: Json) -> str:
    address = str(pod.get("status", {}).get("podIP", ""))
    return f"[{address}]" if ":" in address else address


def _ports(pod: Json) -> dict[str, int]:
    named = {
        port["name"]: int(port["containerPort"])
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
        if "name" in port
    }
    return {name: named.get(name, default) for name, default in PORT_BY_NAME.items()}


def _memory_bytes(pod: Json, pool: Pool, node: Mapping[str, str]) -> int:
    if not (per_gpu := node.get(GPU_MEMORY_MIB, "")).isdigit():
        return pool.memory_bytes
    limits = (container.get("resources", {}).get("limits", {}) for container in pod["spec"]["containers"])
    gpus = sum(int(limit.get(GPU, 0)) for limit in limits)
    return min(pool.memory_bytes, int(per_gpu) * MIB * gpus) if gpus else pool.memory_bytes
