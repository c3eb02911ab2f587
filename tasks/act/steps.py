"""What each kind of step does: check its precondition, do it, and see with Triton's own index that it is so."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial

from tasks.act.order import NotNeededError
from tasks.act.stop import Stop
from tasks.clients.triton import ModelStatus, Triton, TritonError, TritonTimeoutError
from tasks.decision import Step, StepKind
from tasks.fleets import LiveFleet
from tasks.world import Observation, Replica, ReplicaState

POLL_S = 0.1
"""Between two looks at the index: a read takes about a millisecond."""
QUIET_S = 1.0
"""A drained copy has answered nothing for this long: longer than a request takes from the gateway to the replica. It
need not outlast an execution: Triton answers what is in flight and in its queue before it unloads."""
DRAIN_S = 15.0
"""A copy that is still asked this long after it was unrouted is asked by somebody who goes around the gateway."""
LOAD_PATIENCE = 3.0
"""Times the declared load time: a mean, and a cold disk is slower. Later the next tick looks after it."""
LEAST_LOAD_S = 20.0
"""Declared load times may be very short, the server's other loads and its start-up are not."""
UNLOAD_S = 60.0
"""Requests in flight and in the queue are answered first."""
STUCK_S = 5.0
"""An unload of a failing copy that takes longer will not end: one that ends takes one to two seconds."""

FILLED = ("READY", "LOADING", "UNLOADING")
"""States in which a model takes memory."""
ALREADY = "already so"
EMPTIED = (ReplicaState.READY, ReplicaState.LEAVING)
"""States in which a replica may lose its copies."""


class StepError(Exception):
    """The step could not be done; the text says why."""


