"""What should be: forecasts, sizings, the placement, the plan and its outcomes, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tasks.world import Learned, Need, Observation

REASONS: Mapping[str, str] = {
    # size
    "demand": "copies that the forecast's upper quantile needs within the objective",
    "queue_over_objective": "the measured queue time means more load than forecast: the larger wins",
    "demand_over_forecast": "more demand was seen than forecast: its rise is carried on to the horizon",
    "min_copies": "demand needs fewer, the policy keeps this many",
    "max_copies": "demand needs more, the policy allows no more",
    "idle": "no request observed for the idle time: zero copies by policy",
    "asleep": "zero copies by policy, no request waiting",
    "cold_request": "a request came for a model at zero copies",
    "stabilising": "fewer would do now, but more were wanted within the stabilisation window",
    "window_unknown": "fewer would do now, but the stabilisation window is not known in full",
    "no_margin": "fewer would meet the objective, but without the margin",
    "demand_unknown": "demand missing or stale: held, never shrunk",
    # place
    "kept": "already there",
    "placed": "the roomiest replica that may hold it",
    "moved": "moved from another replica so that this one can go",
    "no_room": "no replica has the memory or the compute",
    "not_allowed": "no pool may hold it",
    "displaced": "made room for a model of higher priority",
    "surplus": "more copies than its demand needs",
    "weighed": "a replica is over its compute target: its copies get a smaller share, others with room a larger one",
    "evened": "equal shares fit again, with room",
    "replica_wanted": "does not fit in the replicas there are",
    "replica_spare": "empty and not needed",
    "consolidated": "its copies fit elsewhere, and the saving beats the disruption",
    "pool_min": "the pool's minimum",
    "pool_max": "the pool's maximum",
    # plan
    "budget": "over the tick's budget: next tick",
    "backoff": "its load failed: next try later",
    "busy": "another operation is under way in this replica or copy",
    "replica_unreachable": "cannot be read: not touched, its copies count as not serving",
    "replica_starting": "not ready yet",
    "less_memory": "its replicas have less memory than declared: what they have counts",
    "not_scaled_by_us": "another autoscaler owns the count: published only",
    "last_copy": "the last serving copy of a model that has demand: another first",
    "no_room_to_swap": "the new copy does not fit beside the old one, which cannot go first",
    "weights_wait": "its shares change once all of its copies serve and no replica is overloaded on the way",
    "not_empty": "should go, and goes once it is empty",
    "not_routed": "ready, but no request can reach it",
    "not_ready": "requests reach it, but it cannot serve",
    "copy_failing": "READY, but its requests fail: unloaded and loaded again, one at a time where all copies fail",
    "superseded": "a rollout replaces it by one of a newer revision",
    "rollout_waits": "a replica of the newer revision is empty, and a load failed there: no older one goes for it",
    "unplanned": "the plan broke a rail when it was checked: nothing is done",
}
"""Stable codes and what they mean. A new code is added here first."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why, as a stable code, and its arithmetic in one line."""

    code: str
    text: str

    def __post_init__(self) -> None:
        if self.code not in REASONS:
            raise ValueError(f"reason code {self.code!r} is not in tasks.decision.REASONS")

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


@dataclass(frozen=True, slots=True)
class Forecast:
    """One model's demand at its horizon."""

    model: str
    median_rps: float | None
    """None: unknown."""
    upper_rps: float | None
    horizon_s: float
    forecaster: str
    error_rps: float | None = None
    """Mean absolute error of the forecaster at this horizon, recently."""

    @property
    def is_known(self) -> bool:
        return self.upper_rps is not None


@dataclass(frozen=True, slots=True)
class Sizing:
    """How many copies a model should have."""

    model: str
    copies: int
    demand_rps: float | None
    """What it is sized for; None: unknown, the copies are those it has."""
    capacity_rps_by_gpu_type: Mapping[str, float]
    """Requests a second that one copy serves within the objective, alone."""
    reason: Reason
    needed_copies: int | None = None
    """Copies before anything held them up: what the next ticks' stabilisation remembers. None: ``copies``."""
    service_ms_by_gpu_type: Mapping[str, float] | None = None
    """What it is sized with: measured where it can be. None: declared."""
    learned_by_gpu_type: Mapping[str, Learned] | None = None
    """What is known of its service times after this tick: what the next ticks learn from."""
    load_rps: float | None = None
    """What its replicas keep compute for: less than ``demand_rps``, since the upper quantiles of all models do not come
    at once. None: all of it."""

    @property
    def is_held(self) -> bool:
        return self.demand_rps is None

    def device_s(self, need: Need, gpu_type: str) -> float:
        """Device-seconds that are kept for each request of ``demand_rps``, with the service time that it was sized
        with."""
        service_ms = (self.service_ms_by_gpu_type or {}).get(gpu_type, need.service_ms)
        kept = self.load_rps / self.demand_rps if self.load_rps is not None and self.demand_rps else 1.0
        return need.device_s_per_request * service_ms / need.service_ms * kept


