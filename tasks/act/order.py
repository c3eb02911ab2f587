"""The order of a plan's steps: by their needs, one at a time in each replica, until the time is up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from tasks.decision import Outcome, Result, Step

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""Between two looks at the clock and at ``why_stop`` while steps are under way."""
AT_ONCE = 32
"""Steps under way at the same time, each in a replica of its own: they wait for servers, they do not compute."""


class NotNeededError(Exception):
    """The step's precondition no longer holds: it is skipped, not failed."""


def run(
    steps: tuple[Step, ...],
    do: Callable[[Step], str],
    act_s: float,
    why_stop: Callable[[], str],
    on_outcome: Callable[[Outcome], None],
) -> tuple[Outcome, ...]:
    """Run ``do`` for every step whose needs are done; it returns a detail, or raises why it failed.

    Steps start in the plan's order where their needs and their lanes (``lane``) allow. After ``act_s`` seconds, or once
    ``why_stop()`` gives a reason, those that have not started are skipped.
    """
    progress = _Progress(steps, do, on_outcome)
    stop_at = time.monotonic() + act_s
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="act") as pool:
        while len(progress.outcome_by_id) < len(steps):
            if why := why_stop():
                progress.skip_rest(why)
            elif time.monotonic() > stop_at:
                progress.skip_rest(f"time is up: no step starts later than {act_s:g} s (limits.act_s)")
            else:
                progress.start_ready(pool)
            if progress.running:
                progress.collect(LOOK_S)
    return tuple(progress.outcome_by_id[step.id] for step in steps)


def lane(step: Step) -> str:
    """What only one step at a time may work on: a replica, a pool, or a model's shares."""
    return step.replica or (f"pool {step.pool}" if step.pool else f"model {step.model}")


@dataclass(slots=True)
class _Progress:
    steps: tuple[Step, ...]
    do: Callable[[Step], str]
    on_outcome: Callable[[Outcome], None]
    running: dict[Future[Outcome], Step] = field(default_factory=dict)
    outcome_by_id: dict[int, Outcome] = field(default_factory=dict)

    def start_ready(self, pool: ThreadPoolExecutor) -> None:
        """Start what can start, skip what never can."""
        busy = {lane(step) for step in self.running.values()}
        before = len(self.outcome_by_id)
        for step in self._waiting():
            if (why := self._broken_need(step)) is not None:
                self._end(Outcome(step, Result.SKIPPED, detail=why, at=time.time()))
            elif lane(step) not in busy and all(need in self.outcome_by_id for need in step.needs):
                busy.add(lane(step))
                self.running[pool.submit(self._try, step)] = step
        if not self.running and len(self.outcome_by_id) == before:
            self.skip_rest("its needs form a circle")

    def skip_rest(self, why: str) -> None:
        for step in self._waiting():
            self._end(Outcome(step, Result.SKIPPED, detail=why, at=time.time()))

    def collect(self, timeout_s: float) -> None:
        for future in wait(self.running, timeout_s, FIRST_COMPLETED).done:
            del self.running[future]
            self._end(future.result())

    def _waiting(self) -> list[Step]:
        started = {step.id for step in self.running.values()} | set(self.outcome_by_id)
        return [step for step in self.steps if step.id not in started]

    def _broken_need(self, step: Step) -> str | None:
        """Why the step can never start; None: it can, now or later."""
        known = {other.id: other for other in self.steps}
        for need in step.needs:
            if need not in known:
                return f"needs step {need}, which the plan does not have"
            outcome = self.outcome_by_id.get(need)
            if outcome is not None and outcome.result is not Result.DONE:
                return f"needs step {need} ({known[need]}), which is {outcome.result}"
        return None

    def _try(self, step: Step) -> Outcome:
        began = time.monotonic()
        try:
            result, detail = Result.DONE, self.do(step)
        except NotNeededError as error:
            result, detail = Result.SKIPPED, str(error)
        except Exception as error:  # whatever it is, it must stop nothing but this step's dependents
            result, detail = Result.FAILED, str(error) or type(error).__name__
            log.debug("step %d (%s) failed", step.id, step, exc_info=True)
        return Outcome(step, result, time.monotonic() - began, detail, time.time())

    def _end(self, outcome: Outcome) -> None:
        self.outcome_by_id[outcome.step.id] = outcome
        self.on_outcome(outcome)
