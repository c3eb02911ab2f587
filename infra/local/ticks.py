"""The ticks of the local fleet as its Prefect server knows them: asked for by hand, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from infra.local.prefect import ENDED
from infra.local.prefect_api import PrefectError, call
from tasks.fleets.state import State

DEPLOYMENT = "reconcile/local"
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
        self._state = state
        self._since = datetime.fromtimestamp(since, UTC).isoformat()
        self._told: set[str] = set()

    def ask(self, **parameters: str) -> str:
        """Ask for a tick now; return its run's id. A server that does not answer is asked once more: by its key the run
        is the same, whatever became of the first request.

        Raises:
            PrefectError: the server refuses, or does not answer.
        """
        deployment = call(self._state, "GET", f"deployments/name/{DEPLOYMENT}")
        path = f"deployments/{deployment['id']}/create_flow_run"
        body = {"state": {"type": "SCHEDULED"}, "parameters": parameters, "idempotency_key": str(uuid4())}
        try:
            run = call(self._state, "POST", path, body)
        except PrefectError:
            run = call(self._state, "POST", path, body)
        return str(run["id"])

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
            runs = call(self._state, "POST", "flow_runs/filter", wanted)
        except PrefectError:
            return []
        ended = [_ended(run) for run in reversed(runs) if run["id"] not in self._told]
        self._told |= {tick.id for tick in ended}
        return ended


def _ended(run: Mapping[str, Any]) -> EndedTick:
    ended_at = datetime.fromisoformat(run["end_time"]).timestamp()
    return EndedTick(run["id"], ended_at, run["state_name"], (run["state"]["message"] or "no message").splitlines()[0])
