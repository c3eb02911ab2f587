"""A private local fleet of real servers: its own folder, its own ports, always taken down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from infra.local.checks import MachineError, check_platform, triton_python
from infra.local.fleet import down, up
from tasks.clients.triton import Triton
from tasks.config import Config, read_config
from tasks.fleets.local import LocalFleet
from tasks.fleets.supervisor import Supervisor
from tasks.world import Replica

MODEL = {"service_ms": 10, "queue_ms": 50, "load_s": 2, "footprint": "80MB"}
CONFIG: Mapping[str, Any] = {
    "pools": {
        "small": {"memory": "700MB", "max_replicas": 3, "start_s": 3},
        "large": {"memory": "1500MB", "max_replicas": 1, "min_replicas": 0, "start_s": 3},
    },
    "models": {"vad": MODEL, "filetype": MODEL, "squeezenet": {**MODEL, "min_copies": 0, "idle_s": 30}},
    "limits": {"interval_s": 30, "stale_s": 45, "stabilisation_s": 60},
    "metrics": {"window_s": 20, "step_s": 5, "history_s": 600},
}


@dataclass(frozen=True)
class RunningFleet:
    live: LocalFleet
    config: Config
    config_path: Path

    def replica(self, name: str) -> Replica:
        return next(replica for replica in self.live.replicas() if replica.name == name)

    def load(self, model: str, replica: str) -> None:
        with Triton(self.replica(replica), secret="") as triton:
            triton.load(model, timeout_s=60)

    def unload(self, model: str, replica: str) -> None:
        """Return once Triton says that it is gone."""
        with Triton(self.replica(replica), secret="") as triton:
            triton.unload(model)
            wait_until(lambda: triton.index()[model].state == "UNAVAILABLE", f"{model} unloaded")

    def ask(self, model: str) -> requests.Response:
        """A request that reaches a replica and comes back, without an inference."""
        return requests.get(f"{self.live.gateway_url}/v2/models/{model}", timeout=10)

    def infer(self, model: str, *inputs: Mapping[str, Any]) -> requests.Response:
        url = f"{self.live.gateway_url}/v2/models/{model}/infer"
        return requests.post(url, json={"inputs": inputs}, timeout=30)


@contextmanager
def running_fleet(
    folder: Path, config: Mapping[str, Any] = CONFIG, has_prefect: bool = False
) -> Iterator[RunningFleet]:
    """Bring up a fleet with this configuration in a folder of its own; skip where it cannot run."""
    try:
        check_platform()
        triton_python()
    except MachineError as error:
        pytest.skip(str(error))
    path = folder / "placement.yaml"
    path.write_text(
        yaml.safe_dump({**config, "fleet": {"kind": "local", "state": str(folder / "state")}}, sort_keys=False)
    )
    read = read_config(path, has_needs=False)
    try:
        yield RunningFleet(up(read, path, say=print, has_prefect=has_prefect), read, path)
    finally:
        down(folder / "state", say=print)


def pid_of(fleet: RunningFleet, program: str) -> int:
    return int(Supervisor(fleet.live.state.supervisor_socket).programs()[program]["pid"])


def wait_until(is_so: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.05)
