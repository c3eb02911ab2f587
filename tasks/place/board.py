"""The working table of a placement: every replica with what it holds, takes and has left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tasks.decision import Sizing
from tasks.world import CopyState, Fleet, Model, Pool, Replica, ReplicaState

PRESENT = (CopyState.LOADING, CopyState.READY)


@dataclass(frozen=True, slots=True)
class Load:
    """What one copy of a model takes of a replica of one GPU type."""

    memory_bytes: int
    compute: float
    """Device-seconds a second."""


@dataclass(slots=True)
class Spot:
    """A replica that there is, or that a pool could have."""

    name: str
    pool: Pool
    memory_bytes: int
    compute: float
    node: str = ""
    zone: str = ""
    is_new: bool = False
    is_ready: bool = True
    closed: str = ""
    """Why it takes no new copy; empty: it takes some."""
    keeps: bool = True
    """Whether the copies that are in it may stay."""
    load_by_model: dict[str, Load] = field(default_factory=dict)
    """The copies that should be in it."""
    going_by_model: dict[str, Load] = field(default_factory=dict)
    """The copies that are in it and should not be: memory until they are unloaded."""

    @property
    def used_bytes(self) -> int:
        return sum(load.memory_bytes for load in self.load_by_model.values())

    @property
    def going_bytes(self) -> int:
        return sum(load.memory_bytes for load in self.going_by_model.values())

    @property
    def used_compute(self) -> float:
        return sum(load.compute for load in self.load_by_model.values())

    @property
    def room_bytes(self) -> int:
        """Memory less the headroom."""
        return int(self.memory_bytes * (1 - self.pool.headroom))

    @property
    def room_compute(self) -> float:
        return self.compute * (1 - self.pool.headroom)

    def fullness_with(self, load: Load) -> float:
        """The larger of the shares of memory and of compute that would be taken."""
        memory = (self.used_bytes + self.going_bytes + load.memory_bytes) / max(1, self.memory_bytes)
        return max(memory, (self.used_compute + load.compute) / max(1e-9, self.compute))


@dataclass(slots=True)
class Board:
    """All spots, and what each model's copy takes where."""

    model_by_name: Mapping[str, Model]
    sizing_by_model: Mapping[str, Sizing]
    spots: dict[str, Spot]

    def load(self, model: str, spot: Spot) -> Load:
        """What a copy takes in the spot, at most all of its compute; unknown demand counts as the copy's capacity."""
        need = self.model_by_name[model].need_by_gpu_type[spot.pool.gpu_type]
        sizing = self.sizing_by_model[model]
        service_ms = (sizing.service_ms_by_gpu_type or {}).get(spot.pool.gpu_type, need.service_ms)
        if sizing.demand_rps is None:
            rate_rps = sizing.capacity_rps_by_gpu_type.get(spot.pool.gpu_type, 0.0)
        else:
            rate_rps = sizing.demand_rps / max(1, sizing.copies)
        compute = rate_rps * need.device_s_per_request * service_ms / need.service_ms
        return Load(need.footprint_bytes, min(compute, spot.room_compute))

    def put(self, model: str, spot: Spot) -> None:
        spot.going_by_model.pop(model, None)
        spot.load_by_model[model] = self.load(model, spot)

    def take(self, model: str, spot: Spot, is_there: bool) -> None:
        """The copy should not be in the spot; if it is there now, its memory stays taken for this tick."""
        load = spot.load_by_model.pop(model)
        if is_there:
            spot.going_by_model[model] = load

    def spots_of(self, model: str) -> list[Spot]:
        return [spot for spot in self.spots.values() if model in spot.load_by_model]

    def has_demand(self, model: str) -> bool:
        """Unknown is not zero."""
        demand_rps = self.sizing_by_model[model].demand_rps
        return demand_rps is None or demand_rps > 0


def lay(fleet: Fleet, sizings: Iterable[Sizing]) -> Board:
    """The board with every replica on it and no copy that should be there yet: all that are there are going."""
    board = Board(fleet.model_by_name, {sizing.model: sizing for sizing in sizings}, {})
    pools = fleet.pool_by_name
    for replica in fleet.replicas:
        if (pool := pools.get(replica.pool)) is not None:
            board.spots[replica.name] = _spot(replica, pool)
    for copy in fleet.copies:
        spot = board.spots.get(copy.replica)
        if spot is None or copy.state in (CopyState.ABSENT, CopyState.UNKNOWN):
            continue
        model = board.model_by_name.get(copy.model)
        if model is None or spot.pool.gpu_type not in model.need_by_gpu_type:
            spot.closed = spot.closed or f"it holds {copy.model}, whose footprint is not known"
        else:
            spot.going_by_model[copy.model] = board.load(copy.model, spot)
    return board


def _spot(replica: Replica, pool: Pool) -> Spot:
    closed = {
        ReplicaState.LEAVING: "it is leaving",
        ReplicaState.UNREACHABLE: "it cannot be read",
    }.get(replica.state, "")
    return Spot(
        name=replica.name,
        pool=pool,
        memory_bytes=replica.memory_bytes,
        compute=replica.compute,
        node=replica.node,
        zone=replica.zone,
        is_ready=replica.state is ReplicaState.READY,
        closed=closed,
        keeps=not closed,
    )


def staying(fleet: Fleet, pool: Pool) -> list[Replica]:
    """The pool's replicas that are not about to go."""
    return [r for r in fleet.replicas if r.pool == pool.name and r.state is not ReplicaState.LEAVING]


def new_spots(fleet: Fleet) -> list[Spot]:
    """The replicas that pools could still have, those first that are asked for already, named ``POOL+N``."""
    found = []
    for pool in fleet.pools:
        there = len(staying(fleet, pool))
        most = max(pool.replicas, pool.max_replicas)
        found += [
            Spot(f"{pool.name}+{n}", pool, pool.memory_bytes, pool.compute, is_new=True, is_ready=False)
            for n in range(1, most - there + 1)
        ]
    return found
