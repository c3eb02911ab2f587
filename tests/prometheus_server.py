"""A real Prometheus that holds exactly the samples that a test gives it."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.triton_server import free_ports

Samples = Mapping[str, Mapping[float, float]]
"""Values by time (Unix s) of each series, which is written as in PromQL: ``name{label="text"}``."""


@contextmanager
def prometheus_server(folder: Path, samples: Samples, configuration: str = "global: {}\n") -> Iterator[str]:
    """The URL of a Prometheus that has these samples and, unless its configuration says otherwise, scrapes nothing."""
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        pytest.skip("no prometheus and promtool on PATH: apt install prometheus, or brew install prometheus")
    lines = [f"{series} {value} {at:.3f}" for series, by_time in samples.items() for at, value in by_time.items()]
    (folder / "samples.txt").write_text("\n".join([*lines, "# EOF\n"]))
    (folder / "prometheus.yml").write_text(configuration)
    load = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "-q", "samples.txt", "data"]
    subprocess.run(load, cwd=folder, check=True, capture_output=True)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = [
        "prometheus",
        *("--config.file=prometheus.yml", "--storage.tsdb.path=data", "--storage.tsdb.retention.time=10y"),
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        _wait_until_ready(address, process, folder / "log")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(15)


def _wait_until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"http://{address}/-/ready", timeout=1).ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"Prometheus did not start: {log.read_text()[-2000:]}")
