"""A real Prefect server in a folder of its own, and what the command line makes of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.triton_server import free_ports

ROOT = Path(__file__).parents[2]
PREFECT = Path(sys.executable).parent / "prefect"
START_S = 120.0
BUSY = Retry(total=8, backoff_factor=0.5, status_forcelist=(503,), allowed_methods=None)
"""Its database takes one writer at a time: a server that is busy says 503, and wants to be asked again."""


@dataclass(frozen=True)
class PrefectServer:
    url: str
    """With ``/api``."""
    environment: Mapping[str, str]

    def run(self, *arguments: str) -> None:
        """The ``prefect`` command, in the repository's root."""
        command = [str(PREFECT), "--no-prompt", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=BUSY))
            answer = session.post(f"{self.url}/{path}", json=body or {}, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def runs(self) -> list[dict[str, Any]]:
        """Flow runs that a trigger made: none was made by the schedule."""
        found: list[dict[str, Any]] = self.ask("flow_runs/filter", {"sort": "START_TIME_ASC"})
        return [run for run in found if not run["auto_scheduled"]]

    def events(self) -> list[tuple[str, str]]:
        """(event, subject) of all that the listener told, newest first."""
        wanted = {"filter": {"event": {"prefix": ["triton."]}}, "limit": 50}
        found = self.ask("events/filter", wanted)["events"]
        return [(event["event"], event["resource"]["prefect.resource.name"]) for event in found]


@contextmanager
def prefect_server(folder: Path) -> Iterator[PrefectServer]:
    """A server that listens on a free port of loopback; its folder is ``folder``."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": url,
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = [str(PREFECT), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        _wait(url, process, folder / "server.log")
        yield PrefectServer(url, environment)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{url}/health", timeout=2).ok:
                return
        except requests.RequestException:
            time.sleep(0.2)
    raise RuntimeError(f"the Prefect server did not start: {log.read_text()[-2000:]}")
