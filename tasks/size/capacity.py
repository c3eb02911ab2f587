"""What one copy can take: declared, until what was learned while serving says otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from typing import NamedTuple

from tasks.size.queueing import Station
from tasks.world import Learned, Model, Need, Observation

ENOUGH_RPS = 0.5
"""Served by a copy: below, its mean service time is of too few requests to be believed."""
TOLERANCE = 0.1
"""A learned service time this close to the declared one is the declared one: noise must not move a copy."""
SURE = 3
"""Windows: fewer have no spread to speak of, what they say is called measured, not learned."""

ServiceTimes = Mapping[tuple[str, str], float]
"""Measured mean service time (ms) by model and GPU type."""


class Capacity(NamedTuple):
    """What a copy takes and gives on one GPU type."""

    station: Station
    rps: float
    """Requests a second within the objective."""
    source: str
    """Its service time, where that comes from and how sure it is, in words."""


def measured_service_ms(observation: Observation, stale_s: float) -> ServiceTimes:
    """The mean over each model's copies on a GPU type, weighted by their requests.

    Copies with too few requests, or whose numbers are stale, are left out.
    """
    ages_s = observation.age_s_by_source
    gpu_type = {
        replica.name: replica.gpu_type
        for replica in observation.fleet.replicas
        if ages_s.get(f"traffic:{replica.name}", math.inf) <= stale_s
    }
    requests: dict[tuple[str, str], float] = {}
    busy: dict[tuple[str, str], float] = {}
    traffic = observation.traffic
    columns = (traffic[name].tolist() for name in ("model", "replica", "served_rps", "service_ms"))
    for model, replica, served, service in zip(*columns, strict=True):
        if replica in gpu_type and served >= ENOUGH_RPS and service > 0 and math.isfinite(service):
            key = (model, gpu_type[replica])
            requests[key] = requests.get(key, 0.0) + served
            busy[key] = busy.get(key, 0.0) + served * service
    return {key: busy[key] / requests[key] for key in requests}


def capacities(model: Model, gpu_types: Set[str], learned: Mapping[str, Learned]) -> dict[str, Capacity]:
    """Capacity of one copy by GPU type, for those of ``gpu_types`` that the model has a need for. ``learned``: by GPU
    type.

    On a GPU type of which nothing was learned, the declared service time is corrected as on those where it was: what
    doubles on one (a larger input, a new version) doubles on the other.
    """
    drifts = [learned[gpu].service_ms / model.need_by_gpu_type[gpu].service_ms for gpu in sorted(learned)]
    elsewhere = sum(drifts) / len(drifts) if drifts else 1.0
    found = {}
    for gpu in sorted(gpu_types & model.need_by_gpu_type.keys()):
        need, known = model.need_by_gpu_type[gpu], learned.get(gpu)
        service_ms = known.service_ms if known else need.service_ms * elsewhere
        if abs(service_ms / need.service_ms - 1) <= TOLERANCE:
            found[gpu] = _capacity(model, need, need.service_ms, f"{need.service_ms:.3g} ms {need.source}")
        else:
            source = f"{_source(service_ms, known)}, {need.service_ms:.3g} {need.source}"
            found[gpu] = _capacity(model, need, service_ms, source)
    return found


def _source(service_ms: float, known: Learned | None) -> str:
    """Where a service time comes from, and how sure it is."""
    if known is None:
        return f"{service_ms:.3g} ms as on other GPU types"
    if known.windows < SURE:
        return f"{service_ms:.3g} ms measured"
    # one significant digit, and never as a power of ten
    spread = f"{known.spread_ms:.0f}" if known.spread_ms >= 1 else f"{known.spread_ms:.1g}"
    return f"{service_ms:.3g} ± {spread} ms learned over {known.windows} windows"


def _capacity(model: Model, need: Need, service_ms: float, source: str) -> Capacity:
    """The service time's variability is declared or profiled, never learned: of Triton's counters only means over the
    requests between two scrapes follow. With n requests each, these vary by cv2 / n and by every drift d of the mean (a
    busy neighbour), so that n times their variance is cv2 + n d^2: 1 where it should be 0 at 100 requests and a drift
    of a tenth. Triton's latency summaries give quantiles, which leave out the tail that variability is about.
    """
    station = Station(service_ms / 1000, need.instances, need.service_cv2)
    return Capacity(station, station.capacity_rps(model.objective), source)
