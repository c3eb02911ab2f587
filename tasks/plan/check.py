"""The independent checker of plans: whether a rail breaks, whatever happens between a plan's first step and its last.

A step starts once every step it needs is done, replicas work in parallel, and any step may fail. So what is done at
some instant is any set of steps that holds, with each step, all that it needs: the order in which a plan lists its
steps means nothing. This shares no code with what writes plans.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter

from tasks.decision import Placement, Plan, Sizing, Step, StepKind
from tasks.plan.case import FILLED, Case, grouped, is_sound, most_unpaid
from tasks.plan.shares import shares
from tasks.world import Limits, Observation, ReplicaState

READY, LEAVING = ReplicaState.READY, ReplicaState.LEAVING
STATES_BY_KIND = {
    StepKind.LOAD: (READY,),
    StepKind.ROUTE: (READY,),
    StepKind.DRAIN: (READY, LEAVING),
    StepKind.UNLOAD: (READY, LEAVING),
    StepKind.SCALE_DOWN: (READY, LEAVING),
}
"""States in which a replica lets the step be done. To be unrouted it need not even be there; to go it must be able to
say that it is empty."""


def check(
    plan: Plan, observation: Observation, placement: Placement, sizings: Sequence[Sizing], limits: Limits
) -> tuple[str, ...]:
    """The rails that the plan could break, each in one line with its arithmetic; empty: it keeps them all.

    Memory is a replica's full memory: headroom is the placement's matter. A model without a sizing is one whose demand
    is unknown. A plan that is not well formed is judged no further.
    """
    steps = tuple(sorted(plan.steps, key=lambda step: step.id))
    if ill := tuple(_ids(steps)) or tuple(_circle(steps)):
        return ill
    case = Case(steps, observation.fleet, placement, {sizing.model: sizing for sizing in sizings}, limits)
    return tuple(_names(case)) or tuple(broken for rule in RULES for broken in rule(case))


def _ids(steps: Iterable[Step]) -> Iterator[str]:
    count_by_id = Counter(step.id for step in steps)
    yield from (f"id {step}: {count} steps have it" for step, count in count_by_id.items() if count > 1)
    for step in steps:
        if missing := [need for need in step.needs if need not in count_by_id]:
            yield f"{_name(step)}: needs {_ids_text(missing)}, which the plan does not have"


def _circle(steps: Iterable[Step]) -> Iterator[str]:
    try:
        TopologicalSorter({step.id: step.needs for step in steps}).prepare()
    except CycleError as error:
        yield f"{_ids_text(sorted(set(error.args[1])))}: their needs form a circle"


def _names(case: Case) -> Iterator[str]:
    """Steps name models that are managed, replicas and pools that there are; what is routed may have gone."""
    models, pools, routed = case.fleet.model_by_name, case.fleet.pool_by_name, {c.replica for c in case.fleet.copies}
    for step in case.steps:
        if step.kind is StepKind.SCALE_UP:
            if step.pool not in pools:
                yield f"{_name(step)}: there is no pool {step.pool!r}"
            continue
        if step.kind is not StepKind.SCALE_DOWN and step.model not in models:
            yield f"{_name(step)}: model {step.model!r} is not managed"
        if step.kind is StepKind.WEIGH:
            continue  # what its weights name is judged with them
        is_known = step.replica in case.replica_by_name
        if not is_known and not (step.kind is StepKind.UNROUTE and step.replica in routed):
            yield f"{_name(step)}: there is no replica {step.replica!r}"


def _states(case: Case) -> Iterator[str]:
    for step in case.steps:
        states = STATES_BY_KIND.get(step.kind)
        if states and (state := case.replica_by_name[step.replica].state) not in states:
            yield f"{_name(step)}: the replica is {state}, not {' or '.join(states)}"


def _twice(case: Case) -> Iterator[str]:
    """The same thing is done once; what is undone and done again is undone first."""
    for (kind, *_), steps in grouped(case.steps, lambda s: (s.kind, s.model, s.replica, s.pool)).items():
        if len(steps) > 1:
            yield f"{_ids_text([s.id for s in steps])}: {kind} the same, {steps[0]}"
    for done, undone in ((StepKind.LOAD, StepKind.UNLOAD), (StepKind.ROUTE, StepKind.UNROUTE)):
        for step in case.of(done):
            if case.has(undone, step) and not case.is_after(step, undone):
                yield f"{_name(step)}: it does not need the {undone} of the same copy, which could come after it"


def _placed(case: Case) -> Iterator[str]:
    """A plan carries out its placement, and what is there, good and wanted stays."""
    leaving = {name for name, _ in case.placement.leaving}
    for step in case.steps:
        is_wanted, copy = (step.model, step.replica) in case.wanted, case.copy_of(step)
        if step.kind in (StepKind.LOAD, StepKind.ROUTE) and not is_wanted:
            yield f"{_name(step)}: the placement does not have it there"
        if step.kind in (StepKind.UNROUTE, StepKind.UNLOAD) and is_wanted and is_sound(copy):
            yield f"{_name(step)}: it is ready, and the placement has it there"
        if step.kind is StepKind.SCALE_DOWN and step.replica not in leaving and not case.is_leaving(step):
            yield f"{_name(step)}: the placement does not let it go"


def _memory(case: Case) -> Iterator[str]:
    """What is there and what is loaded fits, whichever of the other steps are done; memory is free once unloaded. In a
    replica that is overfull already, or holds what has no known footprint, nothing may become worse."""
    unloads_by_replica = grouped(case.of(StepKind.UNLOAD), lambda s: s.replica)
    for name, loads in grouped(case.of(StepKind.LOAD), lambda s: s.replica).items():
        there = {c.model: case.footprint_bytes(c.model, name) for c in case.copies_in(name) if c.state in FILLED}
        taken = {s: case.footprint_bytes(s.model, name) for s in loads}
        gains = {s.id: n or 0 for s, n in taken.items() if s.model not in there or case.has(StepKind.UNLOAD, s)}
        costs = {s.id: there[s.model] or 0 for s in unloads_by_replica.get(name, ()) if s.model in there}
        peak, before = most_unpaid(gains, costs, case.before), sum(n or 0 for n in there.values())
        unknown = [s.model for s, n in taken.items() if n is None]
        unknown += [model for model, n in there.items() if n is None and peak]
        if unknown:
            yield f"{_names_text(loads)}: the footprint of {', '.join(sorted(unknown))} in {name} is not known"
        elif peak and before + peak > (memory := case.replica_by_name[name].memory_bytes):
            yield (
                f"{_names_text(loads)}: {_mb(before)} there + {_mb(sum(gains.values()))} loaded - "
                f"{_mb(sum(gains.values()) - peak)} surely unloaded before = {_mb(before + peak)} > {_mb(memory)} "
                f"of {name}"
            )


def _routes(case: Case) -> Iterator[str]:
    for step in case.of(StepKind.ROUTE):
        if case.is_after(step, StepKind.LOAD):
            continue
        copy = case.copy_of(step)
        if not is_sound(copy) or case.has(StepKind.UNLOAD, step):
            is_so = "failing" if copy.is_failing else copy.state
            yield f"{_name(step)}: the copy is {is_so}, and it does not need its load"


def _drains(case: Case) -> Iterator[str]:
    for step in case.of(StepKind.DRAIN):
        if case.copy_of(step).is_routed and not case.is_after(step, StepKind.UNROUTE):
            yield f"{_name(step)}: the copy is routed, and it does not need its unroute"


def _unloads(case: Case) -> Iterator[str]:
    for step in case.of(StepKind.UNLOAD):
        copy = case.copy_of(step)
        if copy.is_routed and not case.is_after(step, StepKind.UNROUTE):
            yield f"{_name(step)}: the copy is routed, and it does not need its unroute"
        elif copy.is_serving and not case.is_after(step, StepKind.DRAIN):
            yield f"{_name(step)}: the copy is serving, and it does not need its drain"


def _emptied(case: Case) -> Iterator[str]:
    """A replica goes once nothing is in it and no request is sent to it."""
    for step in case.of(StepKind.SCALE_DOWN):
        for copy in case.copies_in(step.replica):
            if copy.state in FILLED and not case.is_after(step, StepKind.UNLOAD, copy.model):
                yield f"{_name(step)}: {copy.model} is {copy.state} there, and it does not need its unload"
            if copy.is_routed and not case.is_after(step, StepKind.UNROUTE, copy.model):
                yield f"{_name(step)}: {copy.model} is routed there, and it does not need its unroute"
        for other in case.steps:
            if other.replica == step.replica and other.kind in (StepKind.LOAD, StepKind.ROUTE):
                yield f"{_name(step)}: step {other.id} {other.kind}s {other.model} there"


def _serving(case: Case) -> Iterator[str]:
    """Serving copies go only after others came: none of a model whose demand is unknown; of one that has demand never
    the last, and no more than the placement spares."""
    routes_by_model = grouped(case.of(StepKind.ROUTE), lambda s: s.model)
    placed_by_model = Counter(model for model, _ in case.wanted)
    for model, unroutes in grouped(case.of(StepKind.UNROUTE), lambda s: s.model).items():
        lost = {s.id: 1 for s in unroutes if case.copy_of(s).is_serving}
        won = {s.id: 1 for s in routes_by_model.get(model, ())}
        now, sizing = case.serving_by_model[model], case.sizing_by_model.get(model)
        left = now - most_unpaid(lost, won, case.before)
        text = f"{_names_text([s for s in unroutes if s.id in lost])}: could leave {left} of {now} serving, "
        if sizing is None or sizing.demand_rps is None:
            if left < now:
                yield f"{text}while the demand of {model} is unknown"
        elif sizing.demand_rps > 0 and left < min(now, 1):
            yield f"{text}while the demand of {model} is {sizing.demand_rps:g} req/s"
        elif sizing.demand_rps > 0 and left < min(now, placed := placed_by_model[model]):
            yield f"{text}while the placement has {placed}"


def _budget(case: Case) -> Iterator[str]:
    loads, unloads = (len(list(case.of(kind))) for kind in (StepKind.LOAD, StepKind.UNLOAD))
    if loads + unloads > (budget := case.limits.budget):
        yield f"{loads} loads + {unloads} unloads = {loads + unloads} > {budget}, the budget"


def _scaling(case: Case) -> Iterator[str]:
    """The counts of our own pools only, one way in a tick, within their limits."""
    pools, ups = case.fleet.pool_by_name, {step.pool: step for step in case.of(StepKind.SCALE_UP)}
    downs = grouped(case.of(StepKind.SCALE_DOWN), lambda s: case.replica_by_name[s.replica].pool)
    for name in {**ups, **downs}:
        pool, up, down = pools[name], ups.get(name), downs.get(name, [])
        steps = _names_text([*([up] if up else []), *down])
        fewer = sum(not case.is_leaving(step) for step in down)  # the others are counted out already
        if not pool.is_scaled_by_us and (up or fewer):
            yield f"{steps}: another autoscaler owns the count of pool {name}"
        if up and fewer:
            yield f"{steps}: pool {name} both grows and shrinks"
        if up and up.count > max(pool.max_replicas, pool.replicas):
            yield f"{steps}: {up.count} > {pool.max_replicas}, the most of pool {name}, which has {pool.replicas}"
        if up and up.count <= pool.replicas:
            yield f"{steps}: pool {name} has {pool.replicas} already"
        if fewer and pool.replicas - fewer < pool.min_replicas:
            yield f"{steps}: {pool.replicas} - {fewer} < {pool.min_replicas}, the least of pool {name}"


RULES: tuple[Callable[[Case], Iterator[str]], ...] = (
    _states,
    _twice,
    _placed,
    _memory,
    _routes,
    _drains,
    _unloads,
    _emptied,
    _serving,
    _budget,
    _scaling,
    shares,
)


def _name(step: Step) -> str:
    return f"step {step.id} ({step})"


def _names_text(steps: Iterable[Step]) -> str:
    return ", ".join(map(_name, steps))


def _ids_text(ids: Sequence[int]) -> str:
    return f"step{'s' if len(ids) > 1 else ''} {', '.join(map(str, ids))}"


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.9g} MB"
