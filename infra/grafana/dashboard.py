"""The dashboard as code; ``python -m infra.grafana.dashboard`` prints the JSON that the chart and compose provision."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as d

from infra.grafana.panels import (
    BLUE,
    DATASOURCE,
    RED,
    Query,
    bars,
    levels,
    lines,
    listing,
    matrix,
    number,
    objective_lines,
    states,
)

P = "triton_placement"
MODEL = '{model=~"$model"}'


class Annotation(d.AnnotationQuery):
    """A mark on every graph while an expression has a value; the SDK's own has no title."""

    def __init__(self, name: str, expr: str, title: str, color: str) -> None:
        super().__init__(name=name, expr=expr, datasource=DATASOURCE, icon_color=color)
        self.title = title

    def to_json(self) -> dict[str, object]:
        return super().to_json() | {"titleFormat": self.title, "tagKeys": "kind", "step": "15s"}


def now() -> Iterator[Any]:
    """What is wrong right now, at a glance."""
    yield number("Last tick", "Seconds since the newest tick observed the fleet.",
                 Query(f"time() - max({P}_tick_timestamp_seconds)"), unit="s", alarm=120)  # fmt: skip
    yield number("It took", "Seconds that it observed, decided, acted and recorded.",
                 Query(f'sum({P}_tick_seconds{{phase=~"observe|decide|act|record"}})'), unit="s")  # fmt: skip
    yield number("Over objective", "Models whose mean queue time is above the objective of their percentile.",
                 Query(f"count(max by (model) ({P}_queue_ms) > max by (model) ({P}_objective_queue_ms)) or vector(0)"),
                 alarm=1)  # fmt: skip
    yield number("Served by none", "Models with demand and without a copy that serves.",
                 Query(f"count(max by (model) ({P}_demand_rps) > 0 and max by (model) ({P}_copies_ready) == 0) "
                       "or vector(0)"), alarm=1)  # fmt: skip
    yield number("Held", "Models, replicas and pools left as they are; why is in the table below.",
                 Query(f"count(max by (subject, code) ({P}_holds)) or vector(0)"))  # fmt: skip
    yield number("Cannot be read", "Sources that did not answer: what hangs on them is held.",
                 Query(f"count(max by (subject) ({P}_unknown)) or vector(0)"), alarm=1)  # fmt: skip
    yield number("Replicas", "Replicas asked for, of all pools.", Query(f"sum(max by (pool) ({P}_replicas))"))
    yield number("Churn", "Loads and unloads done by the last tick.",
                 Query(f'sum({P}_steps{{kind=~"load|unload",result="done"}})'))  # fmt: skip


def models() -> Iterator[Any]:
    """Demand, copies and queue time, as a sheet and over time."""
    sheet = {"demand, 1/s": "demand_rps", "forecast, 1/s": "forecast_upper_rps", "one copy serves, 1/s": "capacity_rps",
             "copies": "copies_ready", "wanted": "copies_wanted", "queue, ms": "queue_ms",
             "objective, ms": "objective_queue_ms"}  # fmt: skip
    columns = [Query(f"max by (model) ({P}_{metric}{MODEL})", name) for name, metric in sheet.items()]
    yield listing("Models", "What the newest tick saw and wanted.", *columns, height=9, span=24)
    yield lines("Demand", "Requests offered, served or not, and the upper quantile forecast for when a change can act.",
                Query(f"max by (model) ({P}_demand_rps{MODEL})", "{{model}}"),
                Query(f"max by (model) ({P}_forecast_upper_rps{MODEL})", "{{model}} forecast"),
                unit="reqps")  # fmt: skip
    yield lines("Copies", "Copies that serve, and copies wanted.",
                Query(f"max by (model) ({P}_copies_ready{MODEL})", "{{model}}"),
                Query(f"max by (model) ({P}_copies_wanted{MODEL})", "{{model}} wanted"))  # fmt: skip
    yield objective_lines("Queue time, as a share of the objective",
                          "Mean queue time that Triton measured over the objective of the percentile: at 100 % it is "
                          "missed whatever the distribution.",
                          Query('sum by (model) (rate(nv_inference_queue_duration_us{model=~"$model"}[1m])) / 1000 / '
                                'sum by (model) (rate(nv_inference_request_success{model=~"$model"}[1m])) / '
                                f"max by (model) ({P}_objective_queue_ms{MODEL})", "{{model}}"))  # fmt: skip
    yield lines("Failed at the gateway", "5xx answers, of no copy or of a failing one.",
                Query("sum by (envoy_cluster_name) (rate(envoy_cluster_upstream_rq_xx"
                      '{envoy_response_code_class="5",envoy_cluster_name=~"$model"}[1m]))',
                      "{{envoy_cluster_name}}"), unit="reqps")  # fmt: skip
    yield lines("Service time", "Learned while serving, and its spread between windows; capacity follows it.",
                Query(f"max by (model, gpu_type) ({P}_service_ms{MODEL})", "{{model}} on {{gpu_type}}"),
                Query(f"max by (model, gpu_type) ({P}_service_spread_ms{MODEL})", "{{model}} on {{gpu_type}} spread"),
                unit="ms")  # fmt: skip
    yield lines("Footprint", "Memory of a copy learned while it is loaded, and its spread between looks.",
                Query(f"max by (model, gpu_type) ({P}_footprint_bytes{MODEL})", "{{model}} on {{gpu_type}}"),
                Query(f"max by (model, gpu_type) ({P}_footprint_spread_bytes{MODEL})",
                      "{{model}} on {{gpu_type}} spread"), unit="bytes")  # fmt: skip


