"""From a new pod's being ready to its first model: with the listener, and with the schedule alone."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from tasks.config import Config
from tasks.fleets.kubernetes.pods import is_true, labelled_models, name_of
from tests.fleets.kubernetes.cluster import Cluster, eventually, hpa
from tests.fleets.kubernetes.control_plane import ADMIN, control_plane
from tests.fleets.kubernetes.kubelet import NODES, create_node
from tests.fleets.kubernetes.network import own_network
from tests.prometheus_server import prometheus_server
from tests.triton_server import triton_server
from tests.watch.prefect_server import PREFECT, ROOT, PrefectServer, prefect_server

INTERVAL_S = 30
TRIALS = 3
MODEL = {"footprint": "300MB", "service_ms": 20, "queue_ms": 100, "load_s": 2, "min_copies": 8, "max_copies": 8}
_numbers = itertools.count(1)


def print_waits(console: Console) -> None:
    """Measure both ways and print a table."""
    table = Table("a tick starts", "seconds from ready to first model", "median", box=None)
    with tempfile.TemporaryDirectory() as name, own_network(), ExitStack() as stack:
        folder = Path(name)
        plane = stack.enter_context(control_plane(folder))
        for node in NODES:
            create_node(plane.api("default"), node)
        cluster = Cluster(plane, "listen", stack)
        cluster.kubelet(
            lambda pod, at: triton_server(folder / f"{next(_numbers)}", pod, host=at, ports=(8000, 8001, 8002))
        )
        path = _write_config(folder, cluster, stack)
        environment = {"KUBECONFIG": str(plane.kubeconfig(ADMIN, cluster.namespace))}
        cluster.pool("small", 1)
        hpa(cluster, at_least=1, at_most=8)
        server = stack.enter_context(prefect_server(folder / "prefect"))
        _register(server, path)
        stack.enter_context(_running(server, environment, str(PREFECT), "worker", "start", "--pool", "bench"))
        eventually(lambda: len(_served(cluster)) == 1, 120)
        for how in ("by its schedule", "by the listener"):
            if how == "by the listener":
                stack.enter_context(_running(server, environment, sys.executable, "-m", "flows.watch", str(path)))
                time.sleep(45)  # its first look asks for a tick
            waits = [_wait(cluster) for _ in range(TRIALS)]
            table.add_row(how, ", ".join(f"{wait:.1f}" for wait in waits), f"{statistics.median(waits):.1f}")
    console.print(table)


def _write_config(folder: Path, cluster: Cluster, stack: ExitStack) -> Path:
    now = time.time()
    (folder / "prometheus").mkdir()
    (folder / "prefect").mkdir()
    samples = {'asked{model="echo"}': {now + at: 1.0 for at in range(-600, 900, 5)}}
    url = stack.enter_context(prometheus_server(folder / "prometheus", samples))
    content = {
        "fleet": {"kind": "kubernetes", "namespace": cluster.namespace, "propagation_s": 1.0, "linger_s": 0.0},
        "pools": {"small": {"memory": "1GB", "max_replicas": 8, "start_s": 5, "owner": "hpa"}},
        "models": {"echo": MODEL},
        "limits": {"interval_s": INTERVAL_S},
        "metrics": {
            "prometheus_url": url,
            "pushgateway_url": "http://127.0.0.1:9",
            "demand_query": "max by (model) (asked)",
        },
    }
    Config.model_validate(content)
    path = folder / "placement.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def _register(server: PrefectServer, path: Path) -> None:
    """As the chart's Job does it."""
    server.run("work-pool", "create", "--overwrite", "--type", "process", "bench")
    parameters = ("--param", f"config={path}", "--interval", str(INTERVAL_S))
    server.run("deploy", "--name", "kubernetes", "--pool", "bench", *parameters)


@contextmanager
def _running(server: PrefectServer, environment: Mapping[str, str], *command: str) -> Iterator[None]:
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **server.environment, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait(cluster: Cluster) -> float:
    """Let the HPA bring one more pod, right after a tick: the schedule has its longest wait before it."""
    before = _served(cluster)
    path = cluster.api.path("autoscaling/v1", "horizontalpodautoscalers", "small")
    cluster.api.patch(path, {"spec": {"minReplicas": len(before) + 1}})
    eventually(lambda: len(_pods(cluster, "ContainersReady")) == len(before) + 1, 60)
    began = time.monotonic()
    eventually(lambda: len(_served(cluster)) == len(before) + 1, 120)
    return time.monotonic() - began


def _served(cluster: Cluster) -> set[str]:
    """Pods that the Service of a model selects and that are ready."""
    return {name for name, pod in _pods(cluster, "Ready").items() if labelled_models(pod)}


def _pods(cluster: Cluster, condition: str) -> dict[str, Any]:
    pods = cluster.api.items(cluster.api.path("v1", "pods"))
    return {name_of(pod): pod for pod in pods if is_true(pod, condition)}
