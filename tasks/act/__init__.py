"""act: execute a plan. It never chooses: it checks each step again just before it, then does it or says why not."""

from __future__ import annotations

from collections.abc import Callable

from tasks.act.order import run
from tasks.act.steps import Hands
from tasks.config import Config
from tasks.decision import Outcome, Plan
from tasks.fleets import LiveFleet
from tasks.world import Observation


def act(
    plan: Plan,
    live: LiveFleet,
    observation: Observation,
    config: Config,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_outcome: Callable[[Outcome], None] = lambda _: None,
) -> tuple[Outcome, ...]:
    """Execute the steps: replicas in parallel, one operation at a time within a replica, in the order of their needs.

    No step starts later than ``limits.act_s``, nor once ``should_stop()``; what has started is finished. A step that
    fails stops only what needs it. Never raises for a step: its outcome says what happened. ``on_outcome`` is called
    with each outcome as it comes, on the caller's thread.

    Returns:
        One outcome a step, in the plan's order.
    """
    with Hands(live, observation) as hands:
        return run(plan.steps, hands.do, config.limits.act_s, should_stop, on_outcome)
