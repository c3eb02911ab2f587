"""What the checker judges: the plan, the fleet as it is, and what must be done before what."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from typing import TypeVar

from tasks.decision import Placement, Sizing, Step, StepKind
from tasks.world import Copy, CopyState, Fleet, Limits, Model, Need, Replica, ReplicaState

FILLED = (CopyState.LOADING, CopyState.READY, CopyState.UNLOADING)
"""States in which a copy takes memory."""
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Case:
    """A well-formed plan, and what it is judged by."""

    steps: tuple[Step, ...]
    fleet: Fleet
    placement: Placement
    sizing_by_model: Mapping[str, Sizing]
    limits: Limits

    @cached_property
    def replica_by_name(self) -> dict[str, Replica]:
        return self.fleet.replica_by_name

    @cached_property
    def serving_by_model(self) -> Counter[str]:
        return Counter(copy.model for copy in self.fleet.copies if copy.is_serving)

    @cached_property
    def weights_by_model(self) -> dict[str, dict[str, float]]:
        """By replica, of the copies that serve now."""
        found: dict[str, dict[str, float]] = {}
        for copy in self.fleet.copies:
            if copy.is_serving and copy.replica in self.replica_by_name:
                found.setdefault(copy.model, {})[copy.replica] = copy.weight
        return found

    @cached_property
    def wanted(self) -> frozenset[tuple[str, str]]:
        """(model, replica) of the copies that should be."""
        return frozenset((a.model, a.replica) for a in self.placement.assignments)

    @cached_property
    def before(self) -> dict[int, frozenset[int]]:
        """Steps that must be done before each one starts: its needs, and theirs."""
        step_by_id = {step.id: step for step in self.steps}
        found: dict[int, frozenset[int]] = {}
        for step in TopologicalSorter({step.id: step.needs for step in self.steps}).static_order():
            needs = step_by_id[step].needs
            found[step] = frozenset(needs).union(*(found[need] for need in needs))
        return found

    def of(self, kind: StepKind) -> Iterator[Step]:
        return (step for step in self.steps if step.kind is kind)

    def has(self, kind: StepKind, step: Step) -> bool:
        """Whether the plan has a step of that kind for the step's model and replica."""
        return (kind, step.model, step.replica) in self._id_by_work

    def is_after(self, step: Step, kind: StepKind, model: str = "") -> bool:
        """Whether the step waits for one of that kind, of its model (or the one named) in its replica."""
        return self._id_by_work.get((kind, model or step.model, step.replica)) in self.before[step.id]

    def copies_in(self, replica: str) -> list[Copy]:
        return self._copies_by_replica.get(replica, [])

    def copy_of(self, step: Step) -> Copy:
        """The copy that the step is about, as it is now: absent and not routed when there is none."""
        found = (copy for copy in self.copies_in(step.replica) if copy.model == step.model)
        return next(found, Copy(step.model, step.replica, CopyState.ABSENT))

    def is_leaving(self, step: Step) -> bool:
        """Whether the step's replica is going already."""
        return self.replica_by_name[step.replica].state is ReplicaState.LEAVING

    def footprint_bytes(self, model: str, replica: str) -> int | None:
        """None: not known."""
        need = self.need_of(model, self.replica_by_name[replica].gpu_type)
        return need.footprint_bytes if need else None

    def need_of(self, model: str, gpu_type: str) -> Need | None:
        managed = self._model_by_name.get(model)
        return managed.need_by_gpu_type.get(gpu_type) if managed else None

    @cached_property
    def _model_by_name(self) -> dict[str, Model]:
        return self.fleet.model_by_name

    @cached_property
    def _id_by_work(self) -> dict[tuple[StepKind, str, str], int]:
        return {(step.kind, step.model, step.replica): step.id for step in self.steps}

    @cached_property
    def _copies_by_replica(self) -> dict[str, list[Copy]]:
        touched = {step.replica for step in self.steps}
        return grouped((copy for copy in self.fleet.copies if copy.replica in touched), lambda copy: copy.replica)


def is_sound(copy: Copy) -> bool:
    """It answers requests, once they are sent to it."""
    return copy.state is CopyState.READY and not copy.is_failing


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    found: dict[K, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def most_unpaid(gains: Mapping[int, int], costs: Mapping[int, int], before: Mapping[int, frozenset[int]]) -> int:
    """The most by which the gains of the steps that are done can exceed their costs, at any instant of any order.

    ``gains`` and ``costs`` are weights by step id: bytes loaded and unloaded in a replica, copies unrouted and routed.
    A gain counts from its step's start, a cost only when its step is surely done: when a gain's step waits for it. The
    worst set of steps is a maximum closure, whose weight is the sum of the gains less the largest flow from them to
    the costs that they wait for (Picard, Management Science 22, 1976). Loads of 3 and 4, the second after an unload of
    5: 3 + 4 - 4 = 3.
    """
    unpaid, left = dict(gains), dict(costs)
    flow: Counter[tuple[int, int]] = Counter()
    while path := _path(unpaid, left, flow, before):
        amount = min(unpaid[path[0]], left[path[-1]], *(flow[g, c] for c, g in _pairs(path[1:-1])))
        unpaid[path[0]] -= amount
        left[path[-1]] -= amount
        for gain, cost in _pairs(path):
            flow[gain, cost] += amount
        for cost, gain in _pairs(path[1:-1]):
            flow[gain, cost] -= amount
    return sum(unpaid.values())


def _path(
    unpaid: Mapping[int, int],
    left: Mapping[int, int],
    flow: Mapping[tuple[int, int], int],
    before: Mapping[int, frozenset[int]],
) -> list[int]:
    """The shortest way from an unpaid gain to a cost that is left: gain, cost, gain, ..., cost. Empty: none."""
    came_from: dict[int, int | None] = {gain: None for gain, amount in unpaid.items() if amount}
    queue = deque(came_from)
    while queue:
        node = queue.popleft()
        if left.get(node):
            return _back(node, came_from)
        following = before[node] & left.keys() if node in unpaid else (g for g in unpaid if flow[g, node])
        for other in following:
            if other not in came_from:
                came_from[other] = node
                queue.append(other)
    return []


def _back(node: int | None, came_from: Mapping[int, int | None]) -> list[int]:
    path: list[int] = []
    while node is not None:
        path.append(node)
        node = came_from[node]
    return path[::-1]


def _pairs(path: list[int]) -> Iterator[tuple[int, int]]:
    return zip(path[::2], path[1::2], strict=True)
