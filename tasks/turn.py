"""One writer, Prefect's part: whose turn it is to act, and what becomes of the runs that wait.

The fleet's own lock (``LiveFleet.exclusive``) keeps two ticks from acting at once, whatever started them. Prefect's
concurrency limit of one keeps a second run from starting at all; it waits. Here the waiting runs are coalesced: while a
tick acts, the newest run that waits stands for all that wait; and once it is done, the runs that were asked for before
it observed are done with too, since it has seen what they were to look at. So at most one waits, and none is lost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from tasks.fleets import LiveFleet

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

T = TypeVar("T")

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""Between two looks at the own run's state: a cancelled run stops before its next step, at a few calls a tick."""


@contextmanager
def turn(live: LiveFleet, mode: str, wait_s: float) -> Iterator[Callable[[], bool]]:
    """Hold the fleet's lock (``apply``), and give ``should_stop`` for ``act``: True once this run may act no more,
    since it was cancelled or the lock was lost.

    Raises:
        FleetBusyError: another tick still acts after ``wait_s``.
    """
    with live.exclusive(wait_s) if mode == "apply" else nullcontext():
        waiting = _Waiting.of_this_run()
        began = datetime.now(UTC)
        yield lambda: waiting.should_stop() or (mode == "apply" and not live.still_exclusive())
    waiting.coalesce(keep=0, asked_before=began)


class _Waiting:
    """The runs of this run's deployment that wait with the same parameters. Outside a deployment there are none."""

    def __init__(self, run_id: UUID | None, deployment_id: UUID | None, parameters: dict[str, object]) -> None:
        self.run_id, self.deployment_id, self.parameters = run_id, deployment_id, parameters
        self.looked_at = time.monotonic()
        self.is_over = False
        self._look: threading.Thread | None = None

    @classmethod
    def of_this_run(cls) -> _Waiting:
        from prefect.context import FlowRunContext

        context = FlowRunContext.get()
        run = context.flow_run if context else None
        return cls(run.id, run.deployment_id, run.parameters) if run else cls(None, None, {})

    def should_stop(self) -> bool:
        """True once it is known that this run was cancelled or declared crashed. The Prefect server is asked aside: one
        that does not answer, which its client tries for a minute, holds up no step, since the fleet's lock is held."""
        is_asked = self._look is not None and self._look.is_alive()
        if self.run_id is not None and not is_asked and time.monotonic() - self.looked_at >= LOOK_S:
            self.looked_at = time.monotonic()
            self._look = threading.Thread(target=self._look_at, args=(self.run_id,), name="look", daemon=True)
            self._look.start()
        return self.is_over

    def _look_at(self, run_id: UUID) -> None:
        run = _ask("read this run's state", lambda client: client.read_flow_run(run_id))
        state = run.state if run else None
        self.is_over = self.is_over or (state is not None and (state.is_final() or state.is_cancelling()))
        self.coalesce(keep=1, asked_before=datetime.now(UTC))

    def coalesce(self, keep: int, asked_before: datetime) -> None:
        """End the waiting runs that were due before a time, but for the newest ``keep``."""
        if self.deployment_id is None:
            return
        from prefect.states import Cancelled

        why = "a newer run waits in its place" if keep else f"what it was to look at is seen by run {self.run_id}"

        def end_all(client: SyncPrefectClient) -> None:
            for run in self._due(client, asked_before)[keep:]:
                client.set_flow_run_state(run.id, Cancelled(name="Coalesced", message=why), force=True)

        _ask("coalesce the waiting runs", end_all)

    def _due(self, client: SyncPrefectClient, asked_before: datetime) -> list[FlowRun]:
        """Newest first."""
        from prefect.client.schemas.filters import FlowRunFilter
        from prefect.client.schemas.sorting import FlowRunSort

        due = FlowRunFilter.model_validate(
            {
                "deployment_id": {"any_": [str(self.deployment_id)]},
                "state": {"type": {"any_": ["SCHEDULED"]}},
                "expected_start_time": {"before_": asked_before.isoformat()},
            }
        )
        runs = client.read_flow_runs(flow_run_filter=due, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=100)
        return [run for run in runs if run.id != self.run_id and run.parameters == self.parameters]


def _ask(purpose: str, work: Callable[[SyncPrefectClient], T]) -> T | None:
    """What the Prefect server answers; None, and a line in the log, when it cannot be asked: the tick goes on."""
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            return work(client)
    except Exception as error:
        log.warning("Prefect server: could not %s: %s", purpose, error)
        return None
