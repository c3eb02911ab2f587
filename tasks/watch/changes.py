"""What changed between two looks at the fleet. Pure: whoever looks, and however often, misses nothing that lasted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

READY, LOST = "triton.replica.ready", "triton.replica.lost"
SCALED, UNSERVED = "triton.pool.scaled", "triton.model.unserved"


@dataclass(frozen=True, slots=True)
class Seen:
    """One replica, as it was seen."""

    pool: str
    life: str
    """Another one after each restart of its server."""
    is_ready: bool
    """A model can be loaded in it."""
    is_serving: bool = False
    """Requests are sent to it, and get there."""
    carries: frozenset[str] = frozenset()
    """Models whose requests should be sent to it."""


@dataclass(frozen=True, slots=True)
class Rescale:
    """What an HPA said when it changed a pool's count; ``at`` sorts as text."""

    at: str
    text: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fleet at one instant, as far as a change of it asks for a tick."""

    replicas: Mapping[str, Seen] = field(default_factory=dict)
    count_by_pool: Mapping[str, int] = field(default_factory=dict)
    """The count asked for."""
    rescale_by_pool: Mapping[str, Rescale] = field(default_factory=dict)
    """The newest of each pool."""
    unserved_by_model: Mapping[str, float] | None = None
    """Requests that found no copy, as counters. None: unknown."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that changed; its name is the Prefect event's."""

    event: str
    subject: str
    """A replica, a pool or a model."""
    text: str
    pool: str = ""


def changes(before: Snapshot | None, after: Snapshot) -> tuple[Change, ...]:
    """What changed, sorted by kind and name. Without a ``before`` every ready replica is news, and nothing else is."""
    known = before or Snapshot(count_by_pool=after.count_by_pool, rescale_by_pool=after.rescale_by_pool)
    return (
        *_ready(known.replicas, after.replicas),
        *_lost(known.replicas, after.replicas),
        *_scaled(known, after),
        *_unserved(known.unserved_by_model, after.unserved_by_model),
    )


def remembered(before: Snapshot | None, after: Snapshot) -> Snapshot:
    """What the next look is compared with: counters that could not be read stay what they were."""
    if after.unserved_by_model is not None or before is None:
        return after
    return Snapshot(after.replicas, after.count_by_pool, after.rescale_by_pool, before.unserved_by_model)


def _ready(before: Mapping[str, Seen], after: Mapping[str, Seen]) -> Iterator[Change]:
    for name, now in sorted(after.items()):
        was = before.get(name)
        if now.is_ready and (was is None or not was.is_ready):
            yield Change(READY, name, "ready for a load", now.pool)
        elif now.is_ready and was is not None and was.life != now.life:
            yield Change(READY, name, "ready again after a restart, with nothing loaded", now.pool)


def _lost(before: Mapping[str, Seen], after: Mapping[str, Seen]) -> Iterator[Change]:
    """Only what carried a model can be lost: an emptied replica goes on purpose."""
    for name, was in sorted(before.items()):
        now = after.get(name)
        carried = ", ".join(sorted(was.carries if now is None else was.carries & now.carries))
        if not carried or not was.is_ready:
            continue
        if now is None:
            why = "gone"
        elif now.life != was.life:
            why = "its server was restarted"
        elif not now.is_ready or (was.is_serving and not now.is_serving):
            why = "not ready any more"
        else:
            continue
        yield Change(LOST, name, f"{why}; it carried {carried}", was.pool)


def _scaled(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for pool, count in sorted(after.count_by_pool.items()):
        was, rescale = before.count_by_pool.get(pool), after.rescale_by_pool.get(pool)
        told = before.rescale_by_pool.get(pool)
        is_news = rescale is not None and (told is None or rescale.at > told.at)
        if was == count and not is_news:
            continue
        text = f"{'unknown' if was is None else was} to {count} replicas"
        yield Change(SCALED, pool, f"{text}: {rescale.text}" if rescale and is_news else text, pool)


def _unserved(before: Mapping[str, float] | None, after: Mapping[str, float] | None) -> Iterator[Change]:
    """Counters that rose, are new, or started again from zero and are above it."""
    if before is None or after is None:
        return
    for model, count in sorted(after.items()):
        was = before.get(model, 0.0)
        more = count - was if count >= was else count
        if more > 0:
            yield Change(UNSERVED, model, f"{more:.0f} requests found no copy")
