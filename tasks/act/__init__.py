"""act: execute a plan. It never chooses: it checks each step again just before it, then does it or says why not."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tasks.act.order import run
from tasks.act.steps import Hands
from tasks.act.stop import Stop
from tasks.config import Config
from tasks.decision import Outcome, Plan
from tasks.fleets import FleetUnreadableError, LiveFleet
from tasks.world import Observation

log = logging.getLogger(__name__)


def act(
    plan: Plan,
    live: LiveFleet,
    observation: Observation,
    config: Config,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_outcome: Callable[[Outcome], None] = lambda _: None,
) -> tuple[Outcome, ...]:
    """Make the fleet's models known to the gateway, then execute the steps: replicas in parallel, one operation at a
    time within a replica, in the order of their needs.

    No step starts later than ``limits.act_s``. Once ``should_stop()``, or when the last copy of a model is lost
    (``Stop``), no step starts, and those that only wait end their waits. A step that fails stops only what needs it.
    Never raises for a step: its outcome says what happened. ``on_outcome`` is called with each outcome, on the caller's
    thread.

    Returns:
        One outcome a step, in the plan's order.
    """
    _declare(live, observation)
    with Stop(live, observation, should_stop) as stop, Hands(live, observation, stop) as hands:
        return run(plan.steps, hands.do, config.limits.act_s, stop.look, on_outcome)


def _declare(live: LiveFleet, observation: Observation) -> None:
    """Also what somebody changed is put right. A gateway that does not answer stops no load: what needs it fails."""
    try:
        live.declare(observation.fleet.models)
    except (FleetUnreadableError, OSError) as error:
        log.warning("the gateway does not know the models: %s", error)
