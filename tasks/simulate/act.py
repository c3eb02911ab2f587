"""Executes a plan on the simulated fleet, as ``tasks.act`` does on a real one: by needs, one step a lane."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.decision import Plan, Step, StepKind
from tasks.simulate.fleet import ImpossibleError, SimulatedFleet
from tasks.simulate.tables import READY


@dataclass(slots=True, eq=False)
class Hands:
    """A plan under way. The steps of a replica follow each other; a failed step stops what needs it."""

    fleet: SimulatedFleet
    plan: Plan
    act_s: float
    done: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    waiting: list[Step] = field(default_factory=list)
    running: dict[str, int] = field(default_factory=dict)
    """Step by lane."""
    model_by_name: dict[str, int] = field(default_factory=dict)
    pool_by_name: dict[str, int] = field(default_factory=dict)
    stop_at: float = 0.0

    def __post_init__(self) -> None:
        scenario = self.fleet.scenario
        self.model_by_name = {model.name: i for i, model in enumerate(scenario.models)}
        self.pool_by_name = {pool.name: i for i, pool in enumerate(scenario.pools)}
        self.waiting = list(self.plan.steps)
        self.stop_at = self.fleet.now + self.act_s
        self._go_on()

    @property
    def is_busy(self) -> bool:
        return bool(self.running)

    def _go_on(self) -> None:
        """Start what can start; each end of a step comes back here."""
        moved = True
        while moved and self.waiting:
            moved = False
            for step in list(self.waiting):
                lane = step.replica or (f"pool {step.pool}" if step.pool else f"model {step.model}")
                if self.fleet.now > self.stop_at or any(need in self.failed for need in step.needs):
                    self.waiting.remove(step)
                    self.failed.add(step.id)
                elif lane not in self.running and all(need in self.done for need in step.needs):
                    self.waiting.remove(step)
                    self._start(step, lane)
                    moved = True

    def _start(self, step: Step, lane: str) -> None:
        try:
            seconds = self._do(step)
        except ImpossibleError:
            self.failed.add(step.id)
            return
        if seconds <= 0:
            self.done.add(step.id)
            return
        self.running[lane] = step.id
        self.fleet.at(self.fleet.now + seconds, lambda: self._end(step, lane))

    def _end(self, step: Step, lane: str) -> None:
        del self.running[lane]
        self.done.add(step.id)
        self._go_on()

    def _do(self, step: Step) -> float:
        """Begin the step; the seconds that it takes.

        Raises:
            ImpossibleError: its precondition does not hold.
        """
        fleet, model = self.fleet, self.model_by_name.get(step.model, -1)
        if step.kind is StepKind.SCALE_UP:
            fleet.scale(self.pool_by_name[step.pool], step.count)
        elif step.kind is StepKind.WEIGH:
            fleet.weigh(model, {fleet.row_by_name.get(replica, -1): weight for replica, weight in step.weights})
        elif step.kind is StepKind.UNROUTE and (model, step.replica) in fleet.lost:
            fleet.lost.remove((model, step.replica))
        else:
            return self._do_there(step, model)
        return 0.0

    def _do_there(self, step: Step, model: int) -> float:
        """What is done in a replica."""
        fleet, costs = self.fleet, self.fleet.scenario.costs
        if (row := fleet.row_by_name.get(step.replica)) is None:
            raise ImpossibleError(f"replica {step.replica} is no longer there")
        if step.kind is StepKind.DRAIN:
            return costs.drain_s
        if step.kind is StepKind.LOAD:
            return self._load(model, row)
        if step.kind is StepKind.UNLOAD:
            fleet.unload(model, row)
            return costs.unload_s
        if step.kind is StepKind.SCALE_DOWN:
            if fleet.inside(row).size:
                raise ImpossibleError(f"replica {step.replica} is not empty")
            fleet.remove(row)
        else:
            fleet.route(model, row, step.kind is StepKind.ROUTE)
        return 0.0

    def _load(self, model: int, row: int) -> float:
        """The load's time; one that is under way or done already is not begun again."""
        fleet = self.fleet
        if (model, row) in fleet.row_by_copy:
            return fleet.scenario.costs.step_s
        if fleet.replicas.state[row] != READY:
            raise ImpossibleError("the replica is not ready")
        gpu_type = fleet.scenario.pools[int(fleet.replicas.pool[row])].gpu_type
        seconds = fleet.lasting(fleet.scenario.models[model].need_by_gpu_type[gpu_type].load_s)
        fleet.load(model, row, seconds, route=False)
        return seconds
