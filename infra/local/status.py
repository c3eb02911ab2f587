"""What runs, where, and which replica holds which models."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from tasks.clients.triton import Triton, TritonError
from tasks.fleets.local import LocalFleet
from tasks.world import Replica, ReplicaState

MB = 10**6


def show(live: LocalFleet, console: Console) -> None:
    """Print addresses, programs and replicas.

    Raises:
        FleetUnreadableError: the fleet is not running.
    """
    replicas = live.replicas()
    _addresses(live, console)
    routes = live.routes()
    table = Table("replica", "state", "MB", "HTTP", "gRPC", "copies")
    for replica in replicas:
        table.add_row(
            replica.name,
            f"{replica.state} {replica.detail}".strip(),
            f"{replica.memory_bytes / MB:.0f}",
            replica.http.rpartition(":")[2],
            replica.grpc.rpartition(":")[2],
            _copies(replica, routes),
        )
    console.print(table)
    console.print("in brackets: not routed", style="dim")
    for pool in live.pools():
        console.print(f"pool {pool.name}: {pool.replicas} of {pool.min_replicas} to {pool.max_replicas} replicas")


def _addresses(live: LocalFleet, console: Console) -> None:
    programs = live.programs()
    state = live.state
    table = Table("program", "state", "where", box=None)
    for program, service in (
        ("envoy", "gateway"),
        ("envoy", "gateway_admin"),
        ("prometheus", "prometheus"),
        ("pushgateway", "pushgateway"),
        ("prefect-server", "prefect"),
    ):
        if program in programs:
            table.add_row(service, programs[program], state.url(service))
    if "prefect-worker" in programs:
        table.add_row("worker", programs["prefect-worker"], f"logs in {state.folder / 'logs'}")
    console.print(table)
    if "prefect-server" in programs:
        console.print(
            f"\nexport PREFECT_API_URL={state.url('prefect')}/api   # for the prefect command\n", soft_wrap=True
        )


def _copies(replica: Replica, routes: Mapping[str, frozenset[str]]) -> str:
    if replica.state is not ReplicaState.READY:
        return "?"
    try:
        with Triton(replica, secret="") as triton:
            index = triton.index()
    except TritonError as error:
        return str(error)
    held = {name: status.state for name, status in sorted(index.items()) if status.state not in ("", "UNAVAILABLE")}
    return ", ".join(_copy(name, state, replica.name in routes.get(name, ())) for name, state in held.items())


def _copy(name: str, state: str, is_routed: bool) -> str:
    text = name if state == "READY" else f"{name} {state.lower()}"
    return text if is_routed else f"({text})"
