"""What the models need beside who asks for them: one table; and the catalogue with it."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from tasks.catalogue import Catalogue, read_catalogue, write_catalogue
from tasks.config import Config
from tasks.observe.series import Series
from tasks.profile import Profiles, with_measured
from tasks.profile.measure import Measured
from tasks.record.rows import looks
from tasks.size.queueing import Station
from tasks.size.rules import copies_for
from tasks.world import Learned, LearnedFootprint, Model

GROWN = 0.05
"""Of the footprint: what an unload leaves behind above this is called kept, below it is the allocator's."""
LEAST_KEPT_BYTES = 10_000_000

log = logging.getLogger(__name__)


def record(config_path: str, config: Config, profiles: Profiles, series: Series) -> str:
    """Write the catalogue, leave the artifacts, and return a line on both.

    A catalogue that cannot be written (a mounted ConfigMap) is told; its text is in the artifact for whoever keeps it.
    """
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    catalogue, kept = Catalogue(), "no catalogue is configured"
    if config.catalogue is not None:
        path = config.catalogue_path(config_path)
        catalogue, kept = read_catalogue(path), f"catalogue {config.catalogue} written"
    catalogue = with_measured(catalogue, config, profiles)
    if config.catalogue is not None:
        try:
            write_catalogue(path, catalogue)
        except OSError as error:
            kept = f"catalogue {path} NOT written: {error.strerror}"
            log.warning(kept)
    line = f"{len(profiles.measured)} measured, {len(profiles.failures)} could not be; {kept}"
    failures = "".join(f"- {failure}\n" for failure in profiles.failures)
    text = f"# Profile\n\n{line}\n\n{failures}\nThe catalogue:\n\n```yaml\n{catalogue.text()}```\n"
    create_table_artifact(key="profile-needs", table=rows(config, profiles, series), description=line)
    create_markdown_artifact(key="profile-summary", markdown=text, description=line)
    return line


def rows(config: Config, profiles: Profiles, series: Series) -> list[dict[str, Any]]:
    """One row a model and GPU type that was measured: requests, then what a copy takes, then what follows."""
    models = {model.name: model for model in config.domain_models()}
    learned = {
        (model, gpu): Learned(float(service_ms), float(spread_ms), int(windows))
        for model, gpu, service_ms, spread_ms, windows in series.learned.to_numpy()
    }
    asked = {str(m): rps.dropna().to_numpy() for m, rps in series.demand.groupby("model")["demand_rps"]}
    return [
        {
            "model": one.model,
            "GPU type": one.gpu_type,
            **_requests(asked.get(one.model, np.array([]))),
            **_needs(one, config.models[one.model].instances),
            "declared or in use": _in_use(models[one.model], one.gpu_type),
            "learned": _learned(
                learned.get((one.model, one.gpu_type)), series.footprints.get((one.model, one.gpu_type))
            ),
            **_consequences(one, models[one.model], config, asked.get(one.model, np.array([]))),
        }
        for one in sorted(profiles.measured, key=lambda m: (m.model, m.gpu_type))
    ]


def _requests(rps: Any) -> dict[str, str]:
    if not rps.size:
        return {"req/s, mean": "unknown", "req/s, p95": "unknown"}
    return {"req/s, mean": f"{rps.mean():.2f}", "req/s, p95": f"{np.quantile(rps, 0.95):.2f}"}


def _needs(one: Measured, instances: int) -> dict[str, str]:
    footprint = one.footprint_bytes
    load_s, load_spread_s = one.load_s
    return {
        "memory, MB": "unknown" if footprint is None else f"{footprint[0] / 1e6:.0f} ± {footprint[1] / 1e6:.0f}",
        "kept after unload, MB": _kept(one),
        "load, s": f"{load_s:.2f} ± {load_spread_s:.2f}",
        "service, ms": ", ".join(f"{t.service_ms:.1f} at {t.concurrency}" for t in one.timings),
        "cv2": f"{one.timings[0].latency_cv2:.3f}",
        "full load, req/s": f"{max(t.rps for t in one.timings):.1f} seen, "
        f"{_station(one, instances).full_rps:.1f} reckoned",
    }


def _kept(one: Measured) -> str:
    """A leak is what grows from one load to the next."""
    left = [r.left_bytes for r in one.rounds if r.left_bytes is not None]
    footprint = one.footprint_bytes
    if not left or footprint is None:
        return "unknown"
    grown = left[-1] - left[0] if len(left) > 1 else 0
    is_leak = grown > max(GROWN * footprint[0], LEAST_KEPT_BYTES)
    return f"{left[-1] / 1e6:.0f}" + (f", LEAK: {grown / 1e6:.0f} more each load" if is_leak else "")


def _station(one: Measured, instances: int) -> Station:
    return Station(one.busy(instances).service_ms / 1000, instances, one.timings[0].latency_cv2)


def _in_use(model: Model, gpu_type: str) -> str:
    need = model.need_by_gpu_type.get(gpu_type)
    if need is None:
        return "nothing yet"
    return (
        f"{need.footprint_bytes / 1e6:.0f} MB {need.footprint_source}, {need.service_ms:.3g} ms {need.source}, "
        f"load {need.load_s:.3g} s"
    )


def _learned(known: Learned | None, footprint: LearnedFootprint | None) -> str:
    said = [] if footprint is None else [looks(footprint)]
    if known is not None:
        said.append(f"{known.service_ms:.3g} ± {known.spread_ms:.1g} ms over {known.windows} windows")
    return ", ".join(said) or "nothing yet"


def _consequences(one: Measured, model: Model, config: Config, rps: Any) -> dict[str, str]:
    """Copies and memory that the demand's 95th percentile would take."""
    capacity_rps = _station(one, config.models[one.model].instances).capacity_rps(model.objective)
    objective = f"{model.objective.queue_ms:g} ms at p{model.objective.percentile:g}"
    said = {"a copy serves, req/s": f"{capacity_rps:.2f} within {objective}"}
    footprint = one.footprint_bytes
    if not rps.size:
        return said | {"copies": "unknown", "memory of these, MB": "unknown"}
    copies = max(model.min_copies, copies_for(float(np.quantile(rps, 0.95)), capacity_rps))
    memory = "unknown" if footprint is None else f"{copies * footprint[0] / 1e6:.0f}"
    return said | {"copies": str(copies), "memory of these, MB": memory}
