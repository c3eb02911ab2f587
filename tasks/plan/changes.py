"""What must change: each copy that should come or go, with the steps that this takes, in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from zlib import crc32

from tasks.decision import Assignment, Placement, Reason, Sizing, StepKind
from tasks.world import Copy, CopyState, Model, Observation, Replica, ReplicaState

CopyKey = tuple[str, str]
"""Model and replica."""
FILLED = (CopyState.LOADING, CopyState.READY, CopyState.UNLOADING)
"""States in which a copy takes memory."""
CHURN = (StepKind.LOAD, StepKind.UNLOAD)


@dataclass(frozen=True, slots=True)
class Change:
    """A copy that should come, or go."""

    model: str
    replica: str
    kinds: tuple[StepKind, ...]
    """Its steps, each needs the one before it. A copy that comes ends routed."""
    reason: Reason
    footprint_bytes: int
    is_serving: bool = False
    """It serves now."""
    is_filled: bool = False
    """It takes memory now."""

    @property
    def key(self) -> CopyKey:
        return self.model, self.replica

    @property
    def is_coming(self) -> bool:
        return self.kinds[-1] is StepKind.ROUTE

    @property
    def is_repair(self) -> bool:
        """It goes and comes again, since its requests fail."""
        return self.reason.code == "copy_failing"

    @property
    def is_freeing(self) -> bool:
        """Its memory is free once it is done: what is still loading is only unrouted, and goes another time."""
        return self.is_filled and self.kinds[-1] is StepKind.UNLOAD

    @property
    def unrouted(self) -> Change:
        """The same, as far as it costs nothing: it gets no more requests, and goes another time."""
        return replace(self, kinds=tuple(kind for kind in self.kinds if kind is StepKind.UNROUTE))

    @property
    def unloaded(self) -> Change:
        """The first half of a repair: it is loaded another time."""
        return replace(self, kinds=self.kinds[: self.kinds.index(StepKind.UNLOAD) + 1])

    @property
    def churn(self) -> int:
        return sum(kind in CHURN for kind in self.kinds)


def coming(observation: Observation, placement: Placement, sizings: Sequence[Sizing]) -> list[Change]:
    """The copies that should be there and do not serve, in replicas that can be worked on: first of models that are
    asked and that nobody serves now, then of those of which less than half serves, then of others that are asked, then
    of those that nobody asks, each by priority: as placement gives them their places. A model's repairs come last, in
    an order that changes from tick to tick: one that mends nothing keeps no other from its turn."""
    fleet = observation.fleet
    copy_by_key = {(copy.model, copy.replica): copy for copy in fleet.copies}
    replica_by_name, model_by_name = fleet.replica_by_name, fleet.model_by_name
    serving = Counter(copy.model for copy in fleet.copies if copy.is_serving)
    wanted = {sizing.model: sizing.copies for sizing in sizings}
    unasked = {sizing.model for sizing in sizings if sizing.demand_rps == 0}
    found = []
    for assignment in placement.assignments:
        replica = replica_by_name.get(assignment.replica)
        if replica is not None and replica.state is ReplicaState.READY:
            copy, model = copy_by_key.get((assignment.model, assignment.replica)), model_by_name[assignment.model]
            change = _coming(assignment, replica, copy, model)
            found += [change] if change else []

    def order(c: Change) -> tuple[bool, bool, bool, int, str, int, str]:
        turn = crc32(f"{c.replica} {observation.now}".encode()) if c.is_repair else -1
        has_half = 2 * serving[c.model] >= wanted.get(c.model, 0)
        return (
            c.model in unasked,
            serving[c.model] > 0,
            has_half,
            -model_by_name[c.model].priority,
            c.model,
            turn,
            c.replica,
        )

    return sorted(found, key=order)


def _coming(assignment: Assignment, replica: Replica, copy: Copy | None, model: Model) -> Change | None:
    unroute = (StepKind.UNROUTE,) if copy is not None and copy.is_routed else ()
    load = (StepKind.LOAD, StepKind.ROUTE)
    kinds: tuple[StepKind, ...]
    reason = assignment.reason
    if copy is None:
        kinds = load
    elif copy.is_serving:
        return None
    elif copy.is_failing:
        kinds = (*unroute, StepKind.UNLOAD, *load)
        reason = Reason("copy_failing", copy.detail or "its requests fail")
    elif copy.state is CopyState.READY:
        kinds, reason = (StepKind.ROUTE,), Reason("not_routed", "ready, no request can reach it")
    else:
        kinds = (*unroute, *load)
        if copy.is_routed:
            reason = Reason("not_ready", f"requests are sent to it, and it is {copy.state} {copy.detail}".strip())
    return Change(
        assignment.model,
        assignment.replica,
        kinds,
        reason,
        model.need_by_gpu_type[replica.gpu_type].footprint_bytes,
        is_filled=copy is not None and copy.state in FILLED,
    )


def going(observation: Observation, placement: Placement) -> list[Change]:
    """The copies that should not be there, in replicas that can be worked on: in the order in which the placement gave
    them up, so that after some of them it gives up the others."""
    fleet = observation.fleet
    wanted = {(assignment.model, assignment.replica) for assignment in placement.assignments}
    replica_by_name, model_by_name = fleet.replica_by_name, fleet.model_by_name
    found = []
    for copy in fleet.copies:
        replica = replica_by_name.get(copy.replica)
        if (copy.model, copy.replica) in wanted or copy.model not in model_by_name:
            continue
        if (kinds := _ways_out(copy, replica)) is None:
            continue
        reason = (placement.surplus or {}).get((copy.model, copy.replica)) or Reason("surplus", _why(copy, replica))
        need = model_by_name[copy.model].need_by_gpu_type.get(replica.gpu_type) if replica else None
        footprint = need.footprint_bytes if need else 0
        found.append(
            Change(copy.model, copy.replica, kinds, reason, footprint, copy.is_serving, is_filled=copy.state in FILLED)
        )
    turn = {copy: n for n, copy in enumerate(placement.surplus or {})}
    return sorted(found, key=lambda c: (turn.get(c.key, -1), c.replica, c.model))


def _ways_out(copy: Copy, replica: Replica | None) -> tuple[StepKind, ...] | None:
    """None: it goes already, or it cannot be touched now."""
    unroute = (StepKind.UNROUTE,) if copy.is_routed else ()
    if replica is None:
        return unroute or None
    if replica.state not in (ReplicaState.READY, ReplicaState.LEAVING):
        # what cannot be read is not touched; a server that only starts has nothing that requests should reach
        return unroute or None if replica.state is ReplicaState.STARTING else None
    if copy.is_failing or copy.state is CopyState.UNLOADING:  # one that is under way is waited for, or ended
        return (*unroute, StepKind.UNLOAD)
    if copy.state is CopyState.READY:
        return (*unroute, StepKind.DRAIN, StepKind.UNLOAD)
    return unroute or None


def _why(copy: Copy, replica: Replica | None) -> str:
    if replica is None:
        return "its replica is gone"
    why = f", {replica.detail}" if replica.detail else ""
    return f"its replica is {replica.state}{why}; it is {copy.state}"
