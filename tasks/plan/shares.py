"""The checker's rule for weights: what each replica is asked for, now and with any of the plan's new shares."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from tasks.decision import Step, StepKind
from tasks.plan.case import Case

ROUNDED = 0.01
"""Of a copy's rate: what a gateway keeps of weights is rounded."""

Shares = Mapping[str, float]
"""By replica, of one model's requests; they sum to 1."""


def shares(case: Case) -> Iterator[str]:
    """Weights name copies that serve by then, of a model whose demand is known. Whichever of the steps are done, no
    replica is asked for more than its compute and than it is asked for now; no copy for more than its capacity and than
    it gets now, unless the one that is furthest over its own gets nearer to it."""
    steps = list(case.of(StepKind.WEIGH))
    if ill := [broken for step in steps for broken in _ill(case, step)]:
        yield from ill
        return
    asked: dict[str, float] = {}
    for model, weights in case.weights_by_model.items() if steps else ():
        for replica, share in _shares(weights).items():
            asked[replica] = asked.get(replica, 0.0) + _device(case, model, replica, share)
    most = dict(asked)
    for step in steps:
        weights = _weights(case, step)
        now, then = _shares(weights), _shares(weights | dict(step.weights))
        for replica, share in then.items():
            more = _device(case, step.model, replica, share) - _device(case, step.model, replica, now[replica])
            most[replica] = most.get(replica, 0.0) + max(0.0, more)
        yield from _capacity(case, step, now, then)
    for replica in sorted(most):
        compute, before = case.replica_by_name[replica].compute, asked.get(replica, 0.0)
        if most[replica] > max(compute, before) + 1e-6:
            ids = ", ".join(str(step.id) for step in steps)
            yield f"steps {ids}: {replica} could be asked for {most[replica]:.3f} > {compute:g}, now {before:.3f}"


def _ill(case: Case, step: Step) -> Iterator[str]:
    name, sizing = f"step {step.id} ({step})", case.sizing_by_model.get(step.model)
    if not case.fleet.splits_by_weight:
        yield f"{name}: the gateway splits requests evenly"
    if sizing is None or sizing.demand_rps is None:
        yield f"{name}: the demand of {step.model} is unknown"
    if bad := [weight for _, weight in step.weights if not 0 < weight < math.inf]:
        yield f"{name}: {bad[0]} is no weight"
    serving = _weights(case, step)
    for replica, _ in step.weights:
        if replica not in serving:
            yield f"{name}: no copy serves in {replica}, and it does not need a route there"
        elif (step.model, replica) not in case.wanted:
            yield f"{name}: the placement has none in {replica}"


def _capacity(case: Case, step: Step, now: Shares, then: Shares) -> Iterator[str]:
    sizing = case.sizing_by_model[step.model]
    capacity = {
        replica: sizing.capacity_rps_by_gpu_type.get(case.replica_by_name[replica].gpu_type, math.inf)
        for replica in then
    }
    rps = sizing.demand_rps or 0.0
    over_now, over_then = (
        {replica: rps * share[replica] / max(capacity[replica], 1e-9) for replica in then} for share in (now, then)
    )
    if max(over_then.values()) < max(over_now.values()):
        return
    for replica, over in over_then.items():
        if over > max(1.0, over_now[replica]) * (1 + ROUNDED):
            before = f"{rps * now[replica]:.3g}"
            got = f"{rps * then[replica]:.3g} req/s > {capacity[replica]:.3g} of a copy in {replica}"
            yield f"step {step.id} ({step}): {got}, which gets {before}"


def _weights(case: Case, step: Step) -> dict[str, float]:
    """By replica just before the step, with the copies whose routes it waits for: these come with weight 1."""
    before = case.before[step.id]
    routes = (s for s in case.steps if s.id in before and s.kind is StepKind.ROUTE and s.model == step.model)
    return {s.replica: 1.0 for s in routes} | case.weights_by_model.get(step.model, {})


def _shares(weights: Mapping[str, float]) -> Shares:
    total = sum(weights.values())
    return {replica: weight / total for replica, weight in weights.items()}


def _device(case: Case, model: str, replica: str, share: float) -> float:
    """Device-seconds a second that the copy is asked for; of unknown demand what it may take."""
    gpu_type, sizing = case.replica_by_name[replica].gpu_type, case.sizing_by_model.get(model)
    need = case.need_of(model, gpu_type)
    if sizing is None or need is None:
        return 0.0
    capacity = sizing.capacity_rps_by_gpu_type.get(gpu_type, 0.0)
    rate = capacity if sizing.demand_rps is None else sizing.demand_rps * share
    return rate * sizing.device_s(need, gpu_type)
