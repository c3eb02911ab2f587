"""The ticks of the local fleet as its Prefect server knows them: asked for by hand, and what became of each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import requests

from infra.local.prefect import ENDED, TIMEOUT_S, PrefectError
from tasks.fleets.state import State

DEPLOYMENT = "reconcile/local"
BUSY_PAUSES_S = (0.5, 1.0, 2.0)
"""Its database takes one writer at a time: a server that is busy says 503, and wants to be asked again."""
COALESCED = "Coalesced"
"""State of a run whose work another run did (``tasks.turn``)."""


@dataclass(frozen=True, slots=True)
class EndedTick:
    """A run of the reconcile flow that is over."""

    id: str
    ended_at: float
    """Unix seconds."""
    state: str
    """Prefect's name for it: Completed, Failed, Crashed, Cancelled, Coalesced."""
    line: str
    """Its one-line summary, or why it ended without one."""

    def __str__(self) -> str:
        state = "" if self.state == "Completed" else f"{self.state}: "
        return f"{datetime.fromtimestamp(self.ended_at, UTC):%H:%M:%S} {state}{self.line}"


class Ticks:
    """The ticks that end from a time on (Unix s)."""

    def __init__(self, state: State, since: float) -> None:
        self._api = f"{state.url('prefect')}/api"
        self._since = datetime.fromtimestamp(since, UTC).isoformat()
        self._told: set[str] = set()

    def ask(self, **parameters: str) -> str:
        """Ask for a tick now; return its run's id.

        Raises:
            PrefectError: the server refuses, or does not answer.
        """
        deployment = self._call("GET", f"deployments/name/{DEPLOYMENT}")
        body = {"state": {"type": "SCHEDULED"}, "parameters": parameters}
        return str(self._call("POST", f"deployments/{deployment['id']}/create_flow_run", body)["id"])

    def new(self) -> list[EndedTick]:
        """Those that ended since the last call, oldest first. A server that does not answer tells them later."""
        wanted = {
            "deployments": {"name": {"any_": [DEPLOYMENT.partition("/")[2]]}},
            "flow_runs": {
                "state": {"type": {"any_": [name.upper() for name in ENDED]}},
                "end_time": {"after_": self._since},
            },
            "sort": "END_TIME_DESC",
            "limit": 50,
        }
        try:
            runs = self._call("POST", "flow_runs/filter", wanted)
        except PrefectError:
            return []
        ended = [_ended(run) for run in reversed(runs) if run["id"] not in self._told]
        self._told |= {tick.id for tick in ended}
        return ended

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        for pause_s in (*BUSY_PAUSES_S, None):
            try:
                answer = requests.request(method, f"{self._api}/{path}", json=body, timeout=TIMEOUT_S)
            except requests.RequestException as error:
                raise PrefectError(
                    f"the Prefect server does not answer on {self._api}: {type(error).__name__}"
                ) from error
            if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE or pause_s is None:
                break
            time.sleep(pause_s)
        if not answer.ok:
            raise PrefectError(f"{self._api}/{path}: {answer.status_code} {answer.text[:500]}")
        return answer.json()


def _ended(run: Mapping[str, Any]) -> EndedTick:
    ended_at = datetime.fromisoformat(run["end_time"]).timestamp()
    return EndedTick(run["id"], ended_at, run["state_name"], (run["state"]["message"] or "no message").splitlines()[0])
