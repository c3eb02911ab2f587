"""One policy on one scenario, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tasks.simulate.demand import Floats
from tasks.simulate.fleet import Counters, SimulatedFleet
from tasks.simulate.scenario import Scenario
from tasks.simulate.score import Minute, Score
from tasks.simulate.traffic import Gateway


class Policy(Protocol):
    """What decides. It is made for one run: it keeps what it needs to remember."""

    name: str
    period_s: float
    """Between two ticks, unless it is still busy with the last."""
    holds_cold: bool
    """Whether requests for a model without a copy wait for one (cold), rather than fail."""

    @property
    def is_busy(self) -> bool: ...

    def begin(self, fleet: SimulatedFleet, gateway: Gateway) -> None: ...

    def tick(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a policy on a scenario, in figures that can be kept in a file."""

    policy: str
    gpu_hours: float
    cost: float
    """GPU-hours, each weighted by its pool's cost an hour."""
    requests: float
    within: float
    """Share of requests of those minutes in which their model met its objective."""
    in_time: float
    """Share of requests that waited no longer than their objective's limit."""
    failed: float
    """Requests."""
    cold: float
    counters: Counters
    minutes: tuple[Minute, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Run(Outcome):
    """The same, and each model's share of it."""

    score: Score


def simulate(
    scenario: Scenario,
    policy: Policy,
    limits_s: Floats | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Run:
    """Run the policy through the scenario.

    ``limits_s`` (limits, models) are waits over which requests are counted in ``score.over``, the objective's first;
    left out: that one only. ``on_progress`` is called with the share done, about a hundred times.
    """
    objectives = np.array([[model.objective.queue_ms / 1000 for model in scenario.models]])
    fleet = SimulatedFleet(scenario, scenario.start - scenario.warmup_s, np.random.default_rng(scenario.seed))
    gateway = Gateway(fleet, objectives if limits_s is None else limits_s, policy.holds_cold)
    score = Score(np.array([model.objective.percentile / 100 for model in scenario.models]))
    for failure in scenario.failures:
        fleet.at(scenario.start + failure.at_s, lambda failure=failure: fleet.kill(failure))  # type: ignore[misc]
    policy.begin(fleet, gateway)
    dt_s, next_tick = scenario.costs.step_s, fleet.now
    steps = round((scenario.end - fleet.now) / dt_s)
    for step in range(steps):
        if fleet.now >= next_tick - 1e-6 and not policy.is_busy:
            policy.tick()
            # a tick that had to wait runs as soon as it can; those that it covers are left out
            next_tick += policy.period_s * max(1, np.ceil((fleet.now - next_tick + 1e-6) / policy.period_s))
        flow = gateway.step(dt_s)
        fleet.advance(scenario.end - (steps - step - 1) * dt_s)
        if fleet.now > scenario.start + 1e-6:
            score.add(flow, fleet, dt_s)
        else:
            fleet.counters = Counters()
        if step % max(1, steps // 100) == 0:
            on_progress(step / steps)
    return _run(policy, fleet, score)


def _run(policy: Policy, fleet: SimulatedFleet, score: Score) -> Run:
    total = float(score.requests.sum())
    return Run(
        policy=policy.name,
        gpu_hours=score.gpu_hours,
        cost=score.cost,
        requests=total,
        within=float(score.within.sum()) / total if total else 1.0,
        in_time=1 - float(score.over[0].sum()) / total if total else 1.0,
        failed=float(score.failed.sum()),
        cold=float(score.cold.sum()),
        counters=fleet.counters,
        minutes=tuple(score.minutes),
        score=score,
    )
