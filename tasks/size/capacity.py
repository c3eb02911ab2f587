"""What one copy can take: declared, until what was measured says otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tasks.size.queueing import Station
from tasks.world import Model, Need, Observation

ENOUGH_RPS = 0.5
"""Served by a copy: below, its mean service time is of too few requests to be believed."""
TOLERANCE = 0.1
"""A measured service time this close to the declared one is the declared one: noise must not move a copy."""

ServiceTimes = Mapping[tuple[str, str], float]
"""Measured mean service time (ms) by model and GPU type."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a copy takes and gives on one GPU type."""

    station: Station
    rps: float
    """Requests a second within the objective."""
    source: str


def measured_service_ms(observation: Observation, stale_s: float) -> ServiceTimes:
    """The mean over each model's copies on a GPU type, weighted by their requests.

    Copies with too few requests, or whose numbers are stale, are left out.
    """
    gpu_type = {replica.name: replica.gpu_type for replica in observation.fleet.replicas}
    requests: dict[tuple[str, str], float] = {}
    busy: dict[tuple[str, str], float] = {}
    traffic = observation.traffic
    columns = (traffic[name].tolist() for name in ("model", "replica", "served_rps", "service_ms"))
    for model, replica, served, service in zip(*columns, strict=True):
        is_fresh = observation.age_s_by_source.get(f"traffic:{replica}", math.inf) <= stale_s
        if replica in gpu_type and is_fresh and served >= ENOUGH_RPS and service > 0 and math.isfinite(service):
            key = (model, gpu_type[replica])
            requests[key] = requests.get(key, 0.0) + served
            busy[key] = busy.get(key, 0.0) + served * service
    return {key: busy[key] / requests[key] for key in requests}


def capacities(model: Model, gpu_types: set[str], measured: ServiceTimes) -> dict[str, Capacity]:
    """Capacity of one copy by GPU type, for those of ``gpu_types`` that the model has a need for.

    On a GPU type where it was not measured, the declared service time is corrected as on those where it was: what
    doubles on one (a larger input, a new version) doubles on the other.
    """
    drifts = [
        measured[model.name, gpu] / need.service_ms
        for gpu, need in sorted(model.need_by_gpu_type.items())
        if (model.name, gpu) in measured
    ]
    elsewhere = sum(drifts) / len(drifts) if drifts else 1.0
    found = {}
    for gpu in sorted(gpu_types & set(model.need_by_gpu_type)):
        declared = model.need_by_gpu_type[gpu]
        service_ms = measured.get((model.name, gpu), declared.service_ms * elsewhere)
        found[gpu] = _capacity(model, _believed(declared, service_ms))
    return found


def _believed(declared: Need, service_ms: float) -> Need:
    if abs(service_ms / declared.service_ms - 1) <= TOLERANCE:
        return declared
    return replace(declared, service_ms=service_ms, source="measured")


def _capacity(model: Model, need: Need) -> Capacity:
    station = Station(need.service_ms / 1000, need.instances, need.service_cv2)
    return Capacity(station, station.capacity_rps(model.objective), need.source)
