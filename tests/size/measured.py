"""Queue times that real Tritons show under open-loop load, beside those that the formula says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.load import Profile, Segment, run
from tasks.clients.triton import Statistics, Triton
from tasks.size.queueing import Station
from tests.local_fleet import CONFIG, RunningFleet, running_fleet

MODELS: Mapping[str, tuple[float, int]] = {
    "vad": (10.0, 1),
    "ocr_cls": (20.0, 1),
    "filetype": (25.0, 1),
    "squeezenet": (40.0, 2),
}
"""Service time (ms) and instances."""


@dataclass(frozen=True)
class Row:
    """One model at one load."""

    model: str
    load: float
    """Of full load, by the service times that were given."""
    rate_rps: float
    station: Station
    """With the service time that Triton measured meanwhile."""
    requests: int
    queue_ms: float

    @property
    def said_ms(self) -> float:
        return self.station.mean_wait_s(self.rate_rps) * 1000


@contextmanager
def measured_fleet(folder: Path) -> Iterator[RunningFleet]:
    """One replica with one copy of each model, routed."""
    models = {
        name: {"service_ms": ms, "instances": instances, "queue_ms": 50, "load_s": 2, "footprint": "80MB"}
        for name, (ms, instances) in MODELS.items()
    }
    with running_fleet(folder, {**CONFIG, "models": models}) as fleet:
        for model in MODELS:
            fleet.load(model, "small-0")
            fleet.live.route(model, "small-0")
        yield fleet


def service_times(fleet: RunningFleet) -> dict[str, float]:
    """Seconds that a request really takes: the backend adds a millisecond or so to what is declared."""
    declared_s = {model: ms / 1000 for model, (ms, _) in MODELS.items()}
    return {row.model: row.station.service_s for row in at_load(fleet, declared_s, load=0.5, duration_s=5.0)}


def at_load(fleet: RunningFleet, service_s: Mapping[str, float], load: float, duration_s: float) -> list[Row]:
    """Offer every model this share of its full load for a while, all at the same time."""
    rates = {model: load * instances / service_s[model] for model, (_, instances) in MODELS.items()}
    segments = tuple(Segment(model, 0.0, duration_s, rate, rate) for model, rate in rates.items())
    before = statistics(fleet)
    report = asyncio.run(run(Profile("load", duration_s, segments, seed=round(100 * load)), fleet.live.gateway_url))
    assert not report.failures, report.failures
    after = statistics(fleet)
    return [_row(model, load, duration_s, before[model], after[model]) for model in MODELS]


def statistics(fleet: RunningFleet) -> dict[str, Statistics]:
    with Triton(fleet.replica("small-0"), secret="") as triton:
        return triton.statistics()


def _row(model: str, load: float, duration_s: float, before: Statistics, after: Statistics) -> Row:
    requests = after.success - before.success
    service_s = (after.compute_ns - before.compute_ns) / requests / 1e9
    queue_ms = (after.queue_ns - before.queue_ns) / requests / 1e6
    return Row(model, load, requests / duration_s, Station(service_s, MODELS[model][1]), requests, queue_ms)
