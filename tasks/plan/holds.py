"""What is left undone in this tick, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from tasks.decision import Hold, Placement, Reason
from tasks.plan.changes import Change
from tasks.world import CopyState, Fleet, ReplicaState


def refused(reason_by_change: Mapping[Change, Reason]) -> Iterator[Hold]:
    """One a change that is not taken up."""
    for change, reason in reason_by_change.items():
        what = f"{'to' if change.is_coming else 'out of'} {change.replica}"
        yield Hold(f"model:{change.model}", Reason(reason.code, f"{what}: {reason.text}"))


def waiting(fleet: Fleet, placement: Placement) -> Iterator[Hold]:
    """Copies whose replica is not there yet, one hold a replica; replicas that cannot be read; copies under way; pools
    with less memory than declared."""
    yield from (Hold(f"pool:{pool.name}", Reason("less_memory", pool.detail)) for pool in fleet.pools if pool.detail)
    replicas = fleet.replica_by_name
    models_by_replica: defaultdict[str, list[str]] = defaultdict(list)
    for assignment in placement.assignments:
        replica = replicas.get(assignment.replica)
        if replica is None or replica.state is ReplicaState.STARTING:
            models_by_replica[assignment.replica].append(assignment.model)
    for name, models in models_by_replica.items():
        detail = replicas[name].detail if name in replicas else "it is asked for first"
        subject = f"replica:{name}" if name in replicas else f"pool:{name.rpartition('+')[0]}"
        text = f"{', '.join(models)} wait for {name}{': ' if detail else ''}{detail}"
        yield Hold(subject, Reason("replica_starting", text))
    for replica in fleet.replicas:
        if replica.state is ReplicaState.UNREACHABLE:
            held = ", ".join(copy.model for copy in fleet.copies_in(replica.name)) or "nothing that is known"
            text = f"{replica.detail or 'cannot be read'}; it held {held}"
            yield Hold(f"replica:{replica.name}", Reason("replica_unreachable", text))
    wanted = {(assignment.model, assignment.replica) for assignment in placement.assignments}
    ours = fleet.model_by_name
    for copy in fleet.copies:
        is_ours = copy.model in ours and (copy.model, copy.replica) not in wanted
        if is_ours and copy.state is CopyState.LOADING:
            yield Hold(
                f"model:{copy.model}", Reason("busy", f"a load that nobody wants is under way in {copy.replica}")
            )