class Hands:
    """Does the steps; may be called from several threads. A context manager: closes its channels."""

    def __init__(self, live: LiveFleet, observation: Observation, stop: Stop) -> None:
        self._live, self._observation, self._stop = live, observation, stop
        self._tritons: dict[Replica, Triton] = {}
        self._lock = threading.Lock()
        # the last two copies of a model must not go at the same time, each counting on the other
        self._unroute_lock_by_model: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._work: dict[StepKind, Callable[[Step], str]] = {
            StepKind.SCALE_UP: self._scale_up,
            StepKind.LOAD: self._load,
            StepKind.ROUTE: self._route,
            StepKind.WEIGH: self._weigh,
            StepKind.UNROUTE: self._unroute,
            StepKind.DRAIN: self._drain,
            StepKind.UNLOAD: self._unload,
            StepKind.SCALE_DOWN: self._scale_down,
        }

    def __enter__(self) -> Hands:
        return self

    def __exit__(self, *_: object) -> None:
        for triton in self._tritons.values():
            triton.close()

    def do(self, step: Step) -> str:
        """Do the step and return a detail.

        Raises:
            NotNeededError: its precondition no longer holds.
            StepError, TritonError, FleetUnreadableError, OSError: why it failed.
        """
        return self._work[step.kind](step)

    def _scale_up(self, step: Step) -> str:
        count = next((pool.replicas for pool in self._live.pools() if pool.name == step.pool), None)
        if count is None:
            raise NotNeededError(f"pool {step.pool} is no longer there")
        if count >= step.count:
            return ALREADY
        self._live.scale_up(step.pool, step.count)
        return f"{count} to {step.count} replicas"

    def _load(self, step: Step) -> str:
        try:
            return self._loaded(step)
        except NotNeededError:
            self._triton(step, ReplicaState.READY)  # a load that takes its own server with it has failed
            raise

    def _loaded(self, step: Step) -> str:
        triton = self._triton(step, ReplicaState.READY)
        deadline = time.monotonic() + self._load_s(step)
        # an unload still under way is waited for: until then its memory is not free
        before = self._wait_for(triton, step.model, lambda s: s.state != "UNLOADING", deadline, "unloaded")
        if before.state == "READY":
            return ALREADY
        if before.state != "LOADING":  # a second call would load it twice
            with contextlib.suppress(TritonTimeoutError):  # the load goes on: the index tells
                self._answer(partial(triton.load, step.model, deadline - time.monotonic()))
        status = self._wait_for(triton, step.model, lambda s: s.state != "LOADING", deadline, "READY")
        if status.state != "READY" or not triton.is_ready(step.model):
            raise StepError(f"loaded, yet {status.state or 'not in the index'} {status.reason}".strip())
        return ""

    def _route(self, step: Step) -> str:
        if not self._triton(step, ReplicaState.READY).is_ready(step.model):
            raise StepError(f"replica {step.replica} says that {step.model} is not ready")
        if step.replica in self._routed(step.model):
            return ALREADY
        self._live.route(step.model, step.replica)
        return ""

    def _weigh(self, step: Step) -> str:
        wanted, now = dict(step.weights), self._live.weights().get(step.model, {})
        if gone := sorted(wanted.keys() - self._routed(step.model)):
            raise NotNeededError(f"no requests are sent to {', '.join(gone)} any more: other shares are needed")
        if all(now.get(replica, 1.0) == weight for replica, weight in wanted.items()):
            return ALREADY
        self._live.weigh(step.model, wanted)
        return ""

    def _unroute(self, step: Step) -> str:
        with self._lock:
            lock = self._unroute_lock_by_model[step.model]
        with lock:
            routed = self._routed(step.model)
            if step.replica not in routed:
                return ALREADY
            if self._is_serving(step.model, step.replica) and self._observation.has_demand(step.model):
                others = sorted(routed - {step.replica})
                if not any(self._is_serving(step.model, other) for other in others):
                    raise NotNeededError(f"last serving copy of {step.model}, which has demand: kept")
            self._live.unroute(step.model, step.replica)
            return ""

    def _drain(self, step: Step) -> str:
        self._refuse_if_routed(step)
        triton = self._triton(step, *EMPTIED)
        if not self._was_routed(step):  # an earlier tick may have ended before that was known everywhere
            self._live.unroute(step.model, step.replica)
        began = time.monotonic()
        answered, quiet_since = _answered(triton, step.model), began
        while (now := time.monotonic()) - quiet_since < QUIET_S or now - began < self._live.linger_s:
            if now - began > self._live.linger_s + DRAIN_S:
                raise StepError(f"still asked {now - began:.0f} s after it was unrouted: by whom, around the gateway?")
            self._end_waits("no longer routed, and not unloaded")
            time.sleep(POLL_S)
            if (newer := _answered(triton, step.model)) != answered:
                answered, quiet_since = newer, time.monotonic()
        return ""

    def _unload(self, step: Step) -> str:
        self._refuse_if_routed(step)
        triton = self._triton(step, *EMPTIED)
        state = triton.index().get(step.model, ModelStatus("")).state
        if state not in FILLED:
            return ALREADY
        if state != "UNLOADING":
            triton.unload(step.model)
        if self._is_failing(step.model, step.replica) and not self._is_gone_within(triton, step.model, STUCK_S, False):
            return self._unload_stuck(triton, step)
        if not self._is_gone_within(triton, step.model, UNLOAD_S):
            why = "a request takes long, or its process is dead: then restart the server"
            raise StepError(f"still UNLOADING after {UNLOAD_S:g} s: {why}")
        return ""

    def _unload_stuck(self, triton: Triton, step: Step) -> str:
        """The unload of a model whose process died while it was asked never ends, yet a load starts a new process, and
        its unload does end. Left half done, it looks to the next tick like an unload that goes on."""
        triton.load(step.model, self._load_s(step))
        triton.unload(step.model)
        self._wait_for(triton, step.model, _is_gone, time.monotonic() + UNLOAD_S, "unloaded", may_end=False)
        return f"still UNLOADING after {STUCK_S:g} s, its process is dead: loaded anew and unloaded"

    def _scale_down(self, step: Step) -> str:
        replica = {r.name: r for r in self._live.replicas()}.get(step.replica)
        if replica is None:
            return ALREADY
        routed = sorted(model for model, targets in self._live.routes().items() if step.replica in targets)
        if routed:
            raise NotNeededError(f"requests are sent to it: {', '.join(routed)}")
        if held := self._held(replica):
            raise NotNeededError(f"it holds {', '.join(held)}")
        self._live.scale_down(step.replica)
        return ""

    def _held(self, replica: Replica) -> list[str]:
        """Models that fill the replica; none when it leaves already and answers no more."""
        try:
            return sorted(m for m, status in self._reach(replica).index().items() if status.state in FILLED)
        except TritonError:
            if replica.state is not ReplicaState.LEAVING:
                raise
            return []

    def _triton(self, step: Step, *states: ReplicaState) -> Triton:
        """The step's replica, which must still be there, in one of the states."""
        replica = {r.name: r for r in self._live.replicas()}.get(step.replica)
        if replica is None:
            raise NotNeededError(f"replica {step.replica} is no longer there")
        if replica.state not in states:
            raise StepError(f"replica {step.replica} is {replica.state} {replica.detail}".strip())
        return self._reach(replica)

    def _reach(self, replica: Replica) -> Triton:
        with self._lock:
            if replica not in self._tritons:
                self._tritons[replica] = Triton(replica)
            return self._tritons[replica]

    def _routed(self, model: str) -> frozenset[str]:
        return self._live.routes().get(model, frozenset())

    def _was_routed(self, step: Step) -> bool:
        """When the tick began, so that this one has taken its requests away."""
        return any(c.model == step.model and c.is_routed for c in self._observation.fleet.copies_in(step.replica))

    def _refuse_if_routed(self, step: Step) -> None:
        if step.replica in self._routed(step.model):
            raise NotNeededError(f"requests for {step.model} are sent to {step.replica}")

    def _is_serving(self, model: str, name: str) -> bool:
        """Whether requests sent to the copy are answered, as far as the fleet, Triton and the last observation can
        tell: a pod whose node is cut off may answer us, and nobody else."""
        replica = {r.name: r for r in self._live.replicas()}.get(name)
        if replica is None or replica.state is ReplicaState.UNREACHABLE or self._is_failing(model, name):
            return False
        try:
            return self._reach(replica).is_ready(model)
        except TritonError:
            return False

    def _is_failing(self, model: str, replica: str) -> bool:
        return any(copy.model == model and copy.is_failing for copy in self._observation.fleet.copies_in(replica))

    def _is_gone_within(self, triton: Triton, model: str, seconds: float, may_end: bool = True) -> bool:
        try:
            self._wait_for(triton, model, _is_gone, time.monotonic() + seconds, "unloaded", may_end)
        except StepError:
            return False
        return True

    def _answer(self, call: Callable[[], None]) -> None:
        """Make the call aside and wait for its end; it raises what the call raises.

        Raises:
            NotNeededError: the tick ends its waits; the call goes on.
        """
        answer: Future[None] = Future()

        def make() -> None:
            try:
                call()
            except BaseException as error:  # else nobody would ever know that it has ended
                answer.set_exception(error)
            else:
                answer.set_result(None)

        threading.Thread(target=make, name="load", daemon=True).start()
        while not wait((answer,), POLL_S).done:
            self._end_waits("still LOADING, which goes on")
        answer.result()

    def _wait_for(
        self,
        triton: Triton,
        model: str,
        is_so: Callable[[ModelStatus], bool],
        deadline: float,
        wanted: str,
        may_end: bool = True,
    ) -> ModelStatus:
        """The model's line of the index once it is so. ``may_end``: whether the wait ends when the tick should.

        Raises:
            StepError: it is not by the deadline.
            NotNeededError: the tick ends its waits.
        """
        while not is_so(status := triton.index().get(model, ModelStatus(""))):
            if time.monotonic() > deadline:
                raise StepError(f"not {wanted} in time: still {status.state}; the next tick looks again")
            if may_end:
                self._end_waits(f"still {status.state}, which goes on")
            time.sleep(POLL_S)
        return status

    def _end_waits(self, state: str) -> None:
        """Raises NotNeededError where there is nothing to wait for any longer: what is so now, and why."""
        if self._stop.why:
            raise NotNeededError(f"{state}; not waited for: {self._stop.why}")

    def _load_s(self, step: Step) -> float:
        fleet = self._observation.fleet
        model, replica = fleet.model_by_name.get(step.model), fleet.replica_by_name.get(step.replica)
        need = model.need_by_gpu_type.get(replica.gpu_type) if model and replica else None
        return max(LEAST_LOAD_S, LOAD_PATIENCE * need.load_s) if need else LEAST_LOAD_S


def _is_gone(status: ModelStatus) -> bool:
    return status.state not in FILLED


def _answered(triton: Triton, model: str) -> int:
    statistics = triton.statistics().get(model)
    return statistics.requests if statistics else 0
