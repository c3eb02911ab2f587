"""Steps that change what share of a model's requests each copy gets: free, and none overloads a replica on the way."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from tasks.decision import Hold, Placement, Reason, Sizing, Step, StepKind
from tasks.world import Fleet

SAME = 0.005
"""Weights, 1 on average, that differ by less are the same: what a gateway keeps of them is rounded."""
SPARE = 1e-9
"""Sums of floats are compared with it."""

Weights = Mapping[str, float]
"""By replica."""


def weigh_steps(
    fleet: Fleet, placement: Placement, sizings: Sequence[Sizing], moves: Sequence[Step], first: int
) -> tuple[tuple[Step, ...], tuple[Hold, ...]]:
    """A step for each model whose shares should change, ids from ``first`` on; a hold for each that must wait.

    All of its copies must serve, or be routed by ``moves``, which it then waits for. A step may fail while another is
    done: so no replica may be asked for more than its compute, or than now, if only those are done that add to it.
    """
    if not fleet.splits_by_weight:
        return (), ()
    ledger, found, held = _Ledger(fleet, sizings), list[Step](), list[Hold]()
    routes = {(step.model, step.replica): step.id for step in moves if step.kind is StepKind.ROUTE}
    for model, wanted in _wanted(placement).items():
        needs = tuple(sorted(routes[model, replica] for replica in wanted if (model, replica) in routes))
        was = ledger.weights_now(model, [replica for replica in wanted if (model, replica) in routes])
        stays = {replica: was[replica] for replica in wanted if replica in was}
        if len(wanted) < 2 or ledger.is_held(model) or _is_same(stays, {r: wanted[r] for r in stays}):
            continue
        missing = sorted(wanted.keys() - was.keys())
        reason = (placement.weight_reasons or {}).get(model) or Reason("weighed", "shares of the copies that are to be")
        why = f"{', '.join(missing)} first" if missing else ledger.refusal(model, was, {**was, **wanted})
        if why:
            held.append(Hold(f"model:{model}", Reason("weights_wait", why)))
            continue
        weights = tuple(sorted(wanted.items()))
        found.append(Step(first + len(found), StepKind.WEIGH, reason, model, weights=weights, needs=needs))
    return tuple(found), tuple(held)


def _wanted(placement: Placement) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for assignment in placement.assignments:
        found.setdefault(assignment.model, {})[assignment.replica] = assignment.weight
    return dict(sorted(found.items()))


def _rates(rps: float, weights: Weights) -> Weights:
    """By replica, requests a second of so many."""
    total = sum(weights.values())
    return {replica: rps * weight / total for replica, weight in weights.items()}


def _is_same(one: Weights, other: Weights) -> bool:
    """Whether they split requests alike; weights of the same replicas."""
    mean_one, mean_other = (sum(weights.values()) / max(1, len(weights)) for weights in (one, other))
    return all(abs(one[replica] / mean_one - other[replica] / mean_other) < SAME for replica in one)


class _Ledger:
    """Device-seconds a second that each replica's copies are asked for, and what the steps taken up may add."""

    def __init__(self, fleet: Fleet, sizings: Sequence[Sizing]) -> None:
        self._sizings = {sizing.model: sizing for sizing in sizings}
        self._models, self._replicas = fleet.model_by_name, fleet.replica_by_name
        self._serving: dict[str, dict[str, float]] = {}
        for copy in fleet.copies:
            if copy.is_serving and copy.replica in self._replicas:
                self._serving.setdefault(copy.model, {})[copy.replica] = copy.weight
        self._asked: Counter[str] = Counter()
        self._added: Counter[str] = Counter()
        for model, weights in self._serving.items():
            self._asked.update(self._split(model, weights))

    def is_held(self, model: str) -> bool:
        return model not in self._sizings or self._sizings[model].is_held

    def weights_now(self, model: str, coming: Sequence[str]) -> dict[str, float]:
        """Of the copies that serve, and of those that come, which weigh 1."""
        return dict.fromkeys(coming, 1.0) | self._serving.get(model, {})

    def refusal(self, model: str, was: Weights, then: Weights) -> str:
        """Why the weights cannot change now; empty: they can, and what that may add is noted."""
        if over := self._over_capacity(model, was, then):
            return over
        before, after = self._split(model, was), self._split(model, then)
        added = {replica: after[replica] - before[replica] for replica in then if after[replica] > before[replica]}
        for replica, more in added.items():
            asked, compute = self._asked[replica], self._replicas[replica].compute
            most = asked + self._added[replica] + more
            if most > max(asked, compute) + SPARE:
                return f"{replica} could be asked for {most:.2f} of {compute:.2f} device-seconds a second"
        self._added.update(added)
        return ""

    def _over_capacity(self, model: str, was: Weights, then: Weights) -> str:
        """Which copy would get more than it can serve and than now; none where all are too few, and the worst gets by
        these weights less than it does now."""
        sizing = self._sizings[model]
        gpu_type = {replica: self._replicas[replica].gpu_type for replica in then}
        capacity = {r: sizing.capacity_rps_by_gpu_type.get(gpu, math.inf) for r, gpu in gpu_type.items()}
        now, wanted = (_rates(sizing.demand_rps or 0.0, weights) for weights in (was, then))
        worst = max(now[replica] / max(capacity[replica], SPARE) for replica in then)
        if max(wanted[replica] / max(capacity[replica], SPARE) for replica in then) < worst - SAME:
            return ""
        for replica in then:
            if wanted[replica] > max(capacity[replica], now[replica]) * (1 + SAME):
                return f"{replica} would get {wanted[replica]:.3g} req/s, a copy may take {capacity[replica]:.3g}"
        return ""

    def _split(self, model: str, weights: Weights) -> dict[str, float]:
        """By replica, the model's device-seconds a second; of unknown demand each copy counts with all it may take."""
        sizing, total = self._sizings.get(model), sum(weights.values())
        if sizing is None or model not in self._models:
            return dict.fromkeys(weights, 0.0)
        found = {}
        for replica, weight in weights.items():
            gpu_type = self._replicas[replica].gpu_type
            need = self._models[model].need_by_gpu_type.get(gpu_type)
            rate = sizing.capacity_rps_by_gpu_type.get(gpu_type, 0.0)
            if sizing.demand_rps is not None:
                rate = sizing.demand_rps * weight / total
            found[replica] = rate * sizing.device_s(need, gpu_type) if need else 0.0
        return found