def placement() -> Iterator[Any]:
    """What sits where, and how full that is."""
    copy = f"max by (model, replica) ({P}_copy{MODEL})"
    yield matrix("Placement", "Which model sits in which replica now.", Query(copy), row="model", column="replica")
    yield states("Placement over time", "Green: serves. Amber: there, but does not serve.",
                 Query(copy, "{{model}} in {{replica}}"))  # fmt: skip
    used, memory = f"max by (replica, pool) ({P}_memory_used_bytes)", f"max by (replica, pool) ({P}_memory_bytes)"
    yield levels("Memory", "Footprints of the copies, as a share of the replica.",
                 Query(f"{used} / {memory}", "{{pool}} {{replica}}"))  # fmt: skip
    yield lines("Memory over time", "Footprints, what the GPU says is used (GPU replicas only), and what there is.",
                Query(used, "{{replica}} footprints"),
                Query("sum by (replica) (nv_gpu_memory_used_bytes)", "{{replica}} measured"),
                Query(memory, "{{replica}} memory"), unit="bytes", span=8)  # fmt: skip
    yield lines("Replicas", "Replicas asked for, and wanted; they differ while a pool is another autoscaler's.",
                Query(f"max by (pool) ({P}_replicas)", "{{pool}}"),
                Query(f"max by (pool) ({P}_replicas_wanted)", "{{pool}} wanted"), span=8)  # fmt: skip


def decisions() -> Iterator[Any]:
    """What was done, what was not, and what it cost."""
    yield bars("Steps", "Steps of each tick by kind and result.",
               Query(f"sum by (kind, result) ({P}_steps) > 0", "{{kind}} {{result}}"), span=8)  # fmt: skip
    yield bars("Time of a tick", "By phase; forecast, size, place and plan are pure computing.",
               Query(f'max by (phase) ({P}_tick_seconds{{phase!="decide"}})', "{{phase}}"),
               unit="s", span=8)  # fmt: skip
    yield lines("Cost an hour", "Of the replicas that are to be, and the least that a fleet could cost which serves "
                "what is forecast.", Query(f"max({P}_cost_per_hour)", "fleet"),
                Query(f"max({P}_cost_bound_per_hour)", "lower bound"), span=8)  # fmt: skip
    yield listing("Held, and why", "The arithmetic of each is in the newest reconcile-summary in Prefect.",
                  Query(f"max by (subject, code) ({P}_holds)", "held"))  # fmt: skip
    yield listing("Loads that fail", "Failures in a row; the next try waits longer each time.",
                  Query(f"max by (model, replica) ({P}_load_failures)", "in a row"),
                  Query(f"time() - max by (model, replica) ({P}_load_failed_timestamp_seconds)",
                        "seconds ago"))  # fmt: skip


def build() -> Any:
    """The dashboard. Panels are numbered in their order, so that links to them last."""
    board = (
        dashboard.Dashboard("Triton placement")
        .uid("triton-placement")
        .description("Which models sit in which Triton replicas, how demand is met, and what each tick decided.")
        .tags(["triton", "placement"])
        .time("now-1h", "now")
        .refresh("10s")
        .readonly()
        .tooltip(d.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_model_variable())
    )
    panel_ids = count(1)
    for title, panels in {"Now": now, "Models": models, "Placement": placement, "Decisions": decisions}.items():
        board.with_row(dashboard.Row(title).id(next(panel_ids)))
        for panel in panels():
            board.with_panel(panel.id(next(panel_ids)))
    built = board.build()
    built.annotations = d.AnnotationContainer(
        list_val=[
            Annotation("Steps done", f'sum by (kind) ({P}_steps{{result="done"}} > 0)', "{{kind}}", BLUE),
            Annotation("Steps failed", f'sum by (kind) ({P}_steps{{result="failed"}} > 0)', "{{kind}} failed", RED),
        ]
    )
    return built


def _model_variable() -> Any:
    return (
        dashboard.QueryVariable("model")
        .label("Model")
        .datasource(DATASOURCE)
        .query(f"label_values({P}_objective_queue_ms, model)")
        .refresh(d.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(d.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(d.VariableOption(selected=True, text="All", value="$__all"))
    )


def dashboard_json() -> str:
    """The dashboard as Grafana reads it."""
    return JSONEncoder(sort_keys=True, indent=2).encode(build()) + "\n"


if __name__ == "__main__":
    print(dashboard_json(), end="")
