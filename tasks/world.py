"""What is: models, pools, replicas, their copies, and what was observed of them.

Everything here is a frozen value that can be printed, compared and stored. Unknown is ``None``, or NaN in a frame,
never zero. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Objective:
    """The queue time (ms) under which a percentile of a model's requests should stay."""

    queue_ms: float
    percentile: float = 95.0


@dataclass(frozen=True, slots=True)
class Need:
    """What one copy of a model takes, and gives, on one GPU type."""

    footprint_bytes: int
    """Room that is kept for it."""
    service_ms: float
    """Mean time one request is executed, without its queue time."""
    service_cv2: float = 0.0
    """Squared coefficient of variation of the service time: 0 constant, 1 exponential."""
    instances: int = 1
    """Requests that one copy executes at the same time (Triton's instance_group count)."""
    load_s: float = 5.0
    """From the load call to the first request served."""
    compute_ms: float | None = None
    """Device time one request takes; None: the device is busy as long as the service takes."""
    source: str = "declared"
    """Where the service time comes from: declared, measured or learned."""
    footprint_source: str = "declared"
    """Where the footprint comes from: declared, measured or learned."""
    footprint_seen: tuple[float, float] | None = None
    """Its mean and standard deviation (bytes), of which the room is reckoned; None: a person has said what counts."""

    @property
    def device_s_per_request(self) -> float:
        return (self.service_ms if self.compute_ms is None else self.compute_ms) / 1000


@dataclass(frozen=True, slots=True)
class Model:
    """A name in Triton's model repository, with its policy."""

    name: str
    need_by_gpu_type: Mapping[str, Need]
    objective: Objective
    min_copies: int = 1
    max_copies: int = 8
    priority: int = 0
    """Higher goes first when there is not room for all."""
    pools: frozenset[str] | None = None
    """Pools it may live in; None: every pool whose GPU type it has a need for."""
    is_pinned: bool = False
    """Its copies stay where they are: never moved to make room or to save a replica."""
    idle_s: float = 900.0
    """With min_copies 0: how long no request must have been observed before it goes to zero copies."""

    def may_live_in(self, pool: Pool) -> bool:
        return pool.gpu_type in self.need_by_gpu_type and (self.pools is None or pool.name in self.pools)


@dataclass(frozen=True, slots=True)
class Pool:
    """A set of interchangeable replicas: one Deployment, one GPU type, min and max replicas."""

    name: str
    gpu_type: str
    memory_bytes: int
    compute: float = 1.0
    """Device-seconds a second that copies of one replica may take together."""
    min_replicas: int = 1
    max_replicas: int = 1
    replicas: int = 0
    """The count asked for now."""
    is_scaled_by_us: bool = True
    """False: another autoscaler owns the count; what is wanted is only published."""
    cost_per_hour: float = 1.0
    start_s: float = 60.0
    """From asking for a replica to its being ready for a load."""
    headroom: float = 0.1
    """Share of a replica's memory and compute kept free on purpose."""
    detail: str = ""
    """Why ``memory_bytes`` is less than was declared."""


class ReplicaState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Replica:
    """One running Triton server with its memory and GPU type."""

    name: str
    pool: str
    gpu_type: str
    memory_bytes: int
    compute: float
    state: ReplicaState = ReplicaState.READY
    http: str = ""
    """host:port of the inference API, also of the gateway's endpoint."""
    grpc: str = ""
    """host:port of the control API."""
    metrics: str = ""
    """host:port of the metrics endpoint."""
    node: str = ""
    zone: str = ""
    detail: str = ""
    is_superseded: bool = False
    """LEAVING, since a rollout replaces it by one of a newer revision."""
    life: str = ""
    """Another one after each restart of its server, with which what it had loaded is gone. Empty: not known."""


class CopyState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    ABSENT = "absent"
    """Routed, yet Triton does not have it: a restarted server, or a label edited by hand."""
    UNKNOWN = "unknown"
    """Its replica cannot be read."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A model loaded in one replica, or routed to one."""

    model: str
    replica: str
    state: CopyState
    is_routed: bool = False
    is_failing: bool = False
    """READY, but its requests fail: a killed stub, for example."""
    weight: float = 1.0
    """The share of its model's requests that is sent to it, relative to the model's other routed copies."""
    detail: str = ""

    @property
    def is_serving(self) -> bool:
        return self.state is CopyState.READY and self.is_routed and not self.is_failing


@dataclass(frozen=True, slots=True)
class Fleet:
    """The models that are managed, the pools, and what there is of them now."""

    models: tuple[Model, ...]
    pools: tuple[Pool, ...]
    replicas: tuple[Replica, ...]
    copies: tuple[Copy, ...]
    """Copies of models that are not in ``models`` are somebody else's: they are never touched."""
    splits_by_weight: bool = False
    """Whether its gateway sends copies the shares that their weights say; else requests are split evenly."""

    @property
    def model_by_name(self) -> dict[str, Model]:
        return {model.name: model for model in self.models}

    @property
    def pool_by_name(self) -> dict[str, Pool]:
        return {pool.name: pool for pool in self.pools}

    @property
    def replica_by_name(self) -> dict[str, Replica]:
        return {replica.name: replica for replica in self.replicas}

    def copies_of(self, model: str) -> tuple[Copy, ...]:
        return tuple(copy for copy in self.copies if copy.model == model)

    def copies_in(self, replica: str) -> tuple[Copy, ...]:
        return tuple(copy for copy in self.copies if copy.replica == replica)


