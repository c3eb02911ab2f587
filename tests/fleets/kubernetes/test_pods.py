"""What a pod and its node say: the replica's state, GPU type and memory."""

from __future__ import annotations

import pytest

from tasks.fleets.kubernetes.call import Json
from tasks.fleets.kubernetes.pods import MIB, Node, newest, node_of, replica, routed_models, superseded
from tasks.world import Pool

POOL = Pool("small", "small", 10**9)
EARLY, LATE = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"


def condition(kind: str, status: str, at: str = EARLY) -> Json:
    return {"type": kind, "status": status, "lastTransitionTime": at}


def pod(*conditions: Json, is_gated: bool = True, **metadata: str) -> Json:
    gates = [{"conditionType": "triton-placement/carrying"}] if is_gated else []
    spec = {"nodeName": "node-a", "readinessGates": gates, "containers": [{"name": "triton"}]}
    status = {"podIP": "10.0.0.1", "conditions": list(conditions)}
    return {"metadata": {"name": "small-0", **metadata}, "spec": spec, "status": status}


RUNS = condition("ContainersReady", "True")
OPEN, CLOSED = (condition("triton-placement/carrying", status) for status in ("True", "False"))
READY = condition("Ready", "True")
ECHO = {"model.triton-placement/echo": "ready"}
DOWN = Node(why_down="node node-a is Unknown")


@pytest.mark.parametrize(
    ("given", "node", "state"),
    [
        pytest.param(pod(RUNS, OPEN, READY), Node(), "ready", id="it serves"),
        pytest.param(pod(RUNS, CLOSED, condition("Ready", "False")), Node(), "ready", id="it carries nothing"),
        pytest.param(
            pod(RUNS, condition("triton-placement/carrying", "True", LATE), condition("Ready", "False")),
            Node(),
            "ready",
            id="its gate has just been opened",
        ),
        pytest.param(pod(RUNS, OPEN, condition("Ready", "False", LATE)), Node(), "unreachable", id="it was ready"),
        pytest.param(
            pod(RUNS, condition("Ready", "False", LATE), is_gated=False), Node(), "unreachable", id="so, without a gate"
        ),
        pytest.param(pod(RUNS, OPEN, READY), DOWN, "unreachable", id="its node is down"),
        pytest.param(pod(RUNS, CLOSED), DOWN, "unreachable", id="its node is down, and it carries nothing"),
        pytest.param(pod(), DOWN, "unreachable", id="its node is down before it was ready"),
        pytest.param(pod(RUNS, OPEN, READY, deletionTimestamp=LATE), DOWN, "leaving", id="it is evicted"),
        pytest.param(pod(condition("ContainersReady", "False")), Node(), "starting", id="its server starts"),
    ],
)
def test_the_state_of_a_pod(given: Json, node: Node, state: str) -> None:
    assert replica(given, POOL, frozenset(), node).state == state


def of(name: str, template: str, *conditions: Json, **metadata: str) -> Json:
    """A pod of a revision."""
    made = pod(*conditions)
    made["metadata"] |= {
        **metadata,
        "name": name,
        "labels": {"triton-placement/pool": "small", "pod-template-hash": template},
    }
    return made


def labelled(given: Json) -> Json:
    given["metadata"]["labels"] |= ECHO
    return given


@pytest.mark.parametrize(
    ("pods", "count", "goes"),
    [
        pytest.param([of("a", "old", RUNS), of("b", "old", RUNS), of("c", "new", RUNS)], 2, {"a"}, id="one at a time"),
        pytest.param(
            [labelled(of("a", "old", RUNS)), of("b", "old", RUNS), of("c", "new", RUNS)], 2, {"b"}, id="the emptiest"
        ),
        pytest.param([of("a", "old", RUNS), of("b", "old", RUNS), of("c", "new")], 2, set(), id="the newer one starts"),
        pytest.param([of("b", "old", RUNS), of("c", "new", RUNS)], 2, set(), id="none beyond the count"),
        pytest.param([of("a", "new", RUNS), of("c", "new", RUNS)], 1, set(), id="none is older"),
        pytest.param(
            [of("a", "old", RUNS, deletionTimestamp=LATE), of("b", "old", RUNS), of("c", "new", RUNS)],
            2,
            set(),
            id="one goes already",
        ),
        pytest.param(
            [of("a", "old", RUNS, OPEN, condition("Ready", "False", LATE)), of("b", "old", RUNS), of("c", "new", RUNS)],
            2,
            set(),
            id="one is cut off: the newer one takes its place",
        ),
    ],
)
def test_which_pod_a_rollout_replaces_next(pods: list[Json], count: int, goes: set[str]) -> None:
    assert superseded(pods, "new", count) == goes


