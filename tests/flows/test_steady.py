"""Nothing moves under steady load; a slower model gets copies by itself; a request wakes a model from zero."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from infra.load import start
from tests.flows.ticking import flat, is_settled, serving, tick, ticks_until
from tests.local_fleet import RunningFleet, running_fleet

pytestmark = pytest.mark.servers

EVERY_S = 6.0
CONFIG: Mapping[str, Any] = {
    "pools": {"small": {"memory": "700MB", "max_replicas": 3, "start_s": 3}},
    "models": {
        "vad": {"footprint": "80MB", "service_ms": 10, "queue_ms": 50, "load_s": 2},
        # 6 requests a second on one copy: busy 0.24 of the time at 40 ms, 0.6 at 100 ms
        "filetype": {"footprint": "80MB", "service_ms": 40, "queue_ms": 100, "load_s": 2},
        "squeezenet": {
            "footprint": "80MB",
            "service_ms": 20,
            "queue_ms": 100,
            "load_s": 2,
            "min_copies": 0,
            "idle_s": 200,
        },
    },
    "limits": {"interval_s": EVERY_S, "stale_s": 30, "stabilisation_s": 20, "act_s": 30},
    "metrics": {"window_s": 20, "step_s": 5, "history_s": 300},
}
STEADY_RPS = {"vad": 5.0, "filetype": 6.0}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """Under steady load, placed and settled: three ticks in a row had nothing to do."""
    with running_fleet(tmp_path_factory.mktemp("steady"), CONFIG) as fleet:
        ticks_until(fleet, lambda t: bool(serving(t, "vad") and serving(t, "filetype")), "served", every_s=1)
        with start(flat(600.0, STEADY_RPS), fleet.live.gateway_url):
            idle = 0
            while idle < 3:
                idle = idle + 1 if len(ticks_until(fleet, is_settled, "settled", 20, EVERY_S)) == 1 else 1
                time.sleep(EVERY_S)
            yield fleet


def test_ten_ticks_under_steady_load_plan_no_step(fleet: RunningFleet) -> None:
    ticks = []
    for _ in range(10):
        began = time.monotonic()
        ticks.append(tick(fleet))
        time.sleep(max(0.0, began + EVERY_S - time.monotonic()))
    assert [str(step) for t in ticks for step in t.plan.steps] == []
    assert all(t.observation.unknown == () for t in ticks)


def test_a_model_that_is_woken_by_a_request_is_served_by_the_next_tick(fleet: RunningFleet) -> None:
    answer = fleet.ask("squeezenet")
    assert (answer.status_code, answer.headers["x-triton-cold"]) == (503, "squeezenet")
    time.sleep(EVERY_S)  # the next tick comes an interval later at most, and has seen a scrape since
    woken = tick(fleet)
    assert {s.model: s.reason.code for s in woken.sizings}["squeezenet"] == "cold_request"
    assert fleet.ask("squeezenet").status_code == 200


def test_a_model_whose_service_time_doubles_gets_copies_by_itself(fleet: RunningFleet) -> None:
    before = fleet.config_path.read_text()
    pace = fleet.live.state.folder / "pace" / "filetype"
    pace.write_text("100")
    try:
        ticks = ticks_until(fleet, lambda t: len(serving(t, "filetype")) > 1, "two copies", 10, EVERY_S)
    finally:
        pace.unlink()
    asked = next(t for t in ticks if t.plan.steps)
    reason = next(s.reason for s in asked.sizings if s.model == "filetype")
    assert reason.code in ("demand", "queue_over_objective"), reason
    assert fleet.config_path.read_text() == before
