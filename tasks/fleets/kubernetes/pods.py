"""What a pod's, a node's and a Deployment's JSON say, in the project's words. Pure: nothing is read here."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.fleets.kubernetes.call import Json
from tasks.fleets.kubernetes.names import DELETION_COST, GATE, POOL_LABEL, labelled_model
from tasks.world import Pool, Replica, ReplicaState

PORT_BY_NAME = {"http": 8000, "grpc": 8001, "metrics": 8002}
"""Container ports by name, with Triton's own numbers where a pod does not name them."""
ZONE = "topology.kubernetes.io/zone"
GPU_PRODUCT, GPU_MEMORY_MIB, GPU = "nvidia.com/gpu.product", "nvidia.com/gpu.memory", "nvidia.com/gpu"
MIB = 2**20


def name_of(thing: Json) -> str:
    return str(thing["metadata"]["name"])


def pool_of(thing: Json) -> str:
    return str(thing["metadata"].get("labels", {}).get(POOL_LABEL, ""))


def is_over(pod: Json) -> bool:
    """Evicted, failed or completed: only its record is left."""
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def is_terminating(pod: Json) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def is_true(pod: Json, condition: str) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == condition and c["status"] == "True" for c in conditions)


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
    """Models whose requests are sent to the pod once its containers are ready."""
    return labelled_models(pod) if is_open(pod) and not is_terminating(pod) and not is_over(pod) else frozenset()


def is_emptied(pod: Json) -> bool:
    """Nothing is lost with it: its server runs and no model is routed to it."""
    return is_true(pod, "ContainersReady") and not labelled_models(pod)


def deletion_cost(pod: Json) -> int:
    return int(pod["metadata"].get("annotations", {}).get(DELETION_COST, "0"))


def replica(pod: Json, pool: Pool, gpu_types: frozenset[str], node: Mapping[str, str]) -> Replica:
    """``node``: the labels of the pod's node. The GPU type is the node's where the configuration knows it, else the
    pool's; the memory is the pool's, or the node's GPUs' where those have less."""
    product = node.get(GPU_PRODUCT, "")
    state, detail = _state(pod)
    address = _host(pod)
    ports = _ports(pod) if address else {}
    return Replica(
        name=name_of(pod),
        pool=pool.name,
        gpu_type=product if product in gpu_types else pool.gpu_type,
        memory_bytes=_memory_bytes(pod, pool, node),
        compute=pool.compute,
        state=state,
        http=f"{address}:{ports['http']}" if ports else "",
        grpc=f"{address}:{ports['grpc']}" if ports else "",
        metrics=f"{address}:{ports['metrics']}" if ports else "",
        node=pod["spec"].get("nodeName", ""),
        zone=node.get(ZONE, ""),
        detail=detail,
    )


def _state(pod: Json) -> tuple[ReplicaState, str]:
    """Ready for a load when its containers are; the gate is ours and says something else."""
    if is_terminating(pod):
        return ReplicaState.LEAVING, "being deleted"
    if is_true(pod, "ContainersReady") and _host(pod):
        return ReplicaState.READY, ""
    return ReplicaState.STARTING, _why_starting(pod)


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