@dataclass(frozen=True, slots=True)
class Learned:
    """A model's mean service time on a GPU type, learned while serving."""

    service_ms: float
    spread_ms: float
    """Standard deviation between windows."""
    windows: int
    """How many were seen: how sure it is."""


@dataclass(frozen=True, slots=True)
class LearnedFootprint:
    """Memory of a model's copies on a GPU type, learned while they are loaded."""

    footprint_bytes: float
    spread_bytes: float
    """Standard deviation between looks."""
    looks: int
    """How many there were: how sure it is."""
    last_at: float
    """When its copies were last looked at."""


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """Loads of a model that failed in a row in one replica."""

    model: str
    replica: str
    count: int
    last_at: float


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that could not be read, and why."""

    subject: str
    """``prometheus``, ``gateway``, ``replica:NAME`` or ``model:NAME``."""
    why: str


DEMAND_COLUMNS = ("time", "model", "demand_rps")
TRAFFIC_COLUMNS = ("model", "replica", "served_rps", "failed_rps", "queue_ms", "service_ms")
WANTED_COLUMNS = ("time", "model", "copies")
LEARNED_COLUMNS = ("model", "gpu_type", "service_ms", "spread_ms", "windows")


def empty_frame(columns: tuple[str, ...]) -> pd.DataFrame:
    """A frame without rows whose text columns are object and whose numbers are float."""
    text = {"model", "replica", "gpu_type"}
    return pd.DataFrame({c: np.empty(0, dtype=object if c in text else float) for c in columns})


def coded(names: pd.Series[Any]) -> tuple[NDArray[Any], Sequence[Any]]:
    """Each row's name as a number, -1 where there is none, and the names by number; a categorical has both."""
    if isinstance(names.dtype, pd.CategoricalDtype):
        return names.cat.codes.to_numpy(), names.cat.categories.tolist()
    codes, known = pd.factorize(names)
    return codes, known.tolist()


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What one tick saw."""

    now: float
    fleet: Fleet
    demand: pd.DataFrame = field(default_factory=lambda: empty_frame(DEMAND_COLUMNS))
    """Long: ``time`` (s, end of the bin), ``model``, ``demand_rps`` (NaN: not observed), sorted by model and time."""
    traffic: pd.DataFrame = field(default_factory=lambda: empty_frame(TRAFFIC_COLUMNS))
    """One row a copy, over the last window: ``model``, ``replica``, ``served_rps``, ``failed_rps``, ``queue_ms``
    (mean), ``service_ms`` (mean); NaN: no request, or not observed."""
    wanted: pd.DataFrame = field(default_factory=lambda: empty_frame(WANTED_COLUMNS))
    """Long: copies that past ticks needed, before stabilisation held them up: ``time``, ``model``, ``copies``, over the
    stabilisation window."""
    learned: pd.DataFrame = field(default_factory=lambda: empty_frame(LEARNED_COLUMNS))
    """What past ticks learned of service times, one row a model and GPU type; see ``Learned``."""
    footprints: Mapping[tuple[str, str], LearnedFootprint] = field(default_factory=dict)
    """What is known of footprints by model and GPU type, with this tick's look. Where a model has clearly outgrown what
    was measured of it, its need has this."""
    load_failures: tuple[LoadFailure, ...] = ()
    age_s_by_source: Mapping[str, float] = field(default_factory=dict)
    """Age of the newest sample: ``demand:MODEL``, ``traffic:REPLICA``."""
    unknown: tuple[Unknown, ...] = ()

    def has_demand(self, model: str) -> bool:
        """Unless the newest known demand is none at all: unknown is not zero."""
        known = self.demand.loc[self.demand["model"] == model, "demand_rps"].dropna()
        return known.empty or float(known.iloc[-1]) > 0


@dataclass(frozen=True, slots=True)
class Limits:
    """The thresholds that a person sets for the whole fleet."""

    interval_s: float = 30.0
    """Time between ticks."""
    budget: int = 4
    """Loads and unloads in a tick, at most. Routing repairs are free."""
    stale_s: float = 60.0
    """A newest sample older than this is unknown."""
    stabilisation_s: float = 300.0
    """Copies go down to the most that was wanted in this long, not further."""
    margin: float = 0.15
    """What remains after a scale-down must serve this much more than the forecast."""
    quantile: float = 0.9
    """Of the forecast: what is sized for."""
    saving_factor: float = 0.5
    """Consolidation: a replica is given up only when the share of the fleet's cost that it saves is at least this many
    times the share of the fleet's copies that must move."""
    act_s: float = 120.0
    """No step starts later than this after the tick began to act."""
