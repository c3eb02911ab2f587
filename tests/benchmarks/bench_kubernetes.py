"""What a tick costs the API server at 10, 100 and 1,000 pods, and what the listener saves.

``python -m tests.benchmarks.bench_kubernetes [--listen]``, on a real API server (``KUBEBUILDER_ASSETS``). The calls of
a tick that finds nothing to do, with pods that are objects only. With ``--listen`` also how long a pod that an HPA
brought waits for its first model, from its being ready to its Service's selecting it, with the listener and with the
schedule alone; that takes real Tritons, a Prefect server, a worker, root, and five minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks.config import Config
from tasks.fleets.kubernetes import KubernetesFleet
from tasks.fleets.kubernetes.api import STRATEGIC
from tasks.fleets.kubernetes.names import model_label
from tests.benchmarks.listening import print_waits
from tests.fleets.kubernetes.cluster import Cluster, deployment
from tests.fleets.kubernetes.control_plane import control_plane, missing
from tests.fleets.kubernetes.faults import Faulty
from tests.fleets.kubernetes.kubelet import NODES, address, create_node

PODS = (10, 100, 1000)
MODELS = tuple(f"model-{number}" for number in range(20))
CARRIED = 5
"""Models a pod."""
TRIES = 5


@dataclass(frozen=True)
class Cost:
    pods: int
    calls: int
    seconds: float
    kinds: str
    """Calls by resource."""


def make_pods(cluster: Cluster, count: int) -> None:
    """Ready pods that carry models, without servers, and a Deployment that does not own them."""
    body = deployment("triton-small", "small", 0)
    body["spec"]["selector"]["matchLabels"] = body["spec"]["template"]["metadata"]["labels"] = {"app": "none"}
    cluster.create("apps/v1", "deployments", body)

    def make(number: int) -> None:
        carried = [model_label(MODELS[(number + i) % len(MODELS)]) for i in range(CARRIED)]
        metadata = {
            "name": f"small-{number}",
            "labels": {"triton-placement/pool": "small", **dict(carried)},
            "annotations": {"controller.kubernetes.io/pod-deletion-cost": str(CARRIED)},
        }
        spec = {"nodeName": sorted(NODES)[number % 2], "containers": [{"name": "triton", "image": "triton"}]}
        cluster.create("v1", "pods", {"metadata": metadata, "spec": spec})
        conditions = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "ContainersReady", "Ready")]
        ip = address(number)
        status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions}
        cluster.api.patch(cluster.api.path("v1", "pods", f"small-{number}", "status"), {"status": status}, STRATEGIC)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(count)))


def config(cluster: Cluster) -> Config:
    return cluster.config("small", models={model: {"footprint": "1MB", "service_ms": 1} for model in MODELS})


def quiet_tick(fleet: KubernetesFleet, settings: Config) -> None:
    """What a tick that finds nothing to do asks the API server."""
    with fleet.exclusive(5):
        fleet.pools()
        fleet.replicas()
        fleet.routes()
        fleet.declare(settings.domain_models())


def cost(cluster: Cluster, pods: int) -> Cost:
    """The median of some ticks, each a process of its own as far as the API server can tell."""
    settings = config(cluster)
    quiet_tick(cluster.fleet(settings), settings)
    time.sleep(5)  # the controllers have seen all pods
    runs = []
    for _ in range(TRIES):
        fleet = cluster.fleet(settings)
        counted = Faulty(fleet)
        began = time.perf_counter()
        quiet_tick(fleet, settings)
        runs.append((time.perf_counter() - began, counted.calls))
    seconds, calls = sorted(runs, key=lambda run: run[0])[TRIES // 2]
    return Cost(pods, calls.total(), seconds, _by_resource(calls))


def _by_resource(calls: Counter[tuple[str, str]]) -> str:
    found: Counter[str] = Counter()
    for (method, path), count in calls.items():
        _, is_ours, rest = path.partition("/namespaces/")
        resource = rest.split("/")[1] if is_ours else path.rpartition("/")[2]
        found[f"{method} {resource}"] += count
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items()))


@contextmanager
def plane() -> Iterator[Any]:
    with tempfile.TemporaryDirectory() as folder, control_plane(Path(folder)) as running:
        for node in NODES:
            create_node(running.api("default"), node)
        yield running


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_kubernetes", description=__doc__)
    parser.add_argument("--listen", action="store_true", help="also measure what the listener saves")
    arguments = parser.parse_args()
    if (why := missing()) is not None:
        sys.exit(why)
    console = Console(width=120)
    table = Table("pods", "calls of a quiet tick", "its seconds", "by resource", box=None)
    with plane() as running, ExitStack() as stack:
        for pods in PODS:
            cluster = Cluster(running, f"bench-{pods}", stack)
            make_pods(cluster, pods)
            found = cost(cluster, pods)
            table.add_row(f"{found.pods:,}", str(found.calls), f"{found.seconds:.2f}", found.kinds)
    console.print(table)
    if arguments.listen:
        print_waits(console)


if __name__ == "__main__":
    main()
