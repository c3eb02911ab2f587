"""profile: what each model needs in each pool that it may live in, measured in spare replicas."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import pstdev

from tasks.catalogue import Catalogue, Entry, Number
from tasks.clients.triton import TritonError
from tasks.config import Config
from tasks.fleets import LiveFleet
from tasks.profile.measure import Measured, measure
from tasks.profile.spare import NoSpareError, spare
from tasks.world import Pool

__all__ = ["Profiles", "entry_of", "profile_models", "with_measured"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Profiles:
    """What was measured, and what could not be."""

    measured: tuple[Measured, ...] = ()
    failures: tuple[str, ...] = ()
    """One line each: the pool, the model and the cause."""


@dataclass(slots=True)
class _Work:
    """Models of one pool that are still to be measured."""

    pool: Pool
    models: list[str]
    measured: list[Measured] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def profile_models(config: Config, live: LiveFleet, models: Iterable[str], wait_s: float) -> Profiles:
    """Measure models in a spare replica of each GPU type that they may live on.

    The fleet's lock is held meanwhile, so that no tick acts; after each ``limits.act_s`` it is let go, for a tick to
    have its turn. What cannot be measured is told and left out.

    Raises:
        FleetBusyError: a tick still acts after ``wait_s``.
        FleetUnreadableError, OSError: the fleet cannot be read or scaled.
    """
    done = []
    for work in _work(config, set(models)):
        while work.models:
            with live.exclusive(wait_s):
                _measure_some(config, live, work, config.limits.act_s)
                # what was asked in this replica is not to be taken for the requests of a copy that a tick loads there
                time.sleep(config.metrics.window_s if work.measured else 0.0)
        done.append(work)
    measured = [one for work in done for one in work.measured]
    return Profiles(tuple(measured), tuple(line for work in done for line in work.failures))


def _work(config: Config, models: set[str]) -> list[_Work]:
    """For each GPU type, the models that may live on it, in the first pool of that type that they may live in."""
    found: dict[str, _Work] = {}
    taken: set[tuple[str, str]] = set()
    for pool in config.domain_pools():
        for name, section in sorted(config.models.items()):
            may_live = section.pools is None or pool.name in section.pools
            if name in models and may_live and (name, pool.gpu_type) not in taken:
                taken.add((name, pool.gpu_type))
                found.setdefault(pool.name, _Work(pool, [])).models.append(name)
    return list(found.values())


def _measure_some(config: Config, live: LiveFleet, work: _Work, hold_s: float) -> None:
    """Measure models until the time is up, at least one."""
    began = time.monotonic()
    try:
        with spare(live, work.pool) as one:
            while work.models and time.monotonic() - began < hold_s and live.still_exclusive():
                model = work.models.pop(0)
                try:
                    work.measured.append(measure(one, model, config.models[model].largest))
                    log.info("measured %s in %s", model, one.name)
                except TritonError as error:
                    work.failures.append(f"{model} in pool {work.pool.name}: {error}")
    except NoSpareError as error:
        work.failures.extend(f"{model} in {error}" for model in work.models)
        work.models.clear()


def entry_of(measured: Measured, instances: int) -> Entry:
    """A catalogue's entry from what was measured, with its date and spread."""
    today = datetime.now(UTC).date()
    busy, alone = measured.busy(instances), measured.timings[0]
    services = [timing.service_ms for timing in measured.timings if timing.concurrency >= instances]
    load_s, load_spread_s = measured.load_s
    footprint = measured.footprint_bytes
    number = Number(value=0.0, source="measured", date=today)

    def of(value: float, spread: float) -> Number:
        return number.model_copy(update={"value": float(f"{value:.4g}"), "spread": float(f"{spread:.2g}")})

    return Entry(
        footprint_bytes=None if footprint is None else of(*footprint),
        service_ms=of(busy.service_ms, pstdev(services) if services else 0.0),
        service_cv2=of(alone.latency_cv2, 0.0),
        load_s=of(load_s, load_spread_s),
    )


def with_measured(catalogue: Catalogue, config: Config, profiles: Profiles) -> Catalogue:
    """The catalogue with what was measured in place of what it had."""
    for one in profiles.measured:
        instances = config.models[one.model].instances
        catalogue = catalogue.with_entry(one.model, one.gpu_type, entry_of(one, instances))
    return catalogue
