"""What a real Envoy makes of the weights in its files: the shares that its requests are really split by."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.local.programs import envoy_bootstrap
from tasks.fleets.envoy import Gateway
from tasks.fleets.state import State, free_ports, write_atomically
from tests.local_fleet import wait_until

pytestmark = pytest.mark.servers

ENVOY = Path(sys.executable).parent / "envoy"
NEVER_ZERO = {"m": False}
TOLERANCE = 0.01
"""Of a share. With the bias that is Envoy's default a share of 0.75 came to 0.64 to 0.73."""


class Server(ThreadingHTTPServer):
    """Answers one request after another, each in the same time."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, service_s: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.service_s, self.count, self.turn = service_s, 0, threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        if not self.path.endswith("/ready"):
            with self.server.turn:
                self.server.count += 1
                time.sleep(self.server.service_s)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def server(service_s: float) -> Iterator[Server]:
    with Server(service_s) as running:
        threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
        yield running
        running.shutdown()


@contextmanager
def gateway(folder: Path, servers: list[Server]) -> Iterator[tuple[Gateway, int]]:
    """An Envoy whose model m has these servers; its control, and the port that answers."""
    ports = free_ports()
    state = State(folder, {"gateway": next(ports), "gateway_admin": next(ports)}, ())
    control = Gateway(state)
    control.write(NEVER_ZERO)
    write_atomically(folder / "envoy" / "bootstrap.json", envoy_bootstrap(state))
    command = [
        str(ENVOY),
        "-c",
        str(folder / "envoy" / "bootstrap.json"),
        "--disable-hot-restart",
        "--concurrency",
        "1",
    ]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(control.is_live, "Envoy is live")
        for one in servers:
            control.change("m", one.server_port, True, NEVER_ZERO)
        yield control, state.port_by_service["gateway"]
    finally:
        process.terminate()
        process.wait(15)


def ask(port: int, requests: int, clients: int) -> None:
    """So many requests, by clients that each wait for their answer; all are answered."""

    def one(_: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        for _ in range(requests // clients):
            connection.request("GET", "/v2/models/m/infer")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
        connection.close()

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, range(clients)))


def shares(port: int, servers: list[Server], requests: int, clients: int) -> list[float]:
    before = [one.count for one in servers]
    ask(port, requests, clients)
    return [(one.count - was) / requests for one, was in zip(servers, before, strict=True)]


@pytest.mark.parametrize("clients", [1, 12], ids=["one in flight", "twelve in flight: queues"])
@pytest.mark.parametrize("weights", [(0.5, 1.5), (0.2, 0.9, 1.9)], ids=str)
def test_shares_follow_the_weights(tmp_path: Path, weights: tuple[float, ...], clients: int) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(server(service_s=0.002)) for _ in weights]
        control, port = stack.enter_context(gateway(tmp_path, servers))
        wanted = {one.server_port: weight for one, weight in zip(servers, weights, strict=True)}
        control.weigh("m", wanted)
        assert control.endpoints() == {"m": wanted}
        found = shares(port, servers, 600, clients)
        assert found == pytest.approx([weight / sum(weights) for weight in weights], abs=TOLERANCE)


def test_equal_weights_give_the_next_request_to_the_least_busy(tmp_path: Path) -> None:
    """Of two copies one takes four times as long: in turns each would get half of the requests."""
    with server(0.002) as fast, server(0.008) as slow, gateway(tmp_path, [fast, slow]) as (_, port):
        assert shares(port, [fast, slow], 400, clients=4)[1] < 0.35


def test_what_comes_later_weighs_one_and_what_stays_keeps_its_weight(tmp_path: Path) -> None:
    with (
        server(0.002) as first,
        server(0.002) as second,
        server(0.002) as third,
        gateway(tmp_path, [first, second]) as (control, port),
    ):
        control.weigh("m", {first.server_port: 0.4, second.server_port: 1.6, third.server_port: 5.0})
        control.change("m", third.server_port, True, NEVER_ZERO)
        kept = {first.server_port: 0.4, second.server_port: 1.6}
        assert control.endpoints()["m"] == kept | {third.server_port: 1.0}
        # 0.4, 1.6 and 1 of 3
        found = shares(port, [first, second, third], 600, clients=4)
        assert found == pytest.approx([0.4 / 3, 1.6 / 3, 1 / 3], abs=TOLERANCE)
        control.forget(third.server_port)
        assert control.endpoints()["m"] == kept


def test_no_request_fails_while_weights_change(tmp_path: Path) -> None:
    with server(0.002) as first, server(0.002) as second, gateway(tmp_path, [first, second]) as (control, port):
        over = threading.Event()

        def shift() -> None:
            for turn in range(1000):
                if over.wait(0.02):
                    return
                control.weigh("m", {first.server_port: 0.5 + turn % 2, second.server_port: 1.5 - turn % 2})

        shifting = threading.Thread(target=shift)
        shifting.start()
        ask(port, 1200, clients=4)
        over.set()
        shifting.join()
        assert first.count + second.count == 1200
