"""record: what the tick saw, decided and did, as artifacts for people and metrics for Prometheus."""

from __future__ import annotations

import logging
from dataclasses import replace
from http.client import HTTPException
from time import perf_counter

from tasks.decision import Tick
from tasks.place import cost
from tasks.record import metrics
from tasks.record.page import summary
from tasks.record.rows import demand_rows, placement_rows, step_rows
from tasks.record.words import one_line
from tasks.world import Limits

__all__ = ["one_line", "record", "record_refusal"]

log = logging.getLogger(__name__)


def record(tick: Tick, limits: Limits, pushgateway_url: str) -> str:
    """Leave the tick's metrics and artifacts behind; return its one-line summary.

    The metrics go first: the next ticks read them, and Prefect may be down by now. A Pushgateway that cannot be reached
    is logged, not raised: what was done is done, and losing a tick's metrics costs quality (a stabilisation window not
    known in full holds scale-downs), never safety. Plan mode pushes nothing, since it wanted nothing.

    What the fleet costs is reckoned against its lower bound here, where no decision waits for it. Its own seconds
    stand beside those of the other phases: in the metrics all before their push, on the page all before it.
    """
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    start = perf_counter()
    tick = replace(tick, cost=cost(tick.observation, tick.placement, tick.sizings, limits))
    if tick.mode == "apply":
        try:
            metrics.push(_timed(tick, start), pushgateway_url)
        except (OSError, HTTPException) as error:
            log.warning("metrics not pushed to %s: %s; is the Pushgateway running?", pushgateway_url, error)
    create_table_artifact(
        key="reconcile-placement", table=placement_rows(tick), description="copies, and why they are there"
    )
    create_table_artifact(key="reconcile-demand", table=demand_rows(tick), description="demand, forecast and copies")
    create_table_artifact(key="reconcile-steps", table=step_rows(tick), description="steps and their outcomes")
    tick = _timed(tick, start)
    line = one_line(tick)
    create_markdown_artifact(key="reconcile-summary", markdown=summary(tick), description=line)
    return line


def _timed(tick: Tick, start: float) -> Tick:
    return replace(tick, seconds_by_phase={**(tick.seconds_by_phase or {}), "record": perf_counter() - start})


def record_refusal(why: str) -> None:
    """The artifact of a tick that ended before it could decide: the cause and what was left alone."""
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(
        key="reconcile-summary",
        markdown=f"# The tick ended before its time\n\n{why}\n\nThe next tick starts from the fleet as it is then.\n",
        description=why.splitlines()[0][:200],
    )
