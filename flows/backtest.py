"""Backtest: how well every forecaster, and all of them combined, would have done on the recorded demand."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.clients.prometheus import Prometheus
from tasks.config import read_config
from tasks.fleets import connect
from tasks.forecast.backtest import COMBINED, backtest_models, overall
from tasks.forecast.score_card import picture, rows, verdict
from tasks.observe.series import covered, demand_frame

TIMEOUT_S = 60.0
"""A query over days takes longer than a tick's."""


@flow(name="backtest")
def backtest(config: str = "infra/local/placement.yaml", hours: float = 24.0) -> State[Any]:
    """Score every forecaster on each model's demand of the last hours, as the tick would have used it, and all combined
    once more with all that is recorded, to see whether a longer ``metrics.history_s`` pays."""
    settings, now = read_config(config), time.time()
    metrics, limits = settings.metrics, settings.limits.limits()
    url = metrics.prometheus_url or connect(settings).prometheus_url
    with Prometheus(url, TIMEOUT_S) as prometheus:
        query = covered(metrics.demand_query, metrics.window_s)
        answer = prometheus.history(query, now, 3600 * hours, metrics.step_s)
    demand = demand_frame(answer, list(settings.models), now, metrics.step_s, 3600 * hours).dropna()
    if demand.empty:
        raise ValueError(f"{url} has no demand in the last {hours:g} h: check metrics.demand_query")
    fleet = settings.domain_models(), settings.domain_pools(), limits
    scores = backtest_models(demand, *fleet, reach_s=metrics.history_s)
    longer = backtest_models(demand, *fleet, reach_s=3600 * hours)
    line = _one_line(scores, longer, metrics.history_s, hours)
    text = f"# Backtest\n\n{line}\n\n{verdict(scores)}\n\n![losses](data:image/svg+xml,{quote(picture(scores))})\n"
    create_table_artifact(key="backtest-models", table=rows(scores), description=line)
    create_markdown_artifact(key="backtest-summary", markdown=text, description=line)
    get_run_logger().info(line)
    return Completed(message=line)


def _one_line(scores: Any, longer: Any, history_s: float, hours: float) -> str:
    """Losses as a share of demand, with the tick's history and with all of it."""
    said = []
    for one in (scores, longer):
        table = overall(one)
        ours = table[table["forecaster"] == COMBINED]
        said.append(
            (ours["loss_upper"] * ours["scored"]).sum() / max((ours["demand_rps"] * ours["scored"]).sum(), 1e-9)
        )
    return (
        f"combined forecast loses {said[0]:.1%} of demand with {history_s / 3600:g} h of history (metrics.history_s), "
        f"{said[1]:.1%} with {hours:g} h; {scores['model'].nunique()} models scored"
    )


if __name__ == "__main__":
    backtest()
