"""Copies and replicas come and go under load, and no request fails; a killed replica loses what it had in flight."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from infra.load import Background, Profile, Report, Segment, start
from tasks.decision import StepKind, Tick
from tests.flows.ticking import MOVES, configure, done, flat, not_done, serving, tick, ticks_until
from tests.local_fleet import RunningFleet, pid_of, running_fleet, wait_until

pytestmark = pytest.mark.servers

COMMON = {"load_s": 2, "max_copies": 3}
CONFIG: Mapping[str, Any] = {
    # compute for any copies: it is memory, and that a replica holds one copy of a model, which asks for replicas here
    "pools": {
        "small": {"memory": "700MB", "compute": 8, "max_replicas": 3, "start_s": 3},
        "large": {"memory": "1500MB", "compute": 8, "max_replicas": 2, "min_replicas": 0, "start_s": 3},
    },
    "models": {
        # two that take the load, on two copies each: one copy serves 250 and 125 requests a second
        "vad": {"footprint": "80MB", "service_ms": 4, "queue_ms": 40, "min_copies": 2, **COMMON},
        "ocr_cls": {"footprint": "70MB", "service_ms": 8, "queue_ms": 40, "min_copies": 2, **COMMON},
        # and four that move
        "filetype": {"footprint": "80MB", "service_ms": 20, "queue_ms": 200, **COMMON},
        "squeezenet": {"footprint": "80MB", "service_ms": 20, "queue_ms": 200, **COMMON},
        "ocr_rec": {"footprint": "100MB", "service_ms": 40, "queue_ms": 200, **COMMON},
        "embed": {"footprint": "220MB", "service_ms": 40, "queue_ms": 200, **COMMON},
    },
    "limits": {"interval_s": 6, "budget": 10, "stale_s": 30, "stabilisation_s": 0, "act_s": 30},
    "metrics": {"window_s": 20, "step_s": 5, "history_s": 300},
}
MOVING = ("filetype", "squeezenet", "ocr_rec", "embed")
CHANGES = (
    {"min_copies": 3, "pools": ["small", "large"]},
    {"min_copies": 1, "pools": ["small", "large"]},
    {"min_copies": 1, "pools": ["large"]},
    {"min_copies": 1, "pools": ["small"]},
)
"""What the policies of the moving models become, one after the other, again and again."""
EVERY_S = 6.0
LOAD_S = 140.0
GATEWAYS_TURN_S = 0.25
PACE_RPS = {"filetype": 1.0, "squeezenet": 1.0, "ocr_rec": 1.0, "embed": 1.0}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """Every model has the copies that its policy asks for."""
    with running_fleet(tmp_path_factory.mktemp("moves"), CONFIG) as fleet:
        ticks_until(fleet, has_all, "every model served", every_s=2)
        yield fleet


def has_all(a_tick: Tick) -> bool:
    return all(len(serving(a_tick, m.name)) >= m.min_copies for m in a_tick.observation.fleet.models)


def rising_and_falling() -> Profile:
    """vad from 130 to 190 requests a second and back, twice; ocr_cls 60: over 30,000 in 140 s."""
    quarter_s = LOAD_S / 4
    corners = ((130.0, 190.0), (190.0, 130.0), (130.0, 190.0), (190.0, 130.0))
    vad = tuple(Segment("vad", i * quarter_s, (i + 1) * quarter_s, *rates) for i, rates in enumerate(corners))
    rest = flat(LOAD_S, {"ocr_cls": 60.0, **PACE_RPS})
    return Profile("moves", LOAD_S, (*vad, *rest.segments), seed=5)


def ticks_while(load: Background, fleet: RunningFleet) -> list[Tick]:
    """Ticks on changing policies, until all is sent."""
    ticks: list[Tick] = []
    for change in itertools.cycle(CHANGES):
        configure(fleet, dict.fromkeys(MOVING, change))
        for _ in range(2):
            began = time.monotonic()
            ticks.append(tick(fleet))
            time.sleep(max(0.0, began + EVERY_S - time.monotonic()))
            if not load.is_running:
                return ticks
    raise AssertionError("unreachable")


def test_thirty_thousand_requests_through_moves_and_scaling_and_none_fails(fleet: RunningFleet) -> None:
    with start(rising_and_falling(), fleet.live.gateway_url) as load:
        ticks = ticks_while(load, fleet)
        report = load.wait()
    steps = done(ticks)
    print(f"{report.sent} requests, {report.failed} failed, latest left {report.lag_max_ms:.0f} ms late; {dict(steps)}")
    for phase in ("observe", "decide", "act"):
        seconds = sorted((t.seconds_by_phase or {})[phase] for t in ticks)
        print(f"{phase}: median {seconds[len(seconds) // 2]:.3f} s, longest {seconds[-1]:.3f} s of {len(ticks)} ticks")
    assert report.failures == ()
    assert report.succeeded == report.sent > 30_000
    assert sum(steps[kind] for kind in MOVES) >= 40
    assert steps[StepKind.SCALE_UP] > 0
    assert steps[StepKind.SCALE_DOWN] > 0
    assert not_done(ticks) == []


def test_a_killed_replica_loses_what_it_had_in_flight_and_its_models_are_back_within_two_ticks(
    fleet: RunningFleet,
) -> None:
    configure(fleet, dict.fromkeys(MOVING, CHANGES[1]))
    before = ticks_until(fleet, has_all, "every model served")[-1]
    held_by_replica = held(before)
    # two copies each, so that the killed one can be missed
    victim = next(name for name, models in held_by_replica.items() if {"vad", "ocr_cls"} <= models)
    with start(flat(60.0, {"vad": 150.0, "ocr_cls": 40.0}), fleet.live.gateway_url) as load:
        time.sleep(5)
        pid, killed_at = pid_of(fleet, victim), time.time()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: has_ended(pid), "the kernel has ended the process", timeout_s=5)
        gone_at = time.time()
        ticks = [tick(fleet)]
        time.sleep(EVERY_S)
        ticks.append(tick(fleet))
        unserved = [model for model in sorted(held_by_replica[victim]) if not fleet.ask(model).ok]
        report = load.stop()
    lost = failed(report)
    in_flight = in_flight_during(report, killed_at, gone_at)
    print(
        f"{victim} held {held_by_replica[victim]}, gone {gone_at - killed_at:.3f} s after the signal; "
        f"{len(in_flight)} in flight, {len(lost)} lost"
    )
    assert unserved == [], "after two ticks"
    assert set(lost.index) <= set(in_flight.index), report.failures
    assert done(ticks)[StepKind.LOAD] >= len(held_by_replica[victim])


def held(a_tick: Tick) -> dict[str, set[str]]:
    """Models that each replica served when the tick observed."""
    fleet = a_tick.observation.fleet
    return {r.name: {c.model for c in fleet.copies_in(r.name) if c.is_serving} for r in fleet.replicas}


def has_ended(pid: int) -> bool:
    """None of its threads runs any more, so its sockets are closed; its parent may not have noticed."""
    process = Path(f"/proc/{pid}")
    if not process.exists():
        return True
    state = (process / "stat").read_text().rpartition(") ")[2][0]
    return state == "Z" and len(list((process / "task").iterdir())) == 1


def failed(report: Report) -> pd.DataFrame:
    return report.requests[report.requests["outcome"] == "failed"]


def in_flight_during(report: Report, since: float, until: float) -> pd.DataFrame:
    """Requests on their way at some time between the two (Unix s). A process that was sent SIGKILL still takes requests
    until the kernel has ended its last thread, and the gateway sends some until it is its turn to read that the
    connections are closed: on a busy machine both take a while."""
    sent = report.clock.started_at + report.requests["sent_s"]
    ended = report.clock.started_at + report.requests["intended_s"] + report.requests["latency_ms"] / 1000
    return report.requests[(sent <= until + GATEWAYS_TURN_S) & (ended >= since)]
