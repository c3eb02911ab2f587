"""One scenario of a few minutes, on the local fleet of real servers and in the simulator: the same ticks in both."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from infra.load.background import start
from infra.load.profile import Profile, Segment
from infra.local.programs import SCRAPE_S
from tasks.act import act
from tasks.config import Config
from tasks.decision import Result, StepKind, Tick
from tasks.forecast import forecast
from tasks.observe import observe
from tasks.place import place
from tasks.plan import plan
from tasks.record.metrics import push
from tasks.simulate.demand import Demand, Floats
from tasks.simulate.policies.ours import Ours
from tasks.simulate.run import simulate
from tasks.simulate.scenario import Costs, Scenario
from tasks.size import size
from tests.local_fleet import RunningFleet

TICK_S = 15.0
QUIET: Mapping[str, float] = {"squeezenet": 5, "filetype": 8, "vad": 28}
"""Requests a second: a copy each is enough (9.0, 16 and 45 within the objective)."""
LEAD_S = 60.0
"""Quiet, and not counted: what a forecast makes of a load that begins from nothing is a matter of luck."""
RATES: tuple[tuple[float, Mapping[str, float]], ...] = (
    (27, QUIET),
    (153, {**QUIET, "squeezenet": 14}),
    (60, QUIET),
)
"""Seconds, and requests a second: one model needs a second copy, and later no more. It rises shortly before a tick, so
that a window and a scrape's age more or less do not decide which tick sees it: the next one does."""
CONFIG: Mapping[str, Any] = {
    "pools": {"small": {"memory": "700MB", "min_replicas": 2, "max_replicas": 2, "start_s": 3, "compute": 2}},
    "models": {
        "squeezenet": {"footprint": "80MB", "service_ms": 50, "queue_ms": 100, "load_s": 1},
        "filetype": {"footprint": "80MB", "service_ms": 40, "queue_ms": 150, "load_s": 1},
        "vad": {"footprint": "80MB", "service_ms": 15, "queue_ms": 60, "load_s": 1},
    },
    "limits": {"interval_s": TICK_S, "stale_s": 45, "stabilisation_s": 45, "budget": 6},
    "metrics": {"window_s": 20, "step_s": 5, "history_s": 300},
}
SEED = 66
"""Of arrivals: in a few minutes of them the 95th percentile of a queue's waits is a matter of luck, a fifth more or
less under the rise. With these it is as much as is usual: ``test_arrivals`` holds that."""
NEW_S = 30.0
"""Between the fleet's first scrape and the first request: what is known of demand when the load begins."""
GRID_S = np.concatenate([[0.1], np.geomspace(0.001, 20, 400)])
"""Waits over which the simulator counts; the first is the objective's place."""


@dataclass(frozen=True)
class Seen:
    """What one of the two did with the scenario."""

    p95_ms: dict[str, float]
    """Queue time of each model's requests."""
    loads: int
    copies: list[int]
    """That serve, at each tick."""

    @property
    def mean_copies(self) -> float:
        return float(np.mean(self.copies))


def duration_s() -> float:
    return LEAD_S + sum(seconds for seconds, _ in RATES)


def profile(seed: int = SEED) -> Profile:
    segments, at = [], 0.0
    for seconds, rates in ((LEAD_S, QUIET), *RATES):
        segments += [Segment(name, at, at + seconds, rate, rate) for name, rate in rates.items()]
        at += seconds
    return Profile("reality", at, tuple(segments), seed=seed)


def really(fleet: RunningFleet) -> Seen:
    """Drive the scenario through the running fleet, with a tick every ``TICK_S`` from its start on."""
    while not all(_serving(fleet, model) for model in fleet.config.models):
        _tick(fleet)
    loads, copies = 0, []
    with start(profile(), fleet.live.gateway_url) as background:
        began = time.time() + 0.3  # the child's own start
        for tick in range(1, round(duration_s() / TICK_S)):
            time.sleep(max(0.0, began + TICK_S * tick - time.time()))
            serving, done = sum(len(targets) for targets in fleet.live.routes().values()), _tick(fleet)
            if TICK_S * tick > LEAD_S:
                copies.append(serving)
                loads += done
        report = background.wait()
    assert report.failed == 0, report.failures
    requests = report.requests[(report.requests["outcome"] == "succeeded") & (report.requests["intended_s"] > LEAD_S)]
    p95 = {}
    for model in fleet.config.domain_models():
        latency = requests.loc[requests["model"] == model.name, "latency_ms"].to_numpy()
        # a tenth waits for nothing: its latency is the service and all there is on the way
        p95[model.name] = float(np.percentile(latency, 95) - np.percentile(latency, 10))
        service_ms = next(iter(model.need_by_gpu_type.values())).service_ms
        assert np.percentile(latency, 10) < 1.5 * service_ms + 20, "the machine is too busy to tell"
    return Seen(p95, loads, copies)


