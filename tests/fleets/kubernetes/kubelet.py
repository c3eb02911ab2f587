"""The test plays the kubelet and the scheduler: it binds pods to nodes, sets their status, and lets them go.

Pods get addresses in 10.244.0.0/16; with ``run`` a real server is started there for each.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

from tasks.fleets.kubernetes.api import STRATEGIC, Api, ApiError
from tasks.fleets.kubernetes.call import Call, Json

LOOK_S = 0.1
NODES = {"node-a": "zone-1", "node-b": "zone-2"}
Run = Callable[[str, str], AbstractContextManager[object]]
"""A server for (pod name, address), ready when it is entered."""


@dataclass
class Held:
    """A pod that runs here."""

    address: str
    stack: ExitStack = field(default_factory=ExitStack)
    is_ready: bool = True
    restarts: int = 0


class Kubelet:
    """For all pods of one namespace."""

    def __init__(self, api: Api, run: Run | None = None) -> None:
        self.api, self._run = api, run
        self.held: dict[str, Held] = {}
        self._lost: set[str] = set()
        self._numbers = itertools.count(1)
        self._done = threading.Event()
        self._turn = threading.Lock()
        """While it looks after its pods: what it began to say of one is said before somebody else says otherwise."""
        self._thread = threading.Thread(target=self._loop, name="kubelet", daemon=True)
        self._workers = ThreadPoolExecutor(16, thread_name_prefix="kubelet")

    def __enter__(self) -> Kubelet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._workers.shutdown()
        for held in self.held.values():
            held.stack.close()

    def crash(self, pod: str) -> None:
        """Its container is gone; the pod stays, with its labels."""
        self.held[pod].is_ready = False
        self.held[pod].stack.close()

    def restart(self, pod: str) -> None:
        """Its container runs again, with nothing loaded."""
        held = self.held[pod]
        held.restarts += 1
        if self._run:
            held.stack.enter_context(self._run(pod, held.address))
        held.is_ready = True

    def lose(self, node: str, status: str) -> None:
        """Its kubelet reports no more (``Unknown``), or that it is not ready (``False``): nothing is done for its pods,
        whose servers go on; as the node controller does, they are called unready."""
        with self._turn:
            self._lost.add(node)
        why = {"reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
        self._set_condition(f"/api/v1/nodes/{node}", status, **why)
        for pod in self._pods_on(node):
            self.call_unready(pod)

    def call_unready(self, pod: str) -> None:
        """As somebody else than its kubelet does, and later than what made it ready: conditions have whole seconds."""
        time.sleep(1.0)
        with self._turn:
            self._set_condition(self.api.path("v1", "pods", pod), "False")

    def find(self, node: str) -> None:
        """It reports again, and says of its pods what they are."""
        self._set_condition(f"/api/v1/nodes/{node}", "True", reason="KubeletReady", message="")
        self._lost.discard(node)

    def _pods_on(self, node: str) -> list[str]:
        pods = self.api.items(self.api.path("v1", "pods"), fieldSelector=f"spec.nodeName={node}")
        return [pod["metadata"]["name"] for pod in pods]

    def _set_condition(self, path: str, status: str, **why: str) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        condition = {"type": "Ready", "status": status, "lastTransitionTime": now, **why}
        self.api.patch(f"{path}/status", {"status": {"conditions": [condition]}}, STRATEGIC)

    def _loop(self) -> None:
        while not self._done.wait(LOOK_S):
            with self._turn:
                self._look_after_pods()

    def _look_after_pods(self) -> None:
        try:
            pods = self.api.items(self.api.path("v1", "pods"))
        except ApiError:
            return  # an API server that restarts
        list(self._workers.map(self._care, pods))
        for name in self.held.keys() - {pod["metadata"]["name"] for pod in pods}:
            self.held.pop(name).stack.close()

    def _care(self, pod: Json) -> None:
        name = pod["metadata"]["name"]
        path = self.api.path("v1", "pods", name)
        if pod["spec"].get("nodeName") in self._lost:
            return
        try:
            if "deletionTimestamp" in pod["metadata"]:
                if (held := self.held.pop(name, None)) is not None:
                    held.stack.close()
                self.api.call(Call("DELETE", path, {"gracePeriodSeconds": "0"}))
            elif "nodeName" not in pod["spec"]:
                self._bind(name)
            elif (status := self._status(pod)) is not None:
                self.api.patch(f"{path}/status", {"status": status}, STRATEGIC)
        except ApiError as error:
            if error.status not in (0, 404, 409):
                raise

    def _bind(self, name: str) -> None:
        number = next(self._numbers)
        nodes = sorted(NODES.keys() - self._lost)
        node = nodes[number % len(nodes)]
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        held = Held(address(number))
        if self._run:
            held.stack.enter_context(self._run(name, held.address))
        self.held[name] = held
        self.api.call(Call("POST", self.api.path("v1", "pods", name, "binding"), body=body))

    def _status(self, pod: Json) -> Json | None:
        """The status that the pod should have; None: it has it."""
        held = self.held.get(pod["metadata"]["name"])
        if held is None:
            return None
        now = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions", [])}
        gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates", [])]
        is_ready = held.is_ready and all(now.get(gate) == "True" for gate in gates)
        wanted = {"PodScheduled": True, "Initialized": True, "ContainersReady": held.is_ready, "Ready": is_ready}
        conditions = [{"type": kind, "status": str(is_so)} for kind, is_so in wanted.items()]
        if all(now.get(c["type"]) == c["status"] for c in conditions) and pod["status"].get("podIP"):
            return None
        waiting = {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}
        state = {"running": {}} if held.is_ready else {"waiting": waiting}
        container = {"name": "triton", "ready": held.is_ready, "restartCount": held.restarts, "state": state}
        ips = {"podIP": held.address, "podIPs": [{"ip": held.address}]}
        details = {"image": "triton", "imageID": ""}
        return {"phase": "Running", **ips, "conditions": conditions, "containerStatuses": [container | details]}


def address(number: int) -> str:
    return f"10.244.{number // 200}.{number % 200 + 10}"


def create_node(api: Api, name: str) -> None:
    labels = {"topology.kubernetes.io/zone": NODES[name]}
    api.call(Call("POST", "/api/v1/nodes", body={"metadata": {"name": name, "labels": labels}}))
