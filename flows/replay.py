"""Replay: what recorded demand would have cost under this configuration, an edited one, and under other policies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote
from uuid import UUID

import pandas as pd
from prefect import flow, get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field, ValidationError

from tasks.clients.prometheus import Prometheus
from tasks.config import Config, ConfigError, read_config, wrong_places
from tasks.fleets import connect
from tasks.observe.series import covered
from tasks.sections import Section
from tasks.simulate.bound import lower_bound
from tasks.simulate.demand import Demand, read_demand
from tasks.simulate.picture import picture
from tasks.simulate.policies import own, peers
from tasks.simulate.report import best, markdown, rows, tuned
from tasks.simulate.run import Outcome, Policy, simulate
from tasks.simulate.scenario import Costs, Failure, Scenario, fits

STEP_S = 5.0
FINE_STEP_S, FINE_S = 1.0, 7200.0
"""Where a model loads in less than two of the others, as on the local fleet, and there is not too much of it."""
LEAST_S = 900.0
"""Of recorded demand: a third is history, a sixth for finding one's footing, and what is left must mean something."""
TIMEOUT_S = 60.0
"""A query over days takes longer than a tick's."""

GPU = frozenset({"memory", "gpu_type", "compute"})
"""What is bought with a GPU: the larger one is not free."""


class FailureSection(Section):
    """A replica that dies."""

    at_s: float = Field(ge=0)
    """Seconds after the start of what is scored."""
    pool: str
    """The pool that it is in."""
    nth: int = Field(0, ge=0)
    """Of the pool's replicas that are there then, by age; the last one where there are fewer."""

    def failure(self) -> Failure:
        return Failure(self.at_s, self.pool, self.nth)


@flow(name="replay")
def replay(  # noqa: PLR0913, PLR0917  each question is one parameter
    config: str = "infra/local/placement.yaml",
    demand: str = "",
    hours: float = 24.0,
    queue_ms: float | None = None,
    scale_to_zero: bool | None = None,
    pools: dict[str, dict[str, Any]] | None = None,
    failures: list[FailureSection] | None = None,
) -> State[Any]:
    """Replay demand through the tick's own decisions and through other policies, side by side.

    Args:
        config: the configuration that is replayed.
        demand: a Parquet file (timestamp, model, requests); left out: the history of the fleet's Prometheus.
        hours: at most so much of it, the newest.
        queue_ms: what if the objective of every model were this.
        scale_to_zero: what if models without requests had no copy, or all had at least one.
        pools: what if pools were otherwise, in the configuration's own words; another GPU needs its cost, for example
            {"small": {"memory": "24GiB", "gpu_type": "l4", "cost_per_hour": 2.5}}.
        failures: what if replicas died, seconds after the start of what is scored, for example
            [{"at_s": 600, "pool": "small"}].
    """
    settings = edited(read_config(config), queue_ms, scale_to_zero, pools)
    trace = read_trace(Path(demand)) if demand else from_prometheus(settings, time.time(), hours * 3600)
    scenario = scenario_of(settings, trace, hours * 3600, tuple(one.failure() for one in failures or ()))
    bound = lower_bound(scenario)
    runs = compare(scenario, Progress())
    table = rows(runs, bound, scenario.duration_s / 3600)
    page = f"# {scenario.name}\n\n{scenario.note}\n\n![picture]({data_uri(picture(scenario.name, runs, bound))})\n\n"
    line = one_line(runs, bound.mean_per_hour * scenario.duration_s / 3600)
    create_markdown_artifact(key="replay-summary", markdown=page + markdown(table), description=line)
    create_table_artifact(key="replay-policies", table=table, description=scenario.note)
    get_run_logger().info(line)
    return Completed(message=line)


class Progress:
    """A bar in Prefect: the share of all runs that is done."""

    def __init__(self) -> None:
        made = create_progress_artifact(progress=0.0, key="replay-progress", description="replaying")
        self._id = cast(UUID, made)  # in a flow that is not async the call is not either
        self._shown = 0.0

    def __call__(self, share: float) -> None:
        if share >= 1 or share - self._shown >= 0.05:
            self._shown = share
            update_progress_artifact(artifact_id=self._id, progress=100 * min(share, 1.0))


