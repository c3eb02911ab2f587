"""gRPC goes by a Service's name, which sends connections, not requests, where the model is: replicas end old ones."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests
from tritonclient import grpc

from tasks.act.steps import DRAIN_S, QUIET_S
from tasks.clients.triton import Triton
from tests.infra.chart.rendering import NAMES, release
from tests.triton_server import TritonServer, triton_server

FLAG = "--grpc-max-connection-age="
JITTER = 1.1
"""gRPC ends connections up to a tenth later, so that not all come anew at once."""


def ages_s(name: str) -> set[float]:
    found = [a for pod in release(name).replicas().values() for a in pod["spec"]["containers"][0]["args"]]
    return {int(argument.removeprefix(FLAG)) / 1000 for argument in found if argument.startswith(FLAG)}


@pytest.mark.parametrize("name", NAMES)
def test_connections_end_in_time_for_a_drain(name: str) -> None:
    """10 s, a tenth more, and a second of quiet: 12 of the 15 s that a copy has to become quiet once it is unrouted."""
    (age_s,) = ages_s(name)
    assert JITTER * age_s + QUIET_S < DRAIN_S


@dataclass
class Service:
    """As kube-proxy does: a new connection goes to an endpoint of now, an open one stays where it is."""

    address: str
    endpoint: str


@contextmanager
def service(endpoint: str) -> Iterator[Service]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        of = Service(f"127.0.0.1:{listener.getsockname()[1]}", endpoint)

        def accept() -> None:
            with suppress(OSError):  # closed: the test is over
                while True:
                    client, _ = listener.accept()
                    host, port = of.endpoint.split(":")
                    server = socket.create_connection((host, int(port)))
                    for ends in ((client, server), (server, client)):
                        threading.Thread(target=_pump, args=ends, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield of


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def infer(client: grpc.InferenceServerClient, seconds: float) -> int:
    """Requests one after the other for a while, all answered: an exception fails the test. How many."""
    tensor = grpc.InferInput("x", [1], "FP32")
    tensor.set_data_from_numpy(np.ones(1, dtype=np.float32))
    deadline, count = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        client.infer("echo", [tensor])
        count += 1
    return count


def answered(server: TritonServer) -> int:
    stats = requests.get(f"http://{server.replica.http}/v2/models/echo/stats", timeout=5).json()
    return int(stats["model_stats"][0]["inference_count"])


@pytest.mark.servers
def test_a_client_that_keeps_its_connection_follows_the_model(tmp_path: Path) -> None:
    """With connections of a second: after three the new replica answers all, and the old one's unload fails nobody."""
    with (
        triton_server(tmp_path, "old", f"{FLAG}1000") as old,
        triton_server(tmp_path, "new", f"{FLAG}1000") as new,
        Triton(old.replica) as on_old,
        Triton(new.replica) as on_new,
        service(old.replica.grpc) as of,
        grpc.InferenceServerClient(of.address) as client,
    ):
        on_old.load("echo", 30)
        on_new.load("echo", 30)
        first = infer(client, 0.5)
        assert (answered(old), answered(new)) == (first, 0)
        of.endpoint = new.replica.grpc
        later = infer(client, 3)
        assert answered(old) + answered(new) == first + later
        before = answered(old)
        assert infer(client, 1) > 10
        assert answered(old) == before
        on_old.unload("echo")
        infer(client, 1)
        on_old.load("slow", 30)  # a load that outlasts its connection comes to its end
