"""A plan played on a fleet of plain values: what the fleet is at each instant, and after success, failures or a kill.

The steps have no preconditions here: what the act phase would refuse to do is done, and seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from tasks.act.order import lane
from tasks.decision import Plan, Step, StepKind
from tasks.world import Copy, CopyState, Fleet, Pool, Replica, ReplicaState

FILLED = (CopyState.LOADING, CopyState.READY, CopyState.UNLOADING)


class World:
    """A fleet that steps change; ``fleet`` is its value now."""

    def __init__(self, fleet: Fleet) -> None:
        self._models, self._splits_by_weight = fleet.models, fleet.splits_by_weight
        self.pools = fleet.pool_by_name
        self.replicas = fleet.replica_by_name
        self.copies = {(copy.model, copy.replica): copy for copy in fleet.copies}

    @property
    def fleet(self) -> Fleet:
        copies = tuple(self.copies[key] for key in sorted(self.copies, key=lambda key: key[::-1]))
        pools, replicas = tuple(self.pools.values()), tuple(self.replicas.values())
        return Fleet(self._models, pools, replicas, copies, self._splits_by_weight)

    def start(self, step: Step) -> None:
        """What is so from the step's start on, whatever becomes of it."""
        copy = self._copy(step)
        match step.kind:
            case StepKind.LOAD if copy.state not in FILLED:
                self._set(replace(copy, state=CopyState.LOADING, is_failing=False))
            case StepKind.UNROUTE:
                self._set(replace(copy, is_routed=False, weight=1.0))
            case StepKind.UNLOAD if copy.state in FILLED:
                assert not copy.is_routed, f"{step}: requests are sent to it"
                self._set(replace(copy, state=CopyState.UNLOADING, is_failing=False))
            case StepKind.SCALE_DOWN:
                held = [copy for copy in self.copies.values() if copy.replica == step.replica]
                assert not held, f"{step}: {held}"
                self._leave(self.replicas[step.replica])

    def end(self, step: Step) -> None:
        """What is so once it is done."""
        copy = self._copy(step)
        match step.kind:
            case StepKind.SCALE_UP:
                self.pools[step.pool] = replace(self.pools[step.pool], replicas=step.count)
            case StepKind.LOAD if copy.state is not CopyState.READY:
                self._set(replace(copy, state=CopyState.READY))
            case StepKind.ROUTE:
                assert copy.state is CopyState.READY, f"{step}: it is {copy.state}"
                self._set(replace(copy, is_routed=True))
            case StepKind.WEIGH:
                for replica, weight in step.weights:
                    weighed = self.copies[step.model, replica]
                    assert weighed.is_routed, f"{step}: no request is sent to {replica}"
                    self._set(replace(weighed, weight=weight))
            case StepKind.UNLOAD:
                self._set(replace(copy, state=CopyState.ABSENT))
            case StepKind.SCALE_DOWN:
                del self.replicas[step.replica]

    def fail(self, step: Step, choice: Random) -> None:
        """A load may fail, or go on though it was given up; an unload that was asked for goes on."""
        copy = self._copy(step)
        if step.kind is StepKind.LOAD and copy.state is CopyState.LOADING and choice.random() < 0.5:
            self._set(replace(copy, state=CopyState.ABSENT))
        if step.kind is StepKind.UNROUTE:
            self._set(replace(copy, is_routed=True))

    def settle(self) -> None:
        """What is under way ends by itself before the next tick; pools get the replicas that they asked for."""
        for copy in list(self.copies.values()):
            if copy.state is CopyState.LOADING:
                self._set(replace(copy, state=CopyState.READY))
            if copy.state is CopyState.UNLOADING:
                self._set(replace(copy, state=CopyState.ABSENT))
        for replica in list(self.replicas.values()):
            if replica.state is ReplicaState.STARTING:
                self.replicas[replica.name] = replace(replica, state=ReplicaState.READY)
        for pool in self.pools.values():
            self._start_missing(pool)

    def is_settled(self) -> bool:
        is_moving = any(copy.state in (CopyState.LOADING, CopyState.UNLOADING) for copy in self.copies.values())
        return not is_moving and not any(r.state is ReplicaState.STARTING for r in self.replicas.values())

    def _start_missing(self, pool: Pool) -> None:
        there = [r for r in self.replicas.values() if r.pool == pool.name and r.state is not ReplicaState.LEAVING]
        free = (name for n in range(1000) if (name := f"{pool.name}-{n}") not in self.replicas)
        for _ in range(pool.replicas - len(there)):
            name = next(free)
            starting = ReplicaState.STARTING
            self.replicas[name] = Replica(
                name, pool.name, pool.gpu_type, pool.memory_bytes, pool.compute, starting, node=name
            )

    def _leave(self, replica: Replica) -> None:
        if replica.state is not ReplicaState.LEAVING:
            pool = self.pools[replica.pool]
            self.pools[pool.name] = replace(pool, replicas=pool.replicas - 1)
            self.replicas[replica.name] = replace(replica, state=ReplicaState.LEAVING)

    def _copy(self, step: Step) -> Copy:
        return self.copies.get((step.model, step.replica)) or Copy(step.model, step.replica, CopyState.ABSENT)

    def _set(self, copy: Copy) -> None:
        if copy.state is CopyState.ABSENT and not copy.is_routed:
            self.copies.pop((copy.model, copy.replica), None)
        else:
            self.copies[copy.model, copy.replica] = copy


def play(
    world: World,
    plan: Plan,
    choice: Random,
    watch: Callable[[World], None] = lambda _: None,
    failing: float = 0.0,
    kill_after: float = float("inf"),
) -> None:
    """Do the plan's steps in one of the orders in which the act phase could: by their needs, one at a time in a lane.

    ``choice`` picks the order; a step fails with the probability ``failing``, and what needs it is not started. After
    ``kill_after`` starts and ends everything stops as it is. ``watch`` sees the world after each start and end.
    """
    waiting = {step.id: step for step in plan.steps}
    running: list[Step] = []
    done: set[int] = set()
    count = 0
    while count < kill_after:
        busy = {lane(step) for step in running}
        ready = [s for s in waiting.values() if done.issuperset(s.needs) and lane(s) not in busy]
        if not ready and not running:
            return
        step = choice.choice([*ready, *running])
        count += 1
        if step in running:
            running.remove(step)
            if choice.random() < failing:
                world.fail(step, choice)
            else:
                world.end(step)
                done.add(step.id)
        else:
            del waiting[step.id]
            running.append(step)
            world.start(step)
        watch(world)
