"""observe: what there is of the fleet and what is asked of it, as one value. Unknown is not zero."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tasks.config import Config
from tasks.fleets import FleetUnreadableError, LiveFleet
from tasks.observe.copies import confirmed_failing, copies, read_indexes
from tasks.observe.gpus import read_gpu_bytes, within_gpus
from tasks.observe.memory import read_copy_bytes
from tasks.observe.series import read_series
from tasks.size.learn import learn_footprints, reckoned
from tasks.world import Copy, Fleet, Observation, Unknown


def observe(config: Config, live: LiveFleet, now: float) -> Observation:
    """Read the replicas, what each has loaded, the routes, and what Prometheus knows, all at the same time.

    Raises:
        FleetUnreadableError, OSError: the list of replicas, the pools or the routes cannot be read, or no replica.
    """
    models = config.domain_models()
    url = config.metrics.prometheus_url or live.prometheus_url
    with ThreadPoolExecutor(4, thread_name_prefix="observe") as pool:
        pools, routes, weights = pool.submit(live.pools), pool.submit(live.routes), pool.submit(live.weights)
        gateway = pool.submit(_seen_failing, live)
        gpus = pool.submit(read_gpu_bytes, url, now)
        asked = pool.submit(read_series, url, config, [model.name for model in models], now)
        replicas, indexes, unread = read_indexes(live.replicas())
        memory = pool.submit(read_copy_bytes, replicas)
    (seen, no_gateway), series = gateway.result(), asked.result()
    failing = confirmed_failing(series.suspects, replicas) | seen
    found = copies(replicas, indexes, routes.result(), weights.result())
    fleet = Fleet(models, pools.result(), replicas, found, live.splits_by_weight)
    fleet = within_gpus(fleet, gpus.result())
    footprints = learn_footprints(fleet, series.footprints, memory.result(), now)
    return Observation(
        now=now,
        fleet=replace(
            fleet,
            models=reckoned(fleet, footprints),
            copies=tuple(_marked(copy, failing) for copy in fleet.copies),
        ),
        demand=series.demand,
        traffic=series.traffic,
        wanted=series.wanted,
        learned=series.learned,
        footprints=footprints,
        load_failures=series.load_failures,
        age_s_by_source=series.age_s_by_source,
        unknown=(*unread, *no_gateway, *series.unknown),
    )


def _seen_failing(live: LiveFleet) -> tuple[dict[tuple[str, str], str], tuple[Unknown, ...]]:
    """The copies that the gateway sees fail; unknown when it cannot be asked, which stops nothing else."""
    try:
        return dict(live.failing_copies()), ()
    except (FleetUnreadableError, OSError) as error:
        return {}, (Unknown("gateway", str(error)),)


def _marked(copy: Copy, failing: dict[tuple[str, str], str]) -> Copy:
    """The copy, failing if it is among the failing ones."""
    why = failing.get((copy.model, copy.replica))
    return copy if why is None else replace(copy, is_failing=True, detail=why)
