"""Random small fleets in any state that can be observed, with sizings and limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from tasks.decision import Reason, Sizing
from tasks.world import (
    Copy,
    CopyState,
    Fleet,
    Limits,
    LoadFailure,
    Model,
    Need,
    Objective,
    Observation,
    Pool,
    Replica,
    ReplicaState,
)
from tests.plan import MB
from tests.play import FILLED
from tests.worlds import NOW

READY, ABSENT = CopyState.READY, CopyState.ABSENT
Look = tuple[CopyState, bool, bool]
"""State, is_routed, is_failing."""
GONE: tuple[Look, ...] = ((ABSENT, True, False),)
IN_SERVER: tuple[Look, ...] = (
    *((READY, True, False),) * 4,
    (READY, False, False),
    (READY, True, True),
    (READY, False, True),
    (CopyState.LOADING, False, False),
    (CopyState.LOADING, True, False),
    (CopyState.UNLOADING, False, False),
    (CopyState.UNLOADING, True, False),
    *GONE,
)
LOOKS_BY_STATE = {
    ReplicaState.READY: IN_SERVER,
    ReplicaState.LEAVING: IN_SERVER,
    ReplicaState.STARTING: GONE,
    ReplicaState.UNREACHABLE: ((CopyState.UNKNOWN, True, False),),
}
STATES = (ReplicaState.READY,) * 6 + tuple(ReplicaState)
WHY = Reason("demand", "drawn")


@dataclass(frozen=True)
class Drawn:
    """One random world."""

    observation: Observation
    sizings: tuple[Sizing, ...]
    limits: Limits
    seed: int
    """Of the order in which steps happen, and of what fails."""

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """How a counterexample is printed: a line for each part."""
        fleet = self.observation.fleet
        parts = (*fleet.pools, *fleet.replicas, *fleet.models, *fleet.copies, *self.observation.load_failures)
        printer.text("\n".join(["", *map(str, (*parts, *self.sizings, self.limits)), f"seed {self.seed}"]))


def resized(sizings: tuple[Sizing, ...], fleet: Fleet) -> tuple[Sizing, ...]:
    """As the next tick sizes: of a model whose demand is unknown, as many copies as there are then."""
    least = {model.name: model.min_copies for model in fleet.models}
    return tuple(
        replace(s, copies=max(_there(fleet, s.model), least[s.model])) if s.demand_rps is None else s for s in sizings
    )


def _there(fleet: Fleet, model: str) -> int:
    """As size holds without a memory of past ticks."""
    there = [
        copy
        for copy in fleet.copies_of(model)
        if copy.state in (READY, CopyState.LOADING) or (copy.state is ABSENT and copy.is_routed)
    ]
    is_lost = any(copy.state is CopyState.UNKNOWN for copy in fleet.copies_of(model))
    return sum(copy.is_routed for copy in there) or len(there) or int(is_lost)


@st.composite
def worlds(draw: st.DrawFn) -> Drawn:
    """One or two pools of up to four replicas, one to five models; memory is never exceeded at the start."""
    names = ["small", "large"][: draw(st.integers(1, 2))]
    replicas = tuple(r for name in names for r in draw(_replicas(name)))
    pools = tuple(draw(_pool(name, replicas)) for name in names)
    models = tuple(draw(_model(f"m{n}", names)) for n in range(draw(st.integers(1, 5))))
    copies = draw(_copies(models, replicas))
    failures = tuple(
        LoadFailure(model.name, replica.name, draw(st.integers(1, 4)), NOW - draw(st.sampled_from([10, 100, 1000])))
        for model in models
        for replica in replicas
        if draw(st.integers(0, 9)) == 9
    )
    fleet = Fleet(models, pools, replicas, copies, splits_by_weight=draw(st.booleans()))
    return Drawn(
        observation=Observation(NOW, fleet, load_failures=failures),
        sizings=tuple(draw(_sizing(model, fleet)) for model in models),
        limits=Limits(budget=draw(st.integers(1, 8)), saving_factor=draw(st.sampled_from([0.0, 0.5, 1.0]))),
        seed=draw(st.integers(0, 2**16)),
    )


@st.composite
def _replicas(draw: st.DrawFn, pool: str) -> tuple[Replica, ...]:
    memory = 500 * MB if pool == "small" else 1000 * MB
    return tuple(
        Replica(
            f"{pool}-{n}",
            pool,
            pool,
            memory,
            1.0,
            draw(st.sampled_from(STATES)),
            node=f"node-{draw(st.integers(0, 1))}",
            zone=draw(st.sampled_from(["", "a", "b"])),
        )
        for n in range(draw(st.integers(0, 4)))
    )


@st.composite
def _pool(draw: st.DrawFn, name: str, replicas: tuple[Replica, ...]) -> Pool:
    staying = sum(r.pool == name and r.state is not ReplicaState.LEAVING for r in replicas)
    least = draw(st.integers(0, 2))
    return Pool(
        name,
        name,
        500 * MB if name == "small" else 1000 * MB,
        min_replicas=least,
        max_replicas=max(least, draw(st.integers(0, 5))),
        replicas=max(0, staying + draw(st.sampled_from([0, 0, 0, 1, -1]))),
        is_scaled_by_us=draw(st.integers(0, 3)) < 3,
        cost_per_hour=draw(st.sampled_from([1.0, 2.0])),
        headroom=draw(st.sampled_from([0.0, 0.1])),
    )


@st.composite
def _model(draw: st.DrawFn, name: str, pools: list[str]) -> Model:
    footprint, service_ms = draw(st.sampled_from([50, 100, 200, 300, 450, 600])), draw(st.sampled_from([5, 50, 200]))
    known = draw(st.sampled_from([["small", "large"], ["small", "large"], ["small"], ["large"]]))
    least = draw(st.integers(0, 2))
    return Model(
        name=name,
        need_by_gpu_type={pool: Need(footprint * MB, service_ms) for pool in known},
        objective=Objective(50.0),
        min_copies=least,
        max_copies=max(1, least, draw(st.integers(1, 4))),
        priority=draw(st.integers(0, 2)),
        pools=draw(st.sampled_from([None, None, frozenset(pools[:1])])),
        is_pinned=draw(st.integers(0, 6)) == 6,
    )


@st.composite
def _copies(draw: st.DrawFn, models: tuple[Model, ...], replicas: tuple[Replica, ...]) -> tuple[Copy, ...]:
    """Also copies of a model that is not managed, and of replicas that are gone but for their routes."""
    found = [Copy(model.name, "gone", ABSENT, is_routed=True) for model in models if draw(st.integers(0, 9)) == 9]
    for replica in replicas:
        left = replica.memory_bytes
        for model in models:
            need = model.need_by_gpu_type.get(replica.gpu_type)
            if need is None or draw(st.booleans()):
                continue
            state, is_routed, is_failing = draw(st.sampled_from(LOOKS_BY_STATE[replica.state]))
            if state not in FILLED or need.footprint_bytes <= left:
                left -= need.footprint_bytes if state in FILLED else 0
                weight = draw(st.sampled_from([1.0, 1.0, 0.2, 1.7])) if is_routed else 1.0
                found.append(Copy(model.name, replica.name, state, is_routed, is_failing, weight))
        if replica.state is ReplicaState.READY and draw(st.integers(0, 19)) == 19:
            found.append(Copy("zebra", replica.name, READY, is_routed=True))
    return tuple(found)


@st.composite
def _sizing(draw: st.DrawFn, model: Model, fleet: Fleet) -> Sizing:
    """What size promises: the copies that are there where demand is unknown, none where no pool may hold the model."""
    demand_rps = draw(st.sampled_from([None, 0.0, 1.0, 5.0, 15.0]))
    copies = draw(st.integers(max(model.min_copies, 1 if demand_rps else 0), model.max_copies))
    if demand_rps is None:
        copies = max(_there(fleet, model.name), model.min_copies)
    if not any(model.may_live_in(pool) for pool in fleet.pools):
        return Sizing(model.name, 0, 0.0, {}, Reason("not_allowed", "no pool may hold it"))
    capacity_rps = {gpu: draw(st.sampled_from([4.0, 10.0, 10.0])) for gpu in model.need_by_gpu_type}
    return Sizing(model.name, copies, demand_rps, capacity_rps, WHY)
