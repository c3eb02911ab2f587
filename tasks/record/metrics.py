"""The tick's metrics, pushed to a Pushgateway: a run of a few seconds is gone before Prometheus would scrape it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Gauge, push_to_gateway

from tasks.decision import Result, StepKind, Tick
from tasks.world import CopyState, LoadFailure

JOB = "reconcile"
FORGET_S = 3600.0
"""A load that failed longer ago than this starts again from no failure: the longest backoff is far below."""

Rows = Iterable[tuple[tuple[str, ...], float]]


def push(tick: Tick, url: str, timeout_s: float = 5.0) -> None:
    """Replace the group of the last tick by this one's, so that what is gone from the fleet goes from the metrics too.

    Raises:
        OSError: the Pushgateway cannot be reached.
    """
    push_to_gateway(url, job=JOB, registry=registry(tick), timeout=timeout_s)


def registry(tick: Tick) -> CollectorRegistry:
    """Every metric of one tick, prefix ``triton_placement_``."""
    collected = CollectorRegistry()
    for name, text, labels, rows in (*_of_models(tick), *_of_replicas(tick), *_of_tick(tick)):
        gauge = Gauge(f"triton_placement_{name}", text, labels, registry=collected)
        for values, number in rows:
            (gauge.labels(*values) if labels else gauge).set(number)
    return collected


Metric = tuple[str, str, tuple[str, ...], Rows]


def _of_models(tick: Tick) -> list[Metric]:
    fleet, model = tick.observation.fleet, ("model",)
    newest = tick.observation.demand.dropna(subset=["demand_rps"]).groupby("model")["demand_rps"].last()
    known = [f for f in tick.forecasts if f.median_rps is not None and f.upper_rps is not None]
    queue = tick.observation.traffic.dropna(subset=["queue_ms"]).groupby("model")["queue_ms"].mean()
    learned = [(s.model, gpu, known) for s in tick.sizings for gpu, known in (s.learned_by_gpu_type or {}).items()]
    on_gpu, footprints = ("model", "gpu_type"), tick.observation.footprints
    capacity = {s.model: min(s.capacity_rps_by_gpu_type.values()) for s in tick.sizings if s.capacity_rps_by_gpu_type}
    return [
        ("copies_wanted", "Copies each model should have", model, (((s.model,), s.copies) for s in tick.sizings)),
        ("copies_needed", "The same, had stabilisation not held them up: what the next ticks remember", model,
         (((s.model,), s.copies if s.needed_copies is None else s.needed_copies) for s in tick.sizings)),
        (
            "copies_ready",
            "Copies that serve",
            model,
            (((m.name,), sum(c.is_serving for c in fleet.copies_of(m.name))) for m in fleet.models),
        ),
        ("demand_rps", "Demand in requests a second", model, (((str(m),), float(v)) for m, v in newest.items())),
        ("forecast_median_rps", "Forecast at the horizon", model, (((f.model,), f.median_rps or 0) for f in known)),
        ("forecast_upper_rps", "Its upper quantile", model, (((f.model,), f.upper_rps or 0) for f in known)),
        ("capacity_rps", "What one copy serves in its objective", model, (((m,), v) for m, v in capacity.items())),
        ("service_ms", "Service time learned while serving", on_gpu, (((m, g), k.service_ms) for m, g, k in learned)),
        ("service_spread_ms", "Its spread between windows", on_gpu, (((m, g), k.spread_ms) for m, g, k in learned)),
        ("service_windows", "Windows it was learned from", on_gpu, (((m, g), k.windows) for m, g, k in learned)),
        ("footprint_bytes", "Memory of a copy learned while it is loaded", on_gpu,
         ((key, known.footprint_bytes) for key, known in footprints.items())),
        ("footprint_spread_bytes", "Its spread between looks", on_gpu,
         ((key, known.spread_bytes) for key, known in footprints.items())),
        ("footprint_looks", "Looks it was learned from", on_gpu,
         ((key, known.looks) for key, known in footprints.items())),
        ("footprint_timestamp_seconds", "The last of them", on_gpu,
         ((key, known.last_at) for key, known in footprints.items())),
        ("objective_queue_ms", "Objective", model, (((m.name,), m.objective.queue_ms) for m in fleet.models)),
        ("queue_ms", "Mean queue time of its copies", model, (((str(m),), float(v)) for m, v in queue.items())),
    ]  # fmt: skip


def _of_replicas(tick: Tick) -> list[Metric]:
    fleet = tick.observation.fleet
    where = ("replica", "pool")
    names = {replica.name: replica for replica in fleet.replicas}
    return [
        ("replicas", "Replicas asked for", ("pool",), (((p.name,), p.replicas) for p in fleet.pools)),
        ("replicas_wanted", "Replicas each pool should have", ("pool",),
         (((pool,), count) for pool, count in tick.placement.replicas_by_pool.items())),
        ("replicas_wanted_timestamp_seconds", "When that was decided: who follows it takes an old one for none",
         ("pool",), (((pool,), tick.observation.now) for pool in tick.placement.replicas_by_pool)),
        ("memory_bytes", "Memory of a replica", where, (((r.name, r.pool), r.memory_bytes) for r in fleet.replicas)),
        ("memory_used_bytes", "Footprints of its copies", where,
         (((r.name, r.pool), used_bytes(tick, r.name)) for r in fleet.replicas)),
        ("copy", "1: serves, 0: does not", ("model", "replica"),
         (((c.model, c.replica), float(c.is_serving)) for c in fleet.copies if c.replica in names)),
    ]  # fmt: skip


def used_bytes(tick: Tick, replica: str) -> int:
    """Sum of the footprints of the managed copies that fill the replica, bytes."""
    fleet = tick.observation.fleet
    gpu_type = fleet.replica_by_name[replica].gpu_type
    filling = [
        c for c in fleet.copies_in(replica) if c.state is not CopyState.ABSENT and c.model in fleet.model_by_name
    ]
    needs = [fleet.model_by_name[c.model].need_by_gpu_type.get(gpu_type) for c in filling]
    return sum(need.footprint_bytes for need in needs if need)


def _of_tick(tick: Tick) -> list[Metric]:
    failures = load_failures(tick)
    steps: dict[tuple[str, ...], float] = {(kind, result): 0.0 for kind in StepKind for result in Result}
    for outcome in tick.outcomes:
        steps[outcome.step.kind, outcome.result] += 1
    seconds: Mapping[str, float] = tick.seconds_by_phase or {}
    held = {(hold.subject, hold.reason.code) for hold in tick.plan.holds}
    copy = ("model", "replica")
    return [
        ("tick_timestamp_seconds", "When the tick observed", (), [((), tick.observation.now)]),
        ("tick_seconds", "The tick's own time", ("phase",), (((phase,), s) for phase, s in seconds.items())),
        ("cost_per_hour", "Of the fleet that is to be", (), [((), tick.cost.per_hour)] if tick.cost else []),
        (
            "cost_bound_per_hour",
            "No fleet that serves what is forecast costs less",
            (),
            [((), tick.cost.bound_per_hour)] if tick.cost else [],
        ),
        ("steps", "Steps of the last tick", ("kind", "result"), steps.items()),
        ("holds", "1 while held", ("subject", "code"), ((key, 1.0) for key in sorted(held))),
        ("unknown", "1 while it cannot be read", ("subject",), (((u.subject,), 1.0) for u in tick.observation.unknown)),
        ("load_failures", "Loads failed in a row", copy, (((f.model, f.replica), f.count) for f in failures)),
        (
            "load_failed_timestamp_seconds",
            "The last of them",
            copy,
            (((f.model, f.replica), f.last_at) for f in failures),
        ),
    ]


def load_failures(tick: Tick) -> list[LoadFailure]:
    """Failures in a row after this tick: one more, none after a success, forgotten after an hour."""
    now = tick.observation.now
    by_copy = {(f.model, f.replica): f for f in tick.observation.load_failures if now - f.last_at < FORGET_S}
    for outcome in tick.outcomes:
        key = (outcome.step.model, outcome.step.replica)
        if outcome.step.kind is not StepKind.LOAD or outcome.result is Result.SKIPPED:
            continue
        before = by_copy.pop(key, None)
        if outcome.result is Result.FAILED:
            by_copy[key] = LoadFailure(*key, count=1 + (before.count if before else 0), last_at=outcome.at or now)
    return list(by_copy.values())
