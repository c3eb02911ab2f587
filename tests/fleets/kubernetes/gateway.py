"""A real Envoy that follows the Services' selectors as a gateway does, late, and looks for what must never be.

It has no health checks and tries nothing again: a request that is sent where its model does not answer fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tasks.fleets.envoy_resources import cluster, file_source, listener, routes
from tasks.fleets.kubernetes.api import ApiError
from tasks.fleets.kubernetes.call import Json
from tasks.fleets.kubernetes.pods import is_terminating, is_true, labelled_models, name_of
from tasks.fleets.state import write_atomically
from tests.fleets.kubernetes.cluster import MODELS, Cluster
from tests.triton_server import free_ports

ENVOY = Path(sys.executable).parent / "envoy"
LOOK_S = 0.1
HTTP = 8000
Endpoints = dict[str, list[str]]
"""Addresses by model."""


class Gateway:
    """Follows the pods of a cluster; what it sees is sent to Envoy ``delay_s`` later."""

    def __init__(self, cluster: Cluster, folder: Path, delay_s: float) -> None:
        self._cluster, self._folder, self._delay_s = cluster, folder, delay_s
        self.port, self._admin = free_ports(2)
        self._over = threading.Event()
        self._waiting: list[tuple[float, Endpoints]] = []
        self._carried: dict[str, frozenset[str]] = {}
        self.wrong: set[str] = set()
        """Pods that a Service selected while they did not answer for its model, and pods that went with models."""
        self.statuses: Counter[int] = Counter()

    @contextmanager
    def running(self) -> Iterator[Gateway]:
        self._write({})
        bootstrap = {
            "node": {"id": "test", "cluster": "test"},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": self._admin}}},
            "dynamic_resources": {
                "cds_config": file_source(self._folder / "clusters.json"),
                "lds_config": file_source(self._folder / "listeners.json"),
            },
        }
        (self._folder / "bootstrap.json").write_text(json.dumps(bootstrap))
        command = [str(ENVOY), "-c", str(self._folder / "bootstrap.json"), "--concurrency", "1"]
        with (self._folder / "log").open("wb") as log:
            process = subprocess.Popen([*command, "--disable-hot-restart"], stdout=log, stderr=log)
        follower = threading.Thread(target=self._follow, daemon=True)
        follower.start()
        try:
            yield self
        finally:
            self._over.set()
            follower.join(10)
            process.terminate()
            process.wait(10)

    @contextmanager
    def load(self, *models: str, every_s: float = 0.03) -> Iterator[None]:
        """Ask the models through Envoy all the time; ``statuses`` counts the answers, 0 for none."""
        over = threading.Event()

        def ask() -> None:
            while not over.wait(every_s):
                for model in models:
                    self.statuses[self.infer(model)] += 1

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join(30)

    def infer(self, model: str) -> int:
        tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}
        url = f"http://127.0.0.1:{self.port}/v2/models/{model}/infer"
        try:
            return requests.post(url, json={"inputs": [tensor]}, timeout=10).status_code
        except requests.RequestException:
            return 0

    def _follow(self) -> None:
        now: Endpoints = {}
        while not self._over.wait(LOOK_S):
            try:
                seen = self._endpoints()
            except ApiError:
                continue
            if seen != (self._waiting[-1][1] if self._waiting else now):
                self._waiting.append((time.monotonic() + self._delay_s, seen))
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                now = self._waiting.pop(0)[1]
                self._write(now)

    def _endpoints(self) -> Endpoints:
        """Where the selectors lead now: ready pods alone, as the endpoints controller has it."""
        api = self._cluster.api
        pods, services = api.items(api.path("v1", "pods")), api.items(api.path("v1", "services"))
        found: Endpoints = {}
        for service in services:
            model, selector = service["metadata"]["annotations"]["triton-placement/model"], service["spec"]["selector"]
            chosen = [pod for pod in pods if selector.items() <= pod["metadata"]["labels"].items() and _serves(pod)]
            found[model] = sorted(pod["status"]["podIP"] for pod in chosen)
            for pod in chosen:
                self._check(model, pod)
        self._look_for_losses({name_of(pod): pod for pod in pods})
        return found

    def _check(self, model: str, pod: Json) -> None:
        url = f"http://{pod['status']['podIP']}:{HTTP}/v2/models/{model}/ready"
        try:
            is_answered = requests.get(url, timeout=5).ok
        except requests.RequestException:
            is_answered = False
        if not is_answered:
            self.wrong.add(f"the selector of {model} names {name_of(pod)}, which does not answer for it")

    def _look_for_losses(self, pods: dict[str, Json]) -> None:
        for name, carried in self._carried.items():
            is_going = name not in pods or is_terminating(pods[name])
            if is_going and carried:
                self.wrong.add(f"{name} went with {', '.join(sorted(carried))}")
        self._carried = {name: labelled_models(pod) for name, pod in pods.items() if not is_terminating(pod)}

    def _write(self, endpoints: Endpoints) -> None:
        for model in MODELS:
            self._file(f"{model}.json", [_assignment(model, endpoints.get(model, []))])
        bare = [
            {key: value for key, value in cluster(model, self._folder / f"{model}.json").items() if "health" not in key}
            for model in MODELS
        ]
        route = routes(MODELS, ())
        for one in route["virtual_hosts"][0]["routes"]:
            del one["route"]["retry_policy"]
        self._file("clusters.json", bare)
        self._file("routes.json", [route])
        self._file("listeners.json", [listener(self.port, self._folder / "routes.json")])

    def _file(self, name: str, resources: list[dict[str, Any]]) -> None:
        text = json.dumps({"resources": resources})
        if not (self._folder / name).exists() or (self._folder / name).read_text() != text:
            write_atomically(self._folder / name, text)


def _serves(pod: Json) -> bool:
    return is_true(pod, "Ready") and not is_terminating(pod)


def _assignment(model: str, addresses: list[str]) -> dict[str, Any]:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": address, "port_value": HTTP}}}} for address in addresses
    ]
    kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    return {"@type": kind, "cluster_name": model, "endpoints": [{"lb_endpoints": endpoints}]}
