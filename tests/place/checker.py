"""What every placement must keep, worked out again from the observation alone: no code of the planner is used here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from tasks.decision import Placement, Sizing
from tasks.world import Copy, CopyState, Limits, Observation, Pool, Replica, ReplicaState


def broken(seen: Observation, sizings: Sequence[Sizing], placed: Placement) -> list[str]:
    """Every rule that the placement breaks, in words."""
    return [*_places(seen, placed), *_memory(seen, placed), *_counts(seen, sizings, placed), *_pools(seen, placed)]


def _places(seen: Observation, placed: Placement) -> Iterator[str]:
    """One copy a model a replica; only where it may be; only in replicas that there are or that can be had."""
    models, replicas = seen.fleet.model_by_name, seen.fleet.replica_by_name
    there = {(c.model, c.replica) for c in seen.fleet.copies if c.state in (CopyState.READY, CopyState.LOADING)}
    leaving = {name for name, _ in placed.leaving}
    held = {
        c.replica
        for c in seen.fleet.copies
        if c.model not in models and c.state not in (CopyState.ABSENT, CopyState.UNKNOWN)
    }
    for (model, replica), count in Counter((a.model, a.replica) for a in placed.assignments).items():
        pool = _pool(seen, replica)
        if count > 1:
            yield f"{count} copies of {model} in {replica}"
        if pool is None or pool.gpu_type not in models[model].need_by_gpu_type:
            yield f"{model} in {replica}, which it has no need for"
        elif models[model].pools is not None and pool.name not in (models[model].pools or ()):
            yield f"{model} in {replica}, against its policy"
        if replica in leaving:
            yield f"{model} in {replica}, which leaves"
        if replica in replicas and replicas[replica].state in (ReplicaState.LEAVING, ReplicaState.UNREACHABLE):
            yield f"{model} in {replica}, which is {replicas[replica].state}"
        if replica in held and (model, replica) not in there:
            yield f"{model} goes to {replica}, whose room nobody knows"
        if (model, replica) not in there and _is_backing_off(seen, model, replica):
            yield f"{model} goes to {replica}, where its load failed just now"


def _is_backing_off(seen: Observation, model: str, replica: str) -> bool:
    interval_s = Limits().interval_s
    return any(
        (f.model, f.replica) == (model, replica) and seen.now < f.last_at + min(interval_s * 2**f.count, 600.0)
        for f in seen.load_failures
    )


def _pool(seen: Observation, replica: str) -> Pool | None:
    there = seen.fleet.replica_by_name.get(replica)
    name = there.pool if there is not None else replica.rpartition("+")[0]
    return seen.fleet.pool_by_name.get(name)


def _memory(seen: Observation, placed: Placement) -> Iterator[str]:
    """What a replica is to hold fits below its headroom, unless it was over it already and nothing was added."""
    models = seen.fleet.model_by_name
    there = {(c.model, c.replica) for c in seen.fleet.copies if c.state in (CopyState.READY, CopyState.LOADING)}
    used: dict[str, int] = defaultdict(int)
    has_new: set[str] = set()
    for a in placed.assignments:
        pool = _pool(seen, a.replica)
        assert pool is not None
        used[a.replica] += models[a.model].need_by_gpu_type[pool.gpu_type].footprint_bytes
        if (a.model, a.replica) not in there:
            has_new.add(a.replica)
    for replica in has_new:
        pool = _pool(seen, replica)
        assert pool is not None
        known: Replica | None = seen.fleet.replica_by_name.get(replica)
        room = (known.memory_bytes if known else pool.memory_bytes) * (1 - pool.headroom)
        if used[replica] > room + 1:
            yield f"{replica}: {used[replica]} bytes > {room:.0f}"


def _counts(seen: Observation, sizings: Sequence[Sizing], placed: Placement) -> Iterator[str]:
    """As many copies as sized, never more than the policy's most; what is missing is named; pinned copies stay."""
    count = Counter(a.model for a in placed.assignments)
    named = {hold.subject for hold in placed.holds}
    wanted = {(a.model, a.replica) for a in placed.assignments}
    for sizing in sizings:
        model = seen.fleet.model_by_name[sizing.model]
        if count[sizing.model] < sizing.copies and f"model:{sizing.model}" not in named:
            yield f"{sizing.model}: {count[sizing.model]} of {sizing.copies} copies, and nobody says why"
        if count[sizing.model] > max(model.max_copies, sizing.copies):
            yield f"{sizing.model}: {count[sizing.model]} copies, the policy allows {model.max_copies}"
        if model.is_pinned:
            yield from _pinned(seen, sizing, wanted)


def _pinned(seen: Observation, sizing: Sizing, wanted: set[tuple[str, str]]) -> Iterator[str]:
    mine = [c for c in seen.fleet.copies if c.model == sizing.model and _may_stay(seen, c)]
    stays = sum((c.model, c.replica) in wanted for c in mine)
    if stays < min(len(mine), sizing.copies):
        yield f"{sizing.model} is pinned, and only {stays} of {len(mine)} copies stay"


def _may_stay(seen: Observation, copy: Copy) -> bool:
    replica = seen.fleet.replica_by_name[copy.replica]
    model, pool = seen.fleet.model_by_name[copy.model], seen.fleet.pool_by_name[replica.pool]
    return (
        copy.state in (CopyState.READY, CopyState.LOADING)
        and replica.state not in (ReplicaState.LEAVING, ReplicaState.UNREACHABLE)
        and (model.pools is None or pool.name in model.pools)
        and pool.gpu_type in model.need_by_gpu_type
    )


def _pools(seen: Observation, placed: Placement) -> Iterator[str]:
    """Counts within the pools' limits, unless they were over them before; what leaves is ours, ready and empty by
    then."""
    replicas = seen.fleet.replica_by_name
    for pool in seen.fleet.pools:
        count = placed.replicas_by_pool[pool.name]
        there = sum(r.pool == pool.name and r.state is not ReplicaState.LEAVING for r in replicas.values())
        if count > max(pool.max_replicas, pool.replicas, there):
            yield f"{pool.name}: {count} replicas > {pool.max_replicas}"
        if count < pool.min_replicas:
            yield f"{pool.name}: {count} replicas < {pool.min_replicas}"
    for name, _ in placed.leaving:
        pool_of = seen.fleet.pool_by_name[replicas[name].pool]
        if not pool_of.is_scaled_by_us or replicas[name].state is not ReplicaState.READY:
            yield f"{name} is to leave, and is {replicas[name].state}"
