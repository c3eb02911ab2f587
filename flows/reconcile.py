"""The reconcile tick: observe -> forecast -> size -> place -> plan -> act -> record."""

from __future__ import annotations

import time
from typing import Any, Literal

from prefect import flow, get_run_logger
from prefect.states import Completed

from flows.phases import Phases
from tasks.act import act
from tasks.config import read_config
from tasks.decision import Result, Tick
from tasks.fleets import connect
from tasks.forecast import forecast
from tasks.observe import observe
from tasks.place import place
from tasks.plan import plan
from tasks.record import record, record_refusal
from tasks.size import size
from tasks.turn import turn


def explain(flow: Any, flow_run: Any, state: Any) -> None:  # noqa: ARG001
    """A tick that fails leaves its reason where the others leave their summary. Prefect gives the three in order when a
    run fails, and by name when its process died."""
    record_refusal(state.message or "no message")


@flow(name="reconcile", on_failure=[explain], on_crashed=[explain])
def reconcile(mode: Literal["plan", "apply"] = "apply", config: str = "infra/local/placement.yaml") -> Any:
    """One tick. ``plan`` shows exactly what ``apply`` would do, and does nothing."""
    settings = read_config(config)
    live, limits, run = connect(settings), settings.limits.limits(), Phases()
    with turn(live, mode, wait_s=2 * limits.act_s) as should_stop:
        observation = run(observe, settings, live, time.time())
        forecasts = run(forecast, observation, limits)
        sizings = run(size, observation, forecasts, limits)
        placement = run(place, observation, sizings, limits)
        steps = run(plan, observation, placement, sizings, limits)
        outcomes = run(act, steps, live, observation, settings, should_stop=should_stop) if mode == "apply" else ()
    tick = Tick(mode, observation, forecasts, sizings, placement, steps, outcomes, run.seconds_by_phase)
    live.tell(tick)
    line = run(record, tick, limits, live.pushgateway_url)
    log = get_run_logger()
    for outcome in outcomes:
        if outcome.result is Result.FAILED:
            log.warning("%s failed: %s", outcome.step, outcome.detail)
    log.info(line)
    return Completed(message=line)


if __name__ == "__main__":
    reconcile()