def _serving(fleet: RunningFleet, model: str) -> bool:
    return bool(fleet.live.routes().get(model))


def _tick(fleet: RunningFleet) -> int:
    """One tick as the flow has it; the loads that were done."""
    config, live, limits = fleet.config, fleet.live, fleet.config.limits.limits()
    observation = observe(config, live, time.time())
    forecasts = forecast(observation, limits)
    sizings = size(observation, forecasts, limits)
    placement = place(observation, sizings, limits)
    steps = plan(observation, placement, sizings, limits)
    outcomes = act(steps, live, observation, config)
    push(Tick("apply", observation, forecasts, sizings, placement, steps, outcomes), live.pushgateway_url)
    return sum(o.step.kind is StepKind.LOAD and o.result is Result.DONE for o in outcomes)


class Watched(Ours):
    """Ours, which also writes down how many copies serve at each of its ticks."""

    def watch(self) -> list[int]:
        self.copies: list[int] = []
        return self.copies

    def tick(self) -> None:
        self.copies.append(int(self._fleet.copies.is_routed.sum()))
        super().tick()


def simulated(config: Config) -> Seen:
    """The same in the simulator, whose gateway takes turns as Envoy does."""
    models = config.domain_models()
    quiet_s, begin = 120.0, 1_800_000_000.0
    rows = [np.zeros(len(models))] * round(quiet_s + config.metrics.history_s + 60)
    for seconds, rates in ((LEAD_S, QUIET), *RATES):
        rows += [np.array([rates[model.name] for model in models])] * round(seconds)
    first = begin - (quiet_s + config.metrics.history_s + 60)
    scenario = Scenario(
        "reality", models, config.domain_pools(), Demand(first, 1.0, np.array(rows, dtype=np.float32)),
        begin + LEAD_S, duration_s() - LEAD_S, warmup_s=quiet_s + LEAD_S,
        limits=config.limits.limits(), history_s=config.metrics.history_s, bin_s=config.metrics.step_s,
        window_s=config.metrics.window_s - SCRAPE_S, recorded_from=begin - NEW_S, lag_s=SCRAPE_S // 2,
        costs=Costs(step_s=1.0, spread=0.0, is_round_robin=True, splits_by_weight=True, drain_s=1.5, unload_s=1.2),
    )  # fmt: skip
    policy = Watched(scenario.limits)
    copies = policy.watch()
    run = simulate(scenario, policy, np.repeat(GRID_S[:, None], len(models), axis=1))
    over: Floats = run.score.over[1:] / run.score.requests
    p95 = {model.name: float(1000 * np.interp(-0.05, -over[:, i], GRID_S[1:])) for i, model in enumerate(models)}
    ticks = round((quiet_s + LEAD_S) / TICK_S)
    return Seen(p95, run.counters.loads, copies[ticks + 1 :])


def table(really_seen: Seen, simulated_seen: Seen) -> str:
    """Both, side by side."""
    lines = [f"{'p95 queue time, ms':22s}{'really':>10s}{'simulated':>10s}"]
    lines += [
        f"{model:22s}{really_seen.p95_ms[model]:10.1f}{simulated_seen.p95_ms[model]:10.1f}"
        for model in really_seen.p95_ms
    ]
    lines.append(f"{'loads':22s}{really_seen.loads:10d}{simulated_seen.loads:10d}")
    lines.append(f"{'copies, mean':22s}{really_seen.mean_copies:10.2f}{simulated_seen.mean_copies:10.2f}")
    return "\n".join(lines)
