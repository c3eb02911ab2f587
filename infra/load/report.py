"""The report of a run: what was sent, what became of it, and how far the client itself can be believed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from infra.load.client import Answer, Outcome
from infra.load.profile import Profile

LAG_BOUND_MS = 20.0
"""A client whose 99th percentile of arrivals left later than this was overloaded: what it measured is also itself."""
COLUMNS = ("intended_s", "sent_s", "model", "latency_ms", "outcome", "status", "cause", "replica")


class Sent(NamedTuple):
    """A request that was sent."""

    model: str
    intended_s: float
    sent_s: float
    latency_ms: float
    """From the intended arrival to the whole answer, or to the failure."""
    answer: Answer


@dataclass(frozen=True, slots=True)
class Clock:
    """Times of a run."""

    started_at: float
    """Unix seconds."""
    sending_s: float
    """How long arrivals were sent."""
    elapsed_s: float
    """Until the last answer."""
    cpu_s: float
    """CPU time of the client's process."""


@dataclass(frozen=True, slots=True)
class QueueTime:
    """Queue time in Triton (ms) from its counters. None: unknown."""

    mean_ms: float | None = None
    """Over all requests of the run."""
    p50_ms: float | None = None
    """Of the means of short windows, which is not a percentile of requests: that of requests is higher."""
    p95_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One model's requests. Latency percentiles are those of succeeded requests; None: none succeeded."""

    model: str
    sent: int
    succeeded: int
    cold: int
    failed: int
    failed_by_cause: Mapping[str, int]
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    queue: QueueTime = QueueTime()
    unobserved_s: float = 0.0
    """Seconds in which the trace was not observed and nothing was sent."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Failures of one model by one cause, and the first of them."""

    model: str
    cause: str
    count: int
    first_s: float
    """Intended arrival."""
    first_detail: str
    first_replica: str


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What became of a run. ``requests`` has one row a request, by intended arrival; see ``COLUMNS``."""

    name: str
    gateway: str
    clock: Clock
    is_stopped_early: bool
    models: tuple[ModelReport, ...]
    failures: tuple[Failure, ...]
    """By the time of the first."""
    lag_p99_ms: float
    """How late arrivals left the client."""
    lag_max_ms: float
    notes: tuple[str, ...]
    requests: pd.DataFrame = field(repr=False)

    @property
    def sent(self) -> int:
        return sum(model.sent for model in self.models)

    @property
    def succeeded(self) -> int:
        return sum(model.succeeded for model in self.models)

    @property
    def cold(self) -> int:
        return sum(model.cold for model in self.models)

    @property
    def failed(self) -> int:
        return sum(model.failed for model in self.models)

    @property
    def is_overloaded(self) -> bool:
        return self.lag_p99_ms > LAG_BOUND_MS

    def with_queue_times(self, queue_by_model: Mapping[str, QueueTime], notes: Sequence[str] = ()) -> Report:
        models = tuple(replace(model, queue=queue_by_model.get(model.model, QueueTime())) for model in self.models)
        return replace(self, models=models, notes=(*self.notes, *notes))

    def write(self, folder: Path | str) -> Path:
        """Write ``requests.parquet`` and ``report.json`` into a folder, which is made; return it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.requests.to_parquet(folder / "requests.parquet", index=False, compression="zstd")
        (folder / "report.json").write_text(json.dumps(self.summary(), indent=2) + "\n")
        return folder

    def summary(self) -> dict[str, Any]:
        """The report without its requests, as plain values; unknown is null."""
        totals = {name: getattr(self, name) for name in ("sent", "succeeded", "cold", "failed", "is_overloaded")}
        values = {
            name: getattr(self, name) for name in ("name", "gateway", "is_stopped_early", "lag_p99_ms", "lag_max_ms")
        }
        parts = {"models": [asdict(m) for m in self.models], "failures": [asdict(f) for f in self.failures]}
        return values | totals | {"clock": asdict(self.clock)} | parts | {"notes": list(self.notes)}


def summarise(profile: Profile, gateway: str, sent: Sequence[Sent], clock: Clock, notes: Sequence[str] = ()) -> Report:
    """The report of what was sent."""
    ordered = sorted(sent, key=lambda one: one.intended_s)
    lag_ms = np.array([one.sent_s - one.intended_s for one in ordered] or [0.0]) * 1000
    report = Report(
        name=profile.name,
        gateway=gateway,
        clock=clock,
        is_stopped_early=clock.sending_s < profile.duration_s,
        models=tuple(_model(model, profile, [s for s in ordered if s.model == model]) for model in profile.models),
        failures=_failures(ordered),
        lag_p99_ms=float(np.percentile(lag_ms, 99)),
        lag_max_ms=float(lag_ms.max()),
        notes=tuple(notes),
        requests=_frame(ordered),
    )
    return replace(report, notes=(*report.notes, *_warnings(report)))


def _warnings(report: Report) -> list[str]:
    warnings = []
    if report.is_overloaded:
        warnings.append(
            f"the load generator was overloaded: 1 % of arrivals left over {report.lag_p99_ms:.0f} ms late (bound "
            f"{LAG_BOUND_MS:.0f} ms); its latencies contain its own delay: lower the rates, or give it a core"
        )
    if any(failure.cause == "client out of files" for failure in report.failures):
        warnings.append("the load generator ran out of file descriptors: raise ulimit -n; those failures are its own")
    return warnings


def _model(model: str, profile: Profile, sent: Sequence[Sent]) -> ModelReport:
    by_outcome = {outcome: [s for s in sent if s.answer.outcome is outcome] for outcome in Outcome}
    failed = by_outcome[Outcome.FAILED]
    causes = sorted({s.answer.cause for s in failed})
    p50, p95, p99 = percentiles([s.latency_ms for s in by_outcome[Outcome.SUCCEEDED]])
    return ModelReport(
        model=model,
        sent=len(sent),
        succeeded=len(by_outcome[Outcome.SUCCEEDED]),
        cold=len(by_outcome[Outcome.COLD]),
        failed=len(failed),
        failed_by_cause={cause: sum(s.answer.cause == cause for s in failed) for cause in causes},
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        unobserved_s=profile.unobserved_s_by_model.get(model, 0.0),
    )


def percentiles(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """The 50th, 95th and 99th; None where there is no value."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return None, None, None
    p50, p95, p99 = np.percentile(known, (50, 95, 99)).tolist()
    return p50, p95, p99


def _failures(sent: Sequence[Sent]) -> tuple[Failure, ...]:
    groups: dict[tuple[str, str], list[Sent]] = {}
    for one in sent:
        if one.answer.outcome is Outcome.FAILED:
            groups.setdefault((one.model, one.answer.cause), []).append(one)
    return tuple(
        Failure(model, cause, len(group), group[0].intended_s, group[0].answer.detail, group[0].answer.replica)
        for (model, cause), group in groups.items()
    )


def _frame(sent: Sequence[Sent]) -> pd.DataFrame:
    rows = [
        (s.intended_s, s.sent_s, s.model, s.latency_ms, str(a.outcome), a.status, a.cause, a.replica)
        for s in sent
        for a in (s.answer,)
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    text = dict.fromkeys(("model", "outcome", "cause", "replica"), "string")
    numbers = {"intended_s": "float64", "sent_s": "float64", "latency_ms": "float32", "status": "int16"}
    return frame.astype({**text, **numbers})
