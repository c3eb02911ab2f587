"""Random fleets for hypothesis, and what becomes of a fleet that does what a placement says."""

from __future__ import annotations

from dataclasses import replace
from itertools import count as count_from

from hypothesis import strategies as st

from tasks.decision import Placement, Reason, Sizing
from tasks.world import (
    Copy,
    CopyState,
    Fleet,
    LoadFailure,
    Model,
    Need,
    Objective,
    Observation,
    Pool,
    Replica,
    ReplicaState,
)
from tests.worlds import NOW

GB = 10**9
World = tuple[Observation, tuple[Sizing, ...]]
STATES = (ReplicaState.READY,) * 5 + (ReplicaState.STARTING, ReplicaState.LEAVING, ReplicaState.UNREACHABLE)
COPY_STATES = (CopyState.READY,) * 5 + (CopyState.LOADING, CopyState.UNLOADING, CopyState.ABSENT)


@st.composite
def pools(draw: st.DrawFn) -> tuple[Pool, ...]:
    return tuple(
        Pool(
            name,
            gpu,
            draw(st.integers(4, 24)) * GB,
            min_replicas=draw(st.integers(0, 1)),
            max_replicas=draw(st.integers(1, 5)),
            replicas=draw(st.integers(0, 3)),
            is_scaled_by_us=draw(st.sampled_from((True, True, True, False))),
            cost_per_hour=draw(st.sampled_from((0.5, 1.0, 3.0))),
        )
        for name, gpu in (("p", "x"), ("q", "y"), ("r", "x"))[: draw(st.integers(1, 3))]
    )


@st.composite
def models(draw: st.DrawFn, names: tuple[str, ...], at: tuple[Pool, ...]) -> tuple[Model, ...]:
    found = []
    for name in names:
        gpus = ("x", "y") if draw(st.integers(0, 5)) else ("x",)
        need = {g: Need(draw(st.integers(1, 8)) * GB, draw(st.sampled_from((5.0, 20.0, 80.0)))) for g in gpus}
        allowed = None if draw(st.integers(0, 4)) else frozenset({at[0].name})
        most = draw(st.integers(1, 6))
        pinned, priority = draw(st.integers(0, 7)) == 0, draw(st.integers(0, 2))
        found.append(
            Model(
                name,
                need,
                Objective(50.0),
                max_copies=most,
                priority=priority,
                pools=allowed,
                is_pinned=pinned,
            )
        )
    return tuple(found)


@st.composite
def worlds(draw: st.DrawFn, calm: bool = False) -> World:
    """A fleet of up to 3 pools, 9 replicas and 8 models in any state; ``calm``: all of it ready and readable."""
    at = draw(pools())
    names = tuple("abcdefgh"[: draw(st.integers(1, 8))])
    known = draw(models(names, at))
    replicas = tuple(
        Replica(
            f"{pool.name}-{n}",
            pool.name,
            pool.gpu_type,
            pool.memory_bytes,
            1.0,
            ReplicaState.READY if calm else draw(st.sampled_from(STATES)),
            zone=draw(st.sampled_from(("", "z1", "z2"))),
        )
        for pool in at
        for n in range(draw(st.integers(0, 3)))
    )
    keys = (
        draw(st.sets(st.sampled_from([(m, r.name) for m in names for r in replicas]), max_size=12)) if replicas else ()
    )
    copies = []
    for m, r in sorted(keys):
        state = CopyState.READY if calm else draw(st.sampled_from(COPY_STATES))
        weight = draw(st.sampled_from((1.0, 1.0, 0.3, 1.8)))
        copies.append(Copy(m, r, state, is_routed=state is CopyState.READY, weight=weight))
    failures = () if calm or not copies else _failures(draw, copies)
    fleet = Fleet(known, at, replicas, tuple(copies), splits_by_weight=draw(st.booleans()))
    return Observation(NOW, fleet, load_failures=failures), tuple(draw(sizings(model, at)) for model in known)


def _failures(draw: st.DrawFn, copies: list[Copy]) -> tuple[LoadFailure, ...]:
    copy = draw(st.sampled_from(copies))
    return (LoadFailure(copy.model, copy.replica, draw(st.integers(1, 4)), NOW - draw(st.integers(0, 300))),)


@st.composite
def sizings(draw: st.DrawFn, model: Model, at: tuple[Pool, ...]) -> Sizing:
    gpus = {pool.gpu_type for pool in at if model.may_live_in(pool)}
    capacity = {gpu: 700 / model.need_by_gpu_type[gpu].service_ms for gpu in gpus}
    if not capacity:
        return Sizing(model.name, 0, 0.0, {}, Reason("not_allowed", "no pool may hold it"))
    demand = draw(st.one_of(st.none(), st.just(0.0), st.floats(0.1, 60.0)))
    copies = (
        1
        if demand is None
        else max(1, min(model.max_copies, -int(-demand // draw(st.sampled_from(sorted(capacity.values()))))))
    )
    return Sizing(model.name, copies, demand, capacity, Reason("demand", "drawn"))


def applied(seen: Observation, placed: Placement) -> Observation:
    """The fleet once all of the placement is done: loaded, unloaded, added, gone."""
    leaving = {name for name, _ in placed.leaving}
    replicas = [r for r in seen.fleet.replicas if r.name not in leaving and r.state is not ReplicaState.LEAVING]
    replicas = [r if r.state is not ReplicaState.STARTING else replace(r, state=ReplicaState.READY) for r in replicas]
    name_by_new: dict[str, str] = {}
    pools_now = []
    for pool in seen.fleet.pools:
        count = placed.replicas_by_pool[pool.name] if pool.is_scaled_by_us else pool.replicas
        there = sum(r.pool == pool.name for r in replicas)
        for n in range(1, count - there + 1):
            used = {replica.name for replica in replicas}
            name = next(name for k in count_from(0) if (name := f"{pool.name}-new-{k}") not in used)
            name_by_new[f"{pool.name}+{n}"] = name
            replicas.append(Replica(name, pool.name, pool.gpu_type, pool.memory_bytes, 1.0))
        pools_now.append(replace(pool, replicas=max(count, there)))
    names = {r.name for r in replicas}
    targets = [(a.model, name_by_new.get(a.replica, a.replica), a.weight) for a in placed.assignments]
    copies = tuple(Copy(m, r, CopyState.READY, is_routed=True, weight=w) for m, r, w in targets if r in names)
    unread = tuple(
        c
        for c in seen.fleet.copies
        if c.replica in names and seen.fleet.replica_by_name[c.replica].state is ReplicaState.UNREACHABLE
    )
    kept = {(c.model, c.replica) for c in copies}
    fleet = Fleet(
        seen.fleet.models,
        tuple(pools_now),
        tuple(replicas),
        copies + tuple(c for c in unread if (c.model, c.replica) not in kept),
        seen.fleet.splits_by_weight,
    )
    return replace(seen, fleet=fleet, load_failures=())
