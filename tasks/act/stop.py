"""When a tick should end before its plan is done: it may act no more, or there is something more urgent to do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from tasks.fleets import LiveFleet
from tasks.world import Observation, ReplicaState

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Between two looks at the fleet: seldom enough for a list of all pods, soon enough beside the seconds that a new tick
and a load take."""
ALIVE = (ReplicaState.READY, ReplicaState.LEAVING)
"""States of a replica in which requests that are sent to it are answered."""


class Stop:
    """Why no further step starts, and why one that only waits ends its wait. A context manager: it looks meanwhile.

    A model whose last copy was lost is served again by the next tick, which plans anew; it comes the sooner, the sooner
    this one ends. What has begun goes on without us: the next tick sees it in Triton's index.
    """

    def __init__(self, live: LiveFleet, observation: Observation, should_stop: Callable[[], bool]) -> None:
        self._losses, self._should_stop = Losses(live, observation), should_stop
        self._is_over = threading.Event()
        self.why = ""
        """Empty: go on. Once there is a reason it stays. Any thread may read it."""

    def __enter__(self) -> Stop:
        # aside: a fleet that does not answer holds up no step
        threading.Thread(target=self._watch, name="losses", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()

    def look(self) -> str:
        """``why``, once it was asked whether this run may still act."""
        if not self.why and self._should_stop():
            self.why = "this run may act no more"
        return self.why

    def _watch(self) -> None:
        while not self.why and not self._is_over.wait(LOOK_S):
            try:
                lost = self._losses.look()
            except Exception as error:  # who cannot look knows of no loss: the steps say what they meet
                log.debug("the fleet cannot be read while the tick acts: %s", error)
            else:
                self.why = self.why or lost


class Losses:
    """Which models lost their last serving copy after the tick observed."""

    def __init__(self, live: LiveFleet, observation: Observation) -> None:
        self._live, self._observation = live, observation
        fleet = observation.fleet
        self._managed = fleet.model_by_name.keys()
        self._served = self._by_model({(copy.model, copy.replica) for copy in fleet.copies if copy.is_serving})
        self._useless = {(copy.model, copy.replica) for copy in fleet.copies if copy.is_routed and not copy.is_serving}
        """Copies that are asked and do not answer, until they are unrouted."""
        self._lives = {replica.name: replica.life for replica in fleet.replicas if replica.life}
        self._doubtful: frozenset[str] = frozenset()

    def look(self) -> str:
        """What was lost; empty: nothing. Only what two looks in a row say: a machine out of breath is no lost replica.

        Raises:
            FleetUnreadableError, OSError: the fleet cannot be read.
        """
        replicas = self._live.replicas()
        alive = {replica.name for replica in replicas if replica.state in ALIVE}
        lives = {replica.name: replica.life for replica in replicas if replica.life}
        restarted = {name for name, life in lives.items() if self._lives.get(name, life) != life}
        self._lives |= lives
        routed = {(model, name) for model, names in self._live.routes().items() for name in names}
        self._useless = routed & (self._useless | {copy for copy in routed if copy[1] in restarted})
        serving = self._by_model({copy for copy in routed - self._useless if copy[1] in alive})
        unserved = frozenset(model for model in self._served if model not in serving)
        lost = sorted(model for model in unserved & self._doubtful if self._observation.has_demand(model))
        self._served, self._doubtful = {**self._served, **serving}, unserved
        if not lost:
            return ""
        where = ", ".join(sorted(self._served[lost[0]]))
        return f"{lost[0]} has lost its last copy, in {where}: the next tick repairs that first"

    def _by_model(self, copies: set[tuple[str, str]]) -> Mapping[str, set[str]]:
        """Replicas by model, of those that are managed."""
        found: dict[str, set[str]] = {}
        for model, replica in copies:
            if model in self._managed:
                found.setdefault(model, set()).add(replica)
        return found
