"""A replica over its compute target is relieved by other shares of requests on real servers: no load, no failure.

A request takes 50 ms. filetype's one copy is busy 0.85 of the time; with half of vad's 6 requests a second beside it
the replica comes to 1.0, more than its target of 0.9 and its noise. vad's other copy has a replica for itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from infra.load import start
from tasks.clients.triton import Triton
from tasks.decision import StepKind, Tick
from tests.flows.ticking import MOVES, done, flat, not_done, serving, ticks_until
from tests.local_fleet import RunningFleet, running_fleet

pytestmark = pytest.mark.servers

EVERY_S = 6.0
COMMON = {"footprint": "80MB", "service_ms": 50, "queue_ms": 3000, "load_s": 2}
CONFIG: Mapping[str, Any] = {
    "pools": {"small": {"memory": "700MB", "max_replicas": 2, "start_s": 3}},
    "models": {
        "vad": {**COMMON, "min_copies": 2, "max_copies": 2},
        "filetype": {**COMMON, "max_copies": 1, "pinned": True},
    },
    "limits": {"interval_s": EVERY_S, "stale_s": 30, "stabilisation_s": 0, "act_s": 30},
    "metrics": {"window_s": 20, "step_s": 5, "history_s": 300},
}
RPS = {"vad": 6.0, "filetype": 17.0}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """Every model has its copies, and little demand, which is known: unknown demand counts as all that a copy may
    take."""
    with running_fleet(tmp_path_factory.mktemp("shares"), CONFIG) as fleet:
        with start(flat(300.0, dict.fromkeys(RPS, 1.0)), fleet.live.gateway_url):
            ticks_until(fleet, has_all, "two copies of vad, one of filetype", 20, EVERY_S)
        yield fleet


def has_all(a_tick: Tick) -> bool:
    return len(serving(a_tick, "vad")) == 2 and len(serving(a_tick, "filetype")) == 1


def answered(fleet: RunningFleet) -> dict[str, int]:
    """Requests for vad that each replica has answered."""
    found = {}
    for replica in fleet.live.replicas():
        with Triton(replica) as triton:
            found[replica.name] = triton.statistics()["vad"].requests
    return found


def shares(fleet: RunningFleet, seconds: float) -> dict[str, float]:
    """Of vad's requests, by replica, over the next seconds."""
    before = answered(fleet)
    time.sleep(seconds)
    counts = {name: count - before[name] for name, count in answered(fleet).items()}
    return {name: count / sum(counts.values()) for name, count in counts.items()}


def test_requests_leave_a_replica_that_is_over_its_target_and_none_fails(fleet: RunningFleet) -> None:
    with start(flat(300.0, RPS), fleet.live.gateway_url) as load:
        ticks = ticks_until(fleet, lambda t: done([t])[StepKind.WEIGH] == 1, "other shares", 20, EVERY_S)
        step = next(step for step in ticks[-1].plan.steps if step.kind is StepKind.WEIGH)
        found = shares(fleet, 15.0)
        report = load.stop()
    print(f"{step}, {step.reason}; then {found}; {report.sent} requests, {report.failed} failed")
    (busy,) = serving(ticks[-1], "filetype")
    weights = dict(step.weights)
    assert step.model == "vad"
    assert step.reason.code == "weighed"
    assert weights[busy] < 0.8
    assert fleet.live.weights()["vad"] == weights
    assert found == pytest.approx({name: weight / 2 for name, weight in weights.items()}, abs=0.04)
    assert report.failures == ()
    assert report.succeeded == report.sent > 300
    assert [kind for kind in MOVES if done(ticks)[kind]] == []
    assert not_done(ticks) == []
