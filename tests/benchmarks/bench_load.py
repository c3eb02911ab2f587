"""What the load generator costs, beside the loop that one would write with ``tritonclient.http.aio``.

``python -m tests.benchmarks.bench_load``: both send the same arrivals, open loop, to the same server, which runs in a
process of its own.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
from rich.console import Console
from rich.table import Table

from infra.load import Profile, Segment, run
from infra.load.profile import arrivals
from tests.infra.load.gateway import Gateway, served

CASES = (("small", 300.0), ("small", 600.0), ("squeezenet", 40.0))
"""Model and requests a second: 16 bytes, and a picture of 602 kB."""
DURATION_S = 5.0


@dataclass(frozen=True)
class Cost:
    sent: int
    cpu_s: float
    elapsed_s: float
    p99_ms: float
    """Of the latency from the intended arrival."""

    @property
    def rps(self) -> float:
        return self.sent / self.elapsed_s

    @property
    def cpu_ms(self) -> float:
        return self.cpu_s / self.sent * 1000


async def ours(profile: Profile, url: str) -> Cost:
    report = await run(profile, url)
    assert report.failed == 0, report.failures
    return Cost(report.sent, report.clock.cpu_s, report.clock.elapsed_s, report.models[0].p99_ms or float("nan"))


async def theirs(profile: Profile, url: str) -> Cost:
    """The example of its documentation, with a task for each arrival."""
    from tritonclient.http.aio import InferenceServerClient, InferInput

    client = InferenceServerClient(url.removeprefix("http://"), conn_limit=1000)
    schedule, (model,) = arrivals(profile), profile.models
    shape = [1, 3, 224, 224] if model == "squeezenet" else [1, 4]
    values = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    latencies_ms: list[float] = []
    name = "data_0" if model == "squeezenet" else "x"

    async def infer(intended_s: float) -> None:
        tensor = InferInput(name, shape, "FP32")
        tensor.set_data_from_numpy(values)
        await client.infer(model, [tensor])
        latencies_ms.append((time.perf_counter() - start - intended_s) * 1000)

    cpu_s, start, tasks = time.process_time(), time.perf_counter(), []
    for at_s in schedule.times_s.tolist():
        await asyncio.sleep(max(0.0, start + at_s - time.perf_counter()))
        tasks.append(asyncio.create_task(infer(at_s)))
    await asyncio.gather(*tasks)
    cost = Cost(
        len(tasks), time.process_time() - cpu_s, time.perf_counter() - start, float(np.percentile(latencies_ms, 99))
    )
    await client.close()
    return cost


def _serve(connection: Connection) -> None:
    with served(Gateway()) as gateway:
        connection.send(gateway.url)
        connection.recv()


@contextmanager
def _server() -> Iterator[str]:
    context = multiprocessing.get_context("spawn")
    connection, child = context.Pipe()
    process = context.Process(target=_serve, args=(child,))
    process.start()
    try:
        yield connection.recv()
    finally:
        connection.send("stop")
        process.join()


def main() -> None:
    logging.disable(logging.WARNING)
    table = Table(title="load generator against tritonclient.http.aio: the same arrivals, the same server")
    for column in ("model", "req/s asked", "client", "req/s sent", "CPU ms a request", "core", "p99 ms"):
        table.add_column(column, justify="left" if column in ("model", "client") else "right")
    for model, rps in CASES:
        profile = Profile(model, DURATION_S, (Segment(model, 0.0, DURATION_S, rps, rps),), seed=1)
        with _server() as url:
            costs = {"infra.load": asyncio.run(ours(profile, url)), "tritonclient": asyncio.run(theirs(profile, url))}
        for client, cost in costs.items():
            share = f"{cost.cpu_s / cost.elapsed_s:.0%}"
            numbers = (f"{cost.rps:.0f}", f"{cost.cpu_ms:.2f}", share, f"{cost.p99_ms:.1f}")
            table.add_row(model, f"{rps:.0f}", client, *numbers)
        mine, other = costs.values()
        ratio = (f"{mine.cpu_ms / other.cpu_ms:.2f} x", "", f"{mine.p99_ms / other.p99_ms:.2f} x")
        table.add_row("", "", "ratio", f"{mine.rps / other.rps:.2f} x", *ratio, style="bold", end_section=True)
    Console(width=100 if not sys.stdout.isatty() else None).print(table)


if __name__ == "__main__":
    main()
