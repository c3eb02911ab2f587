"""The gateway of compose.yaml, as a real Envoy in front of two real Tritons."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tasks.clients.triton import Triton
from tests.infra.compose.test_compose import INFRA
from tests.triton_server import TritonServer, free_ports, triton_server

pytestmark = pytest.mark.servers

ENVOY = Path(sys.executable).parent / "envoy"


@contextmanager
def gateway(folder: Path, replicas: tuple[TritonServer, TritonServer]) -> Iterator[str]:
    """Its configuration with these addresses and models, and nothing else changed."""
    text = (INFRA / "compose" / "envoy.yaml").read_text()
    admin, listener = free_ports(2)
    changes = {"first_model": "echo", "second_model": "other", "0.0.0.0": "127.0.0.1",
               "port_value: 9901": f"port_value: {admin}", "port_value: 8080": f"port_value: {listener}"}  # fmt: skip
    for number, server in enumerate(replicas):
        host, port = server.replica.http.split(":")
        changes[f"address: triton-{number}, port_value: 8000"] = f"address: {host}, port_value: {port}"
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "envoy.yaml").write_text(text)
    command = [str(ENVOY), "-c", str(folder / "envoy.yaml"), "--disable-hot-restart", "--concurrency", "1"]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{listener}"
    finally:
        process.terminate()
        process.wait(15)


def infer(url: str, model: str) -> int:
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}
    try:
        return requests.post(f"{url}/v2/models/{model}/infer", json={"inputs": [tensor]}, timeout=5).status_code
    except requests.ConnectionError:
        return 0


def reached(url: str, model: str, status: int, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if infer(url, model) == status:
            return True
        time.sleep(0.1)
    return False


def test_requests_go_where_the_model_is(tmp_path: Path) -> None:
    with (
        triton_server(tmp_path, "triton-0") as first,
        triton_server(tmp_path, "triton-1") as second,
        gateway(tmp_path, (first, second)) as url,
        Triton(first.replica) as on_first,
        Triton(second.replica) as on_second,
    ):
        assert reached(url, "echo", 503, within_s=10), "no replica has it: the gateway says so itself"
        on_first.load("echo", 30)
        on_second.load("other", 30)
        assert reached(url, "echo", 200, within_s=5)
        assert reached(url, "other", 200, within_s=5)
        assert {infer(url, model) for model in ("echo", "other") * 20} == {200}
        assert infer(url, "nobody") == 404
        on_first.unload("echo")
        assert reached(url, "echo", 503, within_s=5)