@dataclass(frozen=True, slots=True)
class Assignment:
    """A copy that should be: a model in a replica."""

    model: str
    replica: str
    """A replica's name, or ``POOL+N`` for the Nth replica that the pool does not have yet."""
    reason: Reason
    weight: float = 1.0
    """Its share of the model's requests relative to the model's other copies."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Something left as it is, or left out, and why."""

    subject: str
    """``model:NAME``, ``replica:NAME`` or ``pool:NAME``."""
    reason: Reason


@dataclass(frozen=True, slots=True)
class Placement:
    """Which models should sit in which replicas, and how many replicas that takes."""

    assignments: tuple[Assignment, ...]
    replicas_by_pool: Mapping[str, int]
    """The count each pool should have."""
    leaving: tuple[tuple[str, Reason], ...] = ()
    """Replicas that should go once they are empty."""
    pool_reasons: Mapping[str, Reason] | None = None
    """Why a pool's count should change."""
    surplus: Mapping[tuple[str, str], Reason] | None = None
    """Why a copy (model, replica) that is there should not be, in the order in which they were given up; missing:
    surplus."""
    holds: tuple[Hold, ...] = ()
    weight_reasons: Mapping[str, Reason] | None = None
    """Why a model's weights should change; missing: they stay, or follow from its copies."""


@dataclass(frozen=True, slots=True)
class FleetCost:
    """What the replicas that are to be cost, in the unit of the pools' ``cost_per_hour``."""

    per_hour: float
    bound_per_hour: float
    """No fleet that serves every model what it is sized for costs less."""

    @property
    def gap(self) -> float:
        """Share by which the fleet costs more than the bound; NaN: the bound is zero."""
        return self.per_hour / self.bound_per_hour - 1 if self.bound_per_hour > 0 else float("nan")

    def __str__(self) -> str:
        above = f", {self.gap:.0%} above it" if self.gap >= 0 else ""
        return f"{self.per_hour:.2f} an hour; the lower bound is {self.bound_per_hour:.2f}{above}"


class StepKind(StrEnum):
    SCALE_UP = "scale_up"
    LOAD = "load"
    ROUTE = "route"
    WEIGH = "weigh"
    UNROUTE = "unroute"
    DRAIN = "drain"
    UNLOAD = "unload"
    SCALE_DOWN = "scale_down"


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on the fleet; it starts when every step it needs is done."""

    id: int
    kind: StepKind
    reason: Reason
    model: str = ""
    replica: str = ""
    pool: str = ""
    count: int = 0
    """scale_up: how many replicas the pool should have."""
    weights: tuple[tuple[str, float], ...] = ()
    """weigh: replicas of the model, each with its copy's weight; they change at once."""
    needs: tuple[int, ...] = ()

    def __str__(self) -> str:
        if self.kind is StepKind.SCALE_UP:
            return f"scale_up {self.pool} to {self.count}"
        if self.kind is StepKind.WEIGH:
            return f"weigh {self.model}: " + ", ".join(f"{replica} {weight:g}" for replica, weight in self.weights)
        return " ".join(filter(None, (self.kind, self.model, self.replica)))


@dataclass(frozen=True, slots=True)
class Plan:
    """The ordered steps from the fleet as it is to the placement, and what was left undone."""

    steps: tuple[Step, ...] = ()
    holds: tuple[Hold, ...] = ()

    @property
    def churn(self) -> int:
        return sum(step.kind in (StepKind.LOAD, StepKind.UNLOAD) for step in self.steps)


class Result(StrEnum):
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not started: what it needs failed, its precondition no longer held, or the time was up."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step."""

    step: Step
    result: Result
    seconds: float = 0.0
    detail: str = ""
    at: float = 0.0
    """When it ended."""


@dataclass(frozen=True, slots=True, eq=False)
class Tick:
    """Everything that one run of the reconcile flow saw, decided and did."""

    mode: str
    """plan or apply."""
    observation: Observation
    forecasts: tuple[Forecast, ...]
    sizings: tuple[Sizing, ...]
    placement: Placement
    plan: Plan
    outcomes: tuple[Outcome, ...] = ()
    """Empty in plan mode."""
    seconds_by_phase: Mapping[str, float] | None = None
    """The tick's own time, without the orchestrator's."""
    cost: FleetCost | None = None
    """None: not reckoned."""
