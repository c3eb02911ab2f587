"""What a tick costs at 10, 100 and 1,000 pods, and what the listener saves.

``python -m tests.benchmarks.bench_kubernetes [--listen]``, on a real API server (``KUBEBUILDER_ASSETS``): the calls and
the seconds of a tick that finds nothing to do. The pods are objects; as root, in a network of their own, one real
Triton answers on all their addresses, and the whole tick is timed too: observe, which reads the cluster and asks each
pod for what it has loaded, the decisions, and act, which looks at Services, routes and costs. There is no Prometheus,
so every model is held. With ``--listen`` also how long a pod that an HPA brought waits for its first model, from its
being ready to its Service's selecting it, with the listener and with the schedule alone; that takes real Tritons, a
Prefect server, a worker, root, and five minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks.act import act
from tasks.clients.triton import Triton
from tasks.config import Config
from tasks.fleets.kubernetes import KubernetesFleet
from tasks.fleets.kubernetes.api import STRATEGIC
from tasks.fleets.kubernetes.names import model_label
from tasks.forecast import forecast
from tasks.observe import observe
from tasks.place import place
from tasks.plan import plan
from tasks.size import size
from tests.benchmarks.listening import print_waits
from tests.fleets.kubernetes.cluster import MODELS, Cluster, deployment
from tests.fleets.kubernetes.control_plane import control_plane, missing
from tests.fleets.kubernetes.faults import Faulty
from tests.fleets.kubernetes.kubelet import NODES, address, create_node
from tests.fleets.kubernetes.network import own_network
from tests.triton_server import triton_server

PODS = (10, 100, 1000)
TRIES = 5
PHASES = ("observe", "decide", "act")


@dataclass(frozen=True)
class Cost:
    pods: int
    calls: int
    seconds: float
    kinds: str
    """Calls by resource."""
    phases: Mapping[str, float] | None
    """Seconds of a whole tick; None: the pods have no addresses here."""


def make_pods(cluster: Cluster, count: int) -> None:
    """Ready pods that carry every model, without servers, and a Deployment that asks for as many and makes none."""
    body = deployment("triton-small", "small", count)
    body["spec"]["paused"] = True
    body["spec"]["selector"]["matchLabels"] = body["spec"]["template"]["metadata"]["labels"] = {"app": "none"}
    cluster.create("apps/v1", "deployments", body)

    def make(number: int) -> None:
        metadata = {
            "name": f"small-{number}",
            "labels": {"triton-placement/pool": "small", **dict(map(model_label, MODELS))},
            "annotations": {"controller.kubernetes.io/pod-deletion-cost": str(len(MODELS))},
        }
        spec = {"nodeName": sorted(NODES)[number % 2], "containers": [{"name": "triton", "image": "triton"}]}
        cluster.create("v1", "pods", {"metadata": metadata, "spec": spec})
        conditions = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "ContainersReady", "Ready")]
        ip = address(number)
        status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions}
        cluster.api.patch(cluster.api.path("v1", "pods", f"small-{number}", "status"), {"status": status}, STRATEGIC)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(count)))


def config(cluster: Cluster, pods: int) -> Config:
    need = {"footprint": "1MB", "service_ms": 1, "max_copies": pods}
    pool = {"memory": "1GB", "max_replicas": pods}
    return cluster.config(pools={"small": pool}, models=dict.fromkeys(MODELS, need))


def quiet_tick(fleet: KubernetesFleet, settings: Config) -> None:
    """What a tick that finds nothing to do asks the API server."""
    with fleet.exclusive(5):
        fleet.pools()
        fleet.replicas()
        fleet.routes()
        fleet.declare(settings.domain_models())


def whole_tick(fleet: KubernetesFleet, settings: Config) -> dict[str, float]:
    """Seconds of its phases."""
    limits, marks = settings.limits.limits(), [time.perf_counter()]
    with fleet.exclusive(5):
        seen = observe(settings, fleet, time.time())
        marks.append(time.perf_counter())
        sizings = size(seen, forecast(seen, limits), limits)
        steps = plan(seen, place(seen, sizings, limits), sizings, limits)
        marks.append(time.perf_counter())
        act(steps, fleet, seen, settings)
        marks.append(time.perf_counter())
    if steps.steps:
        sys.exit(f"the tick should find nothing to do, and plans {steps.steps[0]}")
    return {name: marks[n + 1] - marks[n] for n, name in enumerate(PHASES)}


def cost(cluster: Cluster, pods: int, is_answered: bool) -> Cost:
    """The median of some ticks, each a process of its own as far as the API server can tell."""
    settings = config(cluster, pods)
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
    ticks = [whole_tick(cluster.fleet(settings), settings) for _ in range(TRIES)] if is_answered else [None]
    phases = sorted(ticks, key=lambda tick: sum(tick.values()) if tick else 0)[len(ticks) // 2]
    return Cost(pods, calls.total(), seconds, _by_resource(calls), phases)


def _by_resource(calls: Counter[tuple[str, str]]) -> str:
    found: Counter[str] = Counter()
    for (method, path), count in calls.items():
        _, is_ours, rest = path.partition("/namespaces/")
        resource = rest.split("/")[1] if is_ours else path.rpartition("/")[2]
        found[f"{method} {resource}"] += count
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items()))


@contextmanager
def plane() -> Iterator[tuple[Any, bool]]:
    """The control plane, and whether a Triton with every model answers on the pods' addresses."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, is_answered = Path(name), True
        try:
            stack.enter_context(own_network())
        except OSError:
            is_answered = False
        running = stack.enter_context(control_plane(folder))
        for node in NODES:
            create_node(running.api("default"), node)
        if is_answered:
            server = stack.enter_context(triton_server(folder, host="0.0.0.0", ports=(8000, 8001, 8002)))
            with Triton(server.replica) as triton:
                for model in MODELS:
                    triton.load(model, 30)
        yield running, is_answered


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_kubernetes", description=__doc__)
    parser.add_argument("--listen", action="store_true", help="also measure what the listener saves")
    arguments = parser.parse_args()
    if (why := missing()) is not None:
        sys.exit(why)
    console = Console(width=120)
    phases = ("the whole tick, s", *(f"its {name}" for name in PHASES))
    table = Table("pods", "calls of a quiet tick", "their seconds", *phases, "calls by resource", box=None)
    with plane() as (running, is_answered), ExitStack() as stack:
        for pods in PODS:
            cluster = Cluster(running, f"bench-{pods}", stack)
            make_pods(cluster, pods)
            found = cost(cluster, pods, is_answered)
            seconds = (found.seconds, *(_whole(found.phases) if found.phases else ()))
            cells = [f"{one:.2f}" for one in seconds] + ["takes root"] * (len(PHASES) + 2 - len(seconds))
            table.add_row(f"{found.pods:,}", str(found.calls), *cells, found.kinds)
    console.print(table)
    if arguments.listen:
        print_waits(console)


def _whole(phases: Mapping[str, float]) -> list[float]:
    """Seconds of all phases together, and of each."""
    return [sum(phases.values()), *(phases[name] for name in PHASES)]


if __name__ == "__main__":
    main()
