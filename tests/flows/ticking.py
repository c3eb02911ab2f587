"""Whole ticks on a private fleet of real servers: the arrows of the flow in this process, without Prefect."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import yaml

from flows.phases import DECISIONS
from infra.load import Profile, Segment
from tasks.act import act
from tasks.config import read_config
from tasks.decision import Result, StepKind, Tick
from tasks.fleets.local import LocalFleet
from tasks.forecast import forecast
from tasks.observe import observe
from tasks.place import place
from tasks.plan import plan
from tasks.record import metrics, one_line
from tasks.size import size
from tests.local_fleet import RunningFleet

MOVES = (StepKind.LOAD, StepKind.UNLOAD)


def tick(fleet: RunningFleet) -> Tick:
    """One tick as the flow runs it, with the configuration as its file is now; its line is printed."""
    settings = read_config(fleet.config_path)
    live, limits, seconds = LocalFleet(settings), settings.limits.limits(), {}

    def run(work: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        answer = work(*arguments)
        seconds[work.__name__] = time.perf_counter() - start
        return answer

    with live.exclusive(10):
        observation = run(observe, settings, live, time.time())
        forecasts = run(forecast, observation, limits)
        sizings = run(size, observation, forecasts, limits)
        placement = run(place, observation, sizings, limits)
        steps = run(plan, observation, placement, sizings, limits)
        outcomes = run(act, steps, live, observation, settings)
    seconds["decide"] = sum(seconds[phase] for phase in DECISIONS)
    done = Tick("apply", observation, forecasts, sizings, placement, steps, outcomes, seconds)
    metrics.push(done, live.pushgateway_url)
    print(f"{time.strftime('%H:%M:%S')} {one_line(done)}")
    for outcome in outcomes:
        if outcome.result is not Result.DONE:
            print(f"    {outcome.step}: {outcome.result}, {outcome.detail}")
    return done


def ticks_until(
    fleet: RunningFleet, is_so: Callable[[Tick], bool], what: str, most: int = 10, every_s: float = 5.0
) -> list[Tick]:
    """Ticks, one every ``every_s``, until it is so; fails when ``most`` of them did not make it so."""
    seen: list[Tick] = []
    while len(seen) < most:
        began = time.monotonic()
        seen.append(tick(fleet))
        if is_so(seen[-1]):
            return seen
        time.sleep(max(0.0, began + every_s - time.monotonic()))
    raise AssertionError(f"not within {most} ticks: {what}")


def configure(fleet: RunningFleet, policy_by_model: Mapping[str, Mapping[str, Any]]) -> None:
    """Change models' policies in the configuration file."""
    config = yaml.safe_load(fleet.config_path.read_text())
    for model, policy in policy_by_model.items():
        config["models"][model] |= policy
    fleet.config_path.write_text(yaml.safe_dump(config, sort_keys=False))


def done(ticks: Iterable[Tick]) -> Counter[StepKind]:
    """Steps that were done, by kind."""
    return Counter(o.step.kind for t in ticks for o in t.outcomes if o.result is Result.DONE)


def not_done(ticks: Iterable[Tick]) -> list[str]:
    return [f"{o.step}: {o.result} {o.detail}" for t in ticks for o in t.outcomes if o.result is not Result.DONE]


def serving(a_tick: Tick, model: str) -> set[str]:
    """Replicas that served the model when the tick observed."""
    return {copy.replica for copy in a_tick.observation.fleet.copies_of(model) if copy.is_serving}


def is_settled(a_tick: Tick) -> bool:
    """Nothing to do, and everything known."""
    return not a_tick.plan.steps and not a_tick.observation.unknown


def flat(duration_s: float, rps_by_model: Mapping[str, float]) -> Profile:
    """A steady load."""
    segments = tuple(Segment(model, 0.0, duration_s, rps, rps) for model, rps in rps_by_model.items())
    return Profile("flat", duration_s, segments, seed=3)
