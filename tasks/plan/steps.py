"""The steps of what is taken up, and of the pools' counts, numbered in an order in which they can be done."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.decision import Hold, Placement, Reason, Step, StepKind
from tasks.plan.changes import FILLED, Change, CopyKey
from tasks.plan.draft import Chosen
from tasks.world import Copy, Fleet, Observation, Replica, ReplicaState


def scale_up(fleet: Fleet, placement: Placement) -> tuple[tuple[Step, ...], tuple[Hold, ...]]:
    """A step for each pool of ours that should have more replicas; a hold for each that somebody else scales."""
    found: list[Step] = []
    held = []
    for pool in fleet.pools:
        count = placement.replicas_by_pool.get(pool.name, pool.replicas)
        if count <= pool.replicas:
            continue
        reason = (placement.pool_reasons or {}).get(pool.name) or Reason("replica_wanted", f"{count} wanted")
        if pool.is_scaled_by_us:
            found.append(Step(len(found), StepKind.SCALE_UP, reason, pool=pool.name, count=count))
        else:
            text = f"{count} replicas wanted, {pool.replicas} there: {reason.text}"
            held.append(Hold(f"pool:{pool.name}", Reason("not_scaled_by_us", text)))
    return tuple(found), tuple(held)


def change_steps(chosen: Chosen, first: int) -> tuple[tuple[Step, ...], dict[CopyKey, Step]]:
    """The steps of the changes, ids from ``first`` on, and the last step of each change."""
    found: list[Step] = []
    last: dict[CopyKey, Step] = {}
    for change in chosen.change_by_key.values():
        before: tuple[int, ...] = ()
        for kind in change.kinds:
            others = tuple(last[key].id for key in chosen.needs[change.key]) if kind is _waiting_kind(change) else ()
            step = Step(first + len(found), kind, change.reason, change.model, change.replica, needs=(*before, *others))
            found.append(step)
            before = (step.id,)
        last[change.key] = found[-1]
    return tuple(found), last


def _waiting_kind(change: Change) -> StepKind:
    """The step that waits for other changes: a load for room, an unroute for others that serve."""
    if change.is_coming:
        return StepKind.LOAD if StepKind.LOAD in change.kinds else StepKind.ROUTE
    return change.kinds[0]


def scale_down(
    observation: Observation, placement: Placement, last: dict[CopyKey, Step], first: int
) -> tuple[tuple[Step, ...], tuple[Hold, ...]]:
    """A step for each replica that should go and is emptied by this plan; a hold for each that is not."""
    fleet = observation.fleet
    found: list[Step] = []
    held = []
    for replica, reason in _leaving(fleet, placement):
        if replica.is_superseded and (why := _why_the_newer_fails(observation, replica.pool)):
            held.append(Hold(f"replica:{replica.name}", Reason("rollout_waits", why)))
            continue
        copies = fleet.copies_in(replica.name)
        if stays := [text for copy in copies if (text := _why_it_stays(copy, fleet, last))]:
            held.append(Hold(f"replica:{replica.name}", Reason("not_empty", ", ".join(stays))))
            continue
        needs = tuple(sorted(last[key].id for copy in copies if (key := (copy.model, copy.replica)) in last))
        found.append(
            Step(first + len(found), StepKind.SCALE_DOWN, reason, replica=replica.name, pool=replica.pool, needs=needs)
        )
    return tuple(found), tuple(held)


def _leaving(fleet: Fleet, placement: Placement) -> Iterator[tuple[Replica, Reason]]:
    """Those that should go, and those that go already: they are counted out. What another autoscaler takes needs no
    step of ours; what a rollout replaces goes by ours in every pool."""
    chosen, pools = dict(placement.leaving), fleet.pool_by_name
    for replica in fleet.replicas:
        if replica.name in chosen:
            yield replica, chosen[replica.name]
        elif replica.pool not in pools or replica.state is not ReplicaState.LEAVING:
            continue
        elif replica.is_superseded:
            yield replica, Reason("superseded", replica.detail)
        elif pools[replica.pool].is_scaled_by_us:
            yield replica, Reason("replica_spare", replica.detail or "it was leaving when this tick began")


def _why_the_newer_fails(observation: Observation, pool: str) -> str:
    """A newer replica that holds nothing and could not load what it was to hold; empty: there is none."""
    fleet = observation.fleet
    filled = {copy.replica for copy in fleet.copies if copy.state in FILLED}
    ready = {r.name for r in fleet.replicas if r.pool == pool and r.state is ReplicaState.READY}
    failures = [f for f in observation.load_failures if f.replica in ready - filled]
    return ", ".join(f"{failure.replica} could not load {failure.model}" for failure in failures)


def _why_it_stays(copy: Copy, fleet: Fleet, last: dict[CopyKey, Step]) -> str:
    if copy.model not in fleet.model_by_name:
        return f"{copy.model} is not ours to unload"
    step = last.get((copy.model, copy.replica))
    is_unloaded = step is not None and step.kind is StepKind.UNLOAD
    stays = not is_unloaded if copy.state in FILLED else copy.is_routed and step is None
    return f"{copy.model} is still {copy.state}" if stays else ""
