"""What is learned of service times and footprints while serving: slowly, and with how sure it is.

An exponentially weighted mean and variance of the windows' means (Finch, *Incremental calculation of weighted mean and
variance*, 2009, section 9): one window moves little, a lasting change is followed within a few ticks. What was learned
is pushed as metrics and read back; where it is lost, the window's own mean stands in, as on the first day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tasks.world import (
    LEARNED_COLUMNS,
    CopyState,
    Fleet,
    Learned,
    LearnedFootprint,
    Model,
    Need,
    Observation,
)

RATE = 0.25
"""Weight of the newest window: of a lasting change two thirds are learned in four ticks."""
OUTGROWN = 0.1
"""A learned footprint less than this above the measured one is the measured one: noise must not move a copy."""

SPREADS = 2.0
"""Room is kept for a footprint's mean and so many of its standard deviations: one copy in 44 takes more if they vary
normally, one in 5 at the very worst (Cantelli: 1 / (1 + 2^2)). What varies independently adds up by its squares, so of
four copies together four are kept. The pool's headroom is for what nobody has seen."""

LearnedTimes = Mapping[tuple[str, str], Learned]
"""By model and GPU type."""
LearnedFootprints = Mapping[tuple[str, str], LearnedFootprint]
"""By model and GPU type."""


def learn(observation: Observation, measured: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], Learned]:
    """What past ticks learned, each refined by this window's mean service time (ms) where there is one."""
    columns = (observation.learned[name].tolist() for name in LEARNED_COLUMNS)
    before = {
        (model, gpu_type): Learned(service_ms, spread_ms, int(windows))
        for model, gpu_type, service_ms, spread_ms, windows in zip(*columns, strict=True)
    }
    return before | {key: refined(before.get(key), service_ms) for key, service_ms in measured.items()}


def refined(before: Learned | None, service_ms: float) -> Learned:
    """With one more window; the first ones count alike.

    50 +- 0 ms over one window, then 60: the rate is 1 / 2, the mean 55, the variance 1/2 * (0 + 1/2 * 10^2) = 25.
    """
    if before is None:
        return Learned(service_ms, 0.0, 1)
    return Learned(*_moved(before.service_ms, before.spread_ms, before.windows, service_ms), before.windows + 1)


def _moved(mean: float, spread: float, count: int, value: float) -> tuple[float, float]:
    """Mean and spread of ``count`` values, with one more."""
    rate = max(RATE, 1 / (count + 1))
    miss = value - mean
    variance = (1 - rate) * (spread**2 + rate * miss**2)
    return mean + rate * miss, variance**0.5


def kept_bytes(mean_bytes: float, spread_bytes: float) -> int:
    """Room that placement keeps for a copy; 620 +- 12 MB: 644."""
    return int(mean_bytes + SPREADS * spread_bytes)


def learn_footprints(
    fleet: Fleet, before: LearnedFootprints, used_bytes: Mapping[tuple[str, str], int], now: float
) -> dict[tuple[str, str], LearnedFootprint]:
    """What past ticks learned of the fleet's models, each refined by this tick's look at its copies, if there was one.

    ``used_bytes`` by model and replica. Of a model's ready copies on a GPU type the largest counts: any of the others
    may still get the request that made it so.
    """
    gpu_type = {replica.name: replica.gpu_type for replica in fleet.replicas}
    models = {model.name for model in fleet.models}
    largest: dict[tuple[str, str], int] = {}
    for copy in fleet.copies:
        used = used_bytes.get((copy.model, copy.replica), 0)
        if used > 0 and copy.state is CopyState.READY and copy.model in models and copy.replica in gpu_type:
            key = (copy.model, gpu_type[copy.replica])
            largest[key] = max(largest.get(key, 0), used)
    kept = {key: known for key, known in before.items() if key[0] in models}
    return kept | {key: _looked_at(before.get(key), used, now) for key, used in largest.items()}


def _looked_at(before: LearnedFootprint | None, used_bytes: float, now: float) -> LearnedFootprint:
    if before is None:
        return LearnedFootprint(used_bytes, 0.0, 1, now)
    mean, spread = _moved(before.footprint_bytes, before.spread_bytes, before.looks, used_bytes)
    return LearnedFootprint(mean, spread, before.looks + 1, now)


def reckoned(fleet: Fleet, learned: LearnedFootprints) -> tuple[Model, ...]:
    """The fleet's models, with the learned footprint in each need whose measured one it is clearly above.

    Clearly: by its mean less its spread, so that what was seen once (a reload holds the old and the new at the same
    time) moves nothing; then room is kept for its mean and its spreads, since what does not fit kills its neighbours.
    100 MB measured, then 200 in every look: 125 +- 43, 144 +- 50 and 158 +- 49 are not clear, 168 +- 47 is: 261 MB.

    Never less than was measured: a copy that has not had its largest request yet must not be packed as if it never
    would. For a spread never more than a replica has room for: what serves must not be left without a place. Never in
    place of a declared footprint: a person has said what counts.
    """
    return tuple(_with_reckoned(model, fleet, learned) for model in fleet.models)


def _with_reckoned(model: Model, fleet: Fleet, learned: LearnedFootprints) -> Model:
    needs = {
        gpu_type: _reckoned(need, learned.get((model.name, gpu_type)), _room_bytes(model, gpu_type, fleet))
        for gpu_type, need in model.need_by_gpu_type.items()
    }
    return replace(model, need_by_gpu_type=needs)


def _reckoned(need: Need, known: LearnedFootprint | None, room_bytes: float) -> Need:
    if need.footprint_seen is None or need.footprint_source == "declared":
        return need
    seen, kept, source = need.footprint_seen, need.footprint_bytes, need.footprint_source
    most = int(max(seen[0], room_bytes))
    if known is not None and known.footprint_bytes - known.spread_bytes > (1 + OUTGROWN) * kept:
        seen, source = (known.footprint_bytes, known.spread_bytes), "learned"
        kept = kept_bytes(*seen)
    return replace(need, footprint_bytes=min(kept, most), footprint_source=source, footprint_seen=seen)


def _room_bytes(model: Model, gpu_type: str, fleet: Fleet) -> float:
    """What the largest replica that it may live in may be filled with."""
    pools = (pool for pool in fleet.pools if pool.gpu_type == gpu_type and model.may_live_in(pool))
    return max((pool.memory_bytes * (1 - pool.headroom) for pool in pools), default=0)
