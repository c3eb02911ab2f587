"""When a tick should end before its plan is done: it may act no more, or there is something more urgent to do."""

from __future__ import annotations

import time
from collections.abc import Callable

from tasks.decision import Plan, StepKind
from tasks.fleets import FleetUnreadableError, LiveFleet
from tasks.world import Observation, ReplicaState

LOOK_S = 1.0
"""Between two looks at the fleet: seldom enough for a list of all pods, soon enough beside the seconds that a new tick
and a load take."""
GONE = (None, ReplicaState.STARTING)
"""States, of a replica that was ready, that mean that what it had loaded is lost: it is not there, it starts again."""


class Stop:
    """Why no further step starts, and why one that only waits ends its wait. One thread looks, any may read ``why``.

    A model whose last copies were lost is served again by the next tick, which plans anew; it comes the sooner, the
    sooner this one ends. What has begun goes on without us: the next tick sees it in Triton's index.
    """

    def __init__(self, plan: Plan, live: LiveFleet, observation: Observation, should_stop: Callable[[], bool]) -> None:
        self._live, self._observation, self._should_stop = live, observation, should_stop
        fleet = observation.fleet
        going = {step.replica for step in plan.steps if step.kind is StepKind.SCALE_DOWN}
        self._ready = {r.name for r in fleet.replicas if r.state is ReplicaState.READY} - going
        self._carried: dict[str, set[str]] = {}
        for copy in fleet.copies:
            if copy.is_serving and copy.replica in self._ready:
                self._carried.setdefault(copy.replica, set()).add(copy.model)
        self._looked_at = time.monotonic()
        self._doubtful: set[str] = set()
        self.why = ""
        """Empty: go on. Once there is a reason it stays."""

    def look(self) -> str:
        """``why``, after a look at whether it is still so; at the fleet at most once in ``LOOK_S``."""
        if not self.why and self._should_stop():
            self.why = "this run may act no more"
        if not self.why and self._carried and time.monotonic() - self._looked_at >= LOOK_S:
            self.why = self._unserved()
            self._looked_at = time.monotonic()
        return self.why

    def _unserved(self) -> str:
        """What was lost, and with it a model's last copy; a fleet that cannot be read says nothing of it."""
        try:
            state_by_name = {r.name: r.state for r in self._live.replicas()}
            lost = {name for name in self._ready if self._is_lost(name, state_by_name.get(name))}
            if not lost & self._carried.keys():
                return ""
            routes = self._live.routes()
        except (FleetUnreadableError, OSError):
            return ""
        for name in sorted(lost & self._carried.keys()):
            for model in sorted(self._carried[name]):
                if not routes.get(model, frozenset()) - lost and self._observation.has_demand(model):
                    return f"replica {name} was lost with the last copy of {model}: the next tick repairs that first"
        return ""

    def _is_lost(self, name: str, state: ReplicaState | None) -> bool:
        """One that answers nothing is given a second chance: a machine out of breath is no lost replica."""
        is_silent = state is ReplicaState.UNREACHABLE
        was_doubtful = name in self._doubtful
        (self._doubtful.add if is_silent else self._doubtful.discard)(name)
        return state in GONE or (is_silent and was_doubtful)