def compare(scenario: Scenario, on_progress: Callable[[float], None] = lambda _: None) -> list[Outcome]:
    """The best of each policy's settings, the peers' first."""
    settings = [*peers(), *own(scenario)]
    order = {policy: n for n, policy in enumerate(chain.from_iterable(settings))}

    def run(policy: Policy) -> Outcome:
        return simulate(scenario, policy, on_progress=lambda share: on_progress((order[policy] + share) / len(order)))

    found = [tuned(policies, run) for policies in settings]
    on_progress(1.0)
    return found


def edited(
    config: Config, queue_ms: float | None, scale_to_zero: bool | None, pools: dict[str, dict[str, Any]] | None
) -> Config:
    """The configuration with one thing or another changed, checked as if somebody had written it so.

    Raises:
        ConfigError: a pool that there is not, another GPU without its cost, or a value out of range.
    """
    # what is not declared stays so: the catalogue may have it
    raw = config.model_dump(mode="json", exclude_unset=True)
    for model in raw["models"].values():
        if queue_ms is not None:
            model["queue_ms"] = queue_ms
        if scale_to_zero is not None:
            model["min_copies"] = 0 if scale_to_zero else max(1, model.get("min_copies", 1))
    if pools:
        _change_pools(raw, pools)
    try:
        made = Config.model_validate(raw).with_catalogue_of(config)
    except ValidationError as error:
        raise ConfigError("the edited configuration is wrong:\n" + "\n".join(wrong_places(error))) from error
    if missing := made.missing_needs():
        raise ConfigError("the edited configuration is wrong:\n" + "\n".join(missing))
    return made


def _change_pools(raw: dict[str, Any], changes_by_pool: dict[str, dict[str, Any]]) -> None:
    """Change pools of a configuration, and leave out what its models need on GPU types that no pool has any more."""
    for pool, changes in changes_by_pool.items():
        if pool not in raw["pools"]:
            raise ConfigError(f"pools names pool {pool}; there are: {', '.join(sorted(raw['pools']))}")
        if GPU & set(changes) and "cost_per_hour" not in changes:
            raise ConfigError(f"pools.{pool} changes the GPU and not what it costs: give its cost_per_hour too")
        raw["pools"][pool] |= changes
    gpu_types = {section.get("gpu_type") or name for name, section in raw["pools"].items()}
    for model in raw["models"].values():
        if "on" in model:
            model["on"] = {gpu: need for gpu, need in model["on"].items() if gpu in gpu_types}


def read_trace(path: Path) -> pd.DataFrame:
    """Recorded demand: ``timestamp`` (s), ``model``, ``requests`` counted in the bin that starts there.

    Raises:
        ValueError: not a file of these columns.
    """
    try:
        trace = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as Parquet: {error}") from error
    if missing := [column for column in ("timestamp", "model", "requests") if column not in trace]:
        raise ValueError(f"{path}: no column {', '.join(missing)}; a trace has timestamp, model, requests")
    return trace


