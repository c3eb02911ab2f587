"""A real Triton with tiny models, for tests of what talks to Triton.

The server comes from the wheel ``nvidia-pytriton`` in a virtual environment of its own, with ``numpy<2``.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tasks.world import Replica

VENV = Path(os.environ.get("TRITON_VENV", ".venv-triton")).absolute()
STUB = f"python_backend_stubs/{sys.version_info.major}.{sys.version_info.minor}/triton_python_backend_stub"

CONFIG = """
backend: "python"
input [{ name: "x" data_type: TYPE_FP32 dims: [1] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [1] }]
"""
ECHO = """
import time
import triton_python_backend_utils as pb

time.sleep({load_s})


class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.02)
        inputs = [pb.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb.InferenceResponse([pb.Tensor("y", x)]) for x in inputs]
"""
MODELS = {
    "echo": ECHO.format(load_s=0),
    "other": ECHO.format(load_s=0),
    "slow": ECHO.format(load_s=1.5),
    "broken": "raise RuntimeError('no weights')",
}


@dataclass(frozen=True)
class TritonServer:
    replica: Replica
    process: subprocess.Popen[bytes]
    log: Path

    def infer(self, model: str) -> int:
        """Status of one inference."""
        tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}
        url = f"http://{self.replica.http}/v2/models/{model}/infer"
        return requests.post(url, json={"inputs": [tensor]}, timeout=30).status_code

    def kill_stubs(self) -> None:
        """Kill the processes in which the Python models run: the server goes on saying READY."""
        for child in _children(self.process.pid):
            os.kill(child, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(child) for child in found.stdout.split()]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def triton_server(
    folder: Path,
    name: str = "small-0",
    *arguments: str,
    host: str = "127.0.0.1",
    ports: tuple[int, int, int] = (0, 0, 0),
) -> Iterator[TritonServer]:
    """A server without a loaded model, with the models of ``MODELS`` in its repository.

    ``ports``: HTTP, gRPC and metrics on ``host``; 0: free ones of loopback.
    """
    package = next(VENV.glob("lib/python3.*/site-packages/pytriton/tritonserver"), None)
    if package is None:
        pytest.skip(f"no Triton in {VENV}: run make up once, or set TRITON_VENV to a venv with nvidia-pytriton==0.7.0")
    folder = folder / name
    for model, code in MODELS.items():
        (folder / "repository" / model / "1").mkdir(parents=True)
        (folder / "repository" / model / "config.pbtxt").write_text(CONFIG)
        (folder / "repository" / model / "1" / "model.py").write_text(code)
    shutil.copytree(package / "backends" / "python", folder / "backends" / "python")
    shutil.copy(package / STUB, folder / "backends" / "python")
    http, grpc, metrics = ports if all(ports) else free_ports(3)
    port_by_flag = {"http-port": http, "grpc-port": grpc, "metrics-port": metrics}
    command = [
        str(package / "bin" / "tritonserver"),
        f"--model-repository={folder / 'repository'}",
        f"--backend-directory={folder / 'backends'}",
        *("--disable-auto-complete-config", "--model-control-mode=explicit", "--strict-readiness=false"),
        *("--exit-timeout-secs=5", "--metrics-interval-ms=1000", *arguments),
        *(f"--{kind}-address={host}" for kind in ("http", "grpc", "metrics")),
        *(f"--{flag}={port}" for flag, port in port_by_flag.items()),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=_environment(package), stdout=log, stderr=log)
    try:
        _wait_until_live(f"{host}:{http}", process, folder / "log")
        replica = Replica(
            name, "small", "small", 10**9, 1.0, http=f"{host}:{http}", grpc=f"{host}:{grpc}",
            metrics=f"{host}:{metrics}",
        )  # fmt: skip
        yield TritonServer(replica, process, folder / "log")
    finally:
        process.terminate()  # in peace: a killed server leaves its stubs' shared memory behind
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(package: Path) -> dict[str, str]:
    asked = [str(VENV / "bin" / "python"), "-c", "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"]
    library = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    libraries = package.parent.parent / "nvidia_pytriton.libs"
    return os.environ | {"LD_LIBRARY_PATH": f"{library}:{libraries}", "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}"}


def _wait_until_live(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"http://{address}/v2/health/live", timeout=1).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.05)
    raise RuntimeError(f"Triton did not start: {log.read_text()[-2000:]}")