def test_the_newest_revision_is_the_one_of_the_highest_number_also_after_an_undo() -> None:
    def replica_set(template: str, revision: int) -> Json:
        made = of(template, template)
        made["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": str(revision)}
        return made

    assert newest([replica_set("x", 10), replica_set("y", 9)]) == {"small": "x"}


@pytest.mark.parametrize(
    ("given", "is_routed"),
    [
        pytest.param(pod(RUNS, OPEN, READY), True, id="it is ready"),
        pytest.param(pod(RUNS, OPEN, condition("Ready", "False")), False, id="its kubelet has yet to say so"),
        pytest.param(pod(RUNS, OPEN), False, id="or has said nothing yet"),
        pytest.param(pod(RUNS, CLOSED, condition("Ready", "False")), False, id="its gate is closed"),
        pytest.param(pod(condition("ContainersReady", "False"), OPEN), True, id="its container restarts"),
        pytest.param(pod(RUNS, OPEN, condition("Ready", "False", LATE)), True, id="it is cut off"),
        pytest.param(pod(RUNS, OPEN, READY, deletionTimestamp=LATE), False, id="it is being deleted"),
    ],
)
def test_requests_are_sent_to_a_labelled_pod_once_it_is_an_endpoint(given: Json, is_routed: bool) -> None:
    """What is not reached yet is no copy to count on: it would be the reason to take another one's requests away."""
    given["metadata"]["labels"] = ECHO
    assert routed_models(given) == (frozenset({"echo"}) if is_routed else frozenset())


@pytest.mark.parametrize(
    ("conditions", "says"),
    [
        pytest.param([], "", id="just added"),
        pytest.param([READY], "", id="ready"),
        pytest.param([condition("Ready", "False") | {"reason": "CNI"}], "node node-a is NotReady, CNI", id="not ready"),
        pytest.param([condition("Ready", "Unknown")], "node node-a is Unknown", id="silent"),
        pytest.param([condition("MemoryPressure", "True"), READY], "", id="under pressure"),
    ],
)
def test_whether_a_node_is_down(conditions: list[Json], says: str) -> None:
    assert node_of({"metadata": {"name": "node-a"}, "status": {"conditions": conditions}}).why_down == says


# --- its GPUs

GB24 = 24 * 10**9
L4 = Pool("small", "NVIDIA-L4", GB24)


def with_gpus(count: int | None) -> Json:
    """A pod that asks for so many."""
    given = pod(RUNS, OPEN, READY)
    if count is not None:
        given["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": str(count)}}
    return given


@pytest.mark.parametrize(
    ("gpus", "mib", "expected"),
    [
        pytest.param(1, None, GB24, id="no label: what is declared"),
        pytest.param(1, "23034", GB24, id="the label gives more than declared"),
        pytest.param(1, "16384", 16384 * MIB, id="the label gives less"),
        pytest.param(2, "10240", 20480 * MIB, id="two GPUs, less together"),
        pytest.param(None, "16384", GB24, id="a pod without GPUs, on a node that has some"),
        pytest.param(1, "unknown", GB24, id="a label that is no number"),
    ],
)
def test_the_memory_is_the_pools_or_less_by_the_nodes_label(gpus: int | None, mib: str | None, expected: int) -> None:
    """23,034 MiB of an L4 are 24.15 GB, 16,384 MiB are 17.18 GB, two of 10,240 MiB 21.47 GB."""
    labels = {} if mib is None else {"nvidia.com/gpu.memory": mib}
    found = replica(with_gpus(gpus), L4, frozenset({L4.gpu_type}), Node(labels))
    assert found.memory_bytes == expected


@pytest.mark.parametrize(
    ("product", "expected"),
    [
        pytest.param(None, "NVIDIA-L4", id="no label: the pool's"),
        pytest.param("NVIDIA-L4", "NVIDIA-L4", id="the pool's"),
        pytest.param("NVIDIA-A10G", "NVIDIA-A10G", id="another one of the configuration"),
        pytest.param("NVIDIA-L4-SHARED", "NVIDIA-L4", id="a name that the configuration does not have"),
    ],
)
def test_the_gpu_type_is_the_nodes_where_the_configuration_knows_it(product: str | None, expected: str) -> None:
    labels = {} if product is None else {"nvidia.com/gpu.product": product}
    known = frozenset({"NVIDIA-L4", "NVIDIA-A10G"})
    assert replica(with_gpus(1), L4, known, Node(labels)).gpu_type == expected