def from_prometheus(config: Config, now: float, span_s: float) -> pd.DataFrame:
    """The fleet's recorded demand as a trace.

    Raises:
        PrometheusError: it does not answer.
        ValueError: it has no demand of the configuration's models.
    """
    metrics = config.metrics
    url = metrics.prometheus_url or connect(config).prometheus_url
    with Prometheus(url, TIMEOUT_S) as prometheus:
        answer = prometheus.history(covered(metrics.demand_query, metrics.window_s), now, span_s, metrics.step_s)
    seen = answer.dropna(subset=["value"]) if "model" in answer else pd.DataFrame({"model": [], "value": []})
    known = seen[seen["model"].isin(list(config.models))]
    if known.empty:
        since, until = (datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S") for at in (now - span_s, now))
        raise ValueError(
            f"{url} has no demand of the configuration's models ({_some(config.models)}) from {since} to {until} UTC; "
            f"it has demand of: {_some(seen['model'].dropna())}. Check metrics.prometheus_url and metrics.demand_query"
        )
    counts = known["value"] * metrics.step_s
    return pd.DataFrame({"timestamp": known["time"] - metrics.step_s, "model": known["model"], "requests": counts})


def _some(names: Iterable[str]) -> str:
    """The first of many names, in their order by letter."""
    known = sorted({str(name) for name in names})
    return ", ".join(known[:5]) + (f" and {len(known) - 5} more" if len(known) > 5 else "") or "no model"


def scenario_of(config: Config, trace: pd.DataFrame, span_s: float, failures: tuple[Failure, ...] = ()) -> Scenario:
    """The configured fleet under the newest ``span_s`` of the trace; models that it does not have are silent.

    Raises:
        ConfigError: a model has no place.
        ValueError: nothing in it is of the configuration's models, it is too short, or a failure is not within it.
    """
    models, pools = config.domain_models(), config.domain_pools()
    if homeless := [m.name for m in models if not any(m.may_live_in(p) and fits(m, p) for p in pools)]:
        raise ConfigError(f"models that fit into no pool's replicas: {', '.join(homeless)}; give a pool more memory")
    trace = trace.assign(timestamp=trace["timestamp"].astype(float), model=trace["model"].astype(str))
    ours_only = trace[trace["model"].isin([model.name for model in models])]
    if ours_only.empty:
        raise ValueError(f"the demand is of {_some(trace['model'])}; the configuration has {_some(config.models)}")
    ours_only = ours_only[ours_only["timestamp"] >= ours_only["timestamp"].max() - span_s]
    span_s = float(ours_only["timestamp"].max() - ours_only["timestamp"].min())
    if span_s < LEAST_S:
        raise ValueError(f"{span_s:.0f} s of demand are too short to replay: at least {LEAST_S:g} s are needed")
    is_quick = min(need.load_s for model in models for need in model.need_by_gpu_type.values()) < 2 * STEP_S
    step_s, interval_s = FINE_STEP_S if is_quick and span_s <= FINE_S else STEP_S, config.limits.interval_s
    bin_s = min(max(step_s, round(config.metrics.step_s / step_s) * step_s), interval_s)
    history_s = round(min(config.metrics.history_s, span_s / 3) / interval_s) * interval_s
    warmup_s = round(min(1800.0, span_s / 6) / interval_s) * interval_s
    first = float(ours_only["timestamp"].min())
    demand = _of(models, ours_only, bin_s, first)
    start = first + history_s + warmup_s
    return Scenario(
        name=f"{len(models)} models, {len(config.pools)} pools, {span_s / 3600:.1f} h of demand",
        models=models,
        pools=pools,
        demand=demand,
        start=start,
        duration_s=int((demand.end - start) / 60) * 60.0,
        warmup_s=warmup_s,
        limits=config.limits.limits(),
        history_s=history_s,
        bin_s=bin_s,
        # of the four scrapes in a window a rate is the mean from the first to the last
        window_s=config.metrics.window_s * 3 / 4,
        lag_s=config.metrics.window_s / 8,
        failures=failures,
        costs=replace(Costs(), step_s=step_s, splits_by_weight=config.fleet.kind == "local"),
        note=_note(sorted(set(config.models) - set(ours_only["model"])), failures),
    )


def _note(silent: list[str], failures: tuple[Failure, ...]) -> str:
    """What is made up, and what was asked."""
    parts = ["Demand as recorded, a straight line where it was not; arrivals are Poisson at its rate."]
    if silent:
        parts.append(f"They are silent, for no demand was recorded of {_some(silent)}.")
    if failures:
        parts.append(f"Replicas die: {', '.join(f'one of {one.pool} at {one.at_s:g} s' for one in failures)}.")
    return " ".join(parts)


def _of(models: tuple[Any, ...], trace: pd.DataFrame, bin_s: float, first: float) -> Demand:
    """The demand of every model, in their order."""
    names, demand = read_demand(trace, bin_s, first)
    columns = pd.DataFrame(demand.rates_rps, columns=list(names)).reindex(columns=[m.name for m in models])
    return Demand(first, bin_s, columns.fillna(0.0).to_numpy(dtype="float32"))


def one_line(runs: list[Outcome], least: float) -> str:
    """Ours beside the best peer and the lower bound."""
    mine = next(run for run in runs if run.policy == "ours")
    peer = best([run for run in runs if not run.policy.startswith("ours")])
    return (
        f"ours: cost {mine.cost:.1f} ({mine.cost / max(least, 1e-9):.2f} x the lower bound), {mine.within:.2%} within "
        f"their objective; {peer.policy}: cost {peer.cost:.1f}, {peer.within:.2%}"
    )


def data_uri(svg: str) -> str:
    """The picture as a Markdown image's address: the UI strips inline SVG, and shows this."""
    return "data:image/svg+xml," + quote(svg)


if __name__ == "__main__":
    replay()
