"""A tick that ends early: since it may act no more, or since what was lost meanwhile is more urgent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pandas as pd
import pytest

from tasks.act import act
from tasks.act.stop import Stop
from tasks.clients.triton import Triton
from tasks.config import Config
from tasks.decision import Plan, Reason, Result, Step, StepKind
from tasks.fleets import FleetUnreadableError
from tasks.world import Copy, CopyState, Fleet, Observation, Replica, ReplicaState
from tests.memory_fleet import MemoryFleet
from tests.triton_server import TritonServer, triton_server

READY, STARTING, LEAVING, UNREACHABLE = (
    ReplicaState.READY,
    ReplicaState.STARTING,
    ReplicaState.LEAVING,
    ReplicaState.UNREACHABLE,
)
WHY = Reason("placed", "for the test")
LOST = "replica small-1 was lost with the last copy of other: the next tick repairs that first"
SLOW_S = 8.0
"""Of a load: longer than a tick goes on once it should end."""
CONFIG = Config.model_validate(
    {
        "pools": {"small": {"memory": "1GB", "max_replicas": 4}},
        "models": {name: {"footprint": "10MB", "service_ms": 20} for name in ("echo", "other", "slow")},
    }
)


def two(first: Replica | None = None) -> MemoryFleet:
    """small-0 and small-1; the requests of `other` are sent to small-1 alone."""
    second = Replica("small-1", "small", "small", 10**9, 1.0)
    return MemoryFleet(first or replace(second, name="small-0"), second, routes={"other": ["small-1"], "slow": []})


def seen(fleet: MemoryFleet, demand_rps: float | None = 10.0) -> Observation:
    copies = [Copy(m, r, CopyState.READY, is_routed=True) for m, names in fleet.routes().items() for r in sorted(names)]
    demand = pd.DataFrame({"time": [0.0], "model": ["other"], "demand_rps": [demand_rps]})
    return Observation(0.0, Fleet(CONFIG.domain_models(), fleet.pools(), fleet.replicas(), tuple(copies)), demand)


def put(fleet: MemoryFleet, state: ReplicaState | None) -> None:
    """small-1 is so from now on; None: it is gone."""
    rest = [r for r in fleet.replicas_now if r.name != "small-1"]
    lost = Replica("small-1", "small", "small", 10**9, 1.0, state) if state else None
    fleet.replicas_now = [*rest, lost] if lost else rest


def stopping(
    fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch, plan: Plan | None = None, demand_rps: float | None = 10.0
) -> Stop:
    monkeypatch.setattr("tasks.act.stop.LOOK_S", 0.0)
    return Stop(plan or Plan(()), fleet, seen(fleet, demand_rps), lambda: False)


@pytest.mark.parametrize(
    ("state", "looks"),
    [
        pytest.param(READY, None, id="ready"),
        pytest.param(LEAVING, None, id="leaves, and serves until it is gone"),
        pytest.param(None, 1, id="gone"),
        pytest.param(STARTING, 1, id="its server starts again"),
        pytest.param(UNREACHABLE, 2, id="silent: a second look"),
    ],
)
def test_a_lost_replica_with_a_models_last_copy_ends_the_tick(
    state: ReplicaState | None, looks: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = two()
    stop = stopping(fleet, monkeypatch)
    assert stop.look() == ""
    put(fleet, state)
    found = [stop.look() for _ in range(3)]
    assert found == [LOST if looks is not None and n >= looks else "" for n in (1, 2, 3)]
    assert stop.why == found[-1]


def test_one_that_was_silent_once_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = two()
    stop = stopping(fleet, monkeypatch)
    for state in (UNREACHABLE, READY, UNREACHABLE, READY):
        put(fleet, state)
        assert stop.look() == ""


@pytest.mark.parametrize("demand_rps", [None, 10.0, 0.0], ids=["unknown", "demand", "none"])
def test_a_model_that_nobody_asks_for_can_wait(demand_rps: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = two()
    stop = stopping(fleet, monkeypatch, demand_rps=demand_rps)
    put(fleet, None)
    assert stop.look() == ("" if demand_rps == 0 else LOST)


def test_what_another_copy_serves_can_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = two()
    stop = stopping(fleet, monkeypatch)
    fleet.routes_now["other"].add("small-0")
    put(fleet, None)
    assert stop.look() == ""


def test_a_replica_that_the_plan_gives_up_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = two()
    down = Step(0, StepKind.SCALE_DOWN, WHY, replica="small-1")
    stop = stopping(fleet, monkeypatch, Plan((down,)), demand_rps=None)
    fleet.routes_now["other"].clear()
    put(fleet, None)
    assert stop.look() == ""


def test_a_fleet_that_cannot_be_read_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = two()
    stop = stopping(fleet, monkeypatch)

    def unreadable() -> tuple[Replica, ...]:
        raise FleetUnreadableError("no answer")

    monkeypatch.setattr(fleet, "replicas", unreadable)
    assert [stop.look() for _ in range(3)] == [""] * 3


def test_the_fleet_is_looked_at_once_a_second() -> None:
    fleet = two()
    stop = Stop(Plan(()), fleet, seen(fleet), lambda: False)
    put(fleet, None)
    assert stop.look() == ""
    time.sleep(1.0)
    assert stop.look() == LOST


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with triton_server(tmp_path_factory.mktemp("triton")) as running:
        yield running


def cut_short(fleet: MemoryFleet, when: Callable[[], bool], *steps: str) -> tuple[list[tuple[Result, str]], float]:
    """What became of the steps of which each needs the one before it, and how long (s) they went on after small-1 was
    gone, which is ``when``."""
    gone_at: list[float] = []

    def lose() -> None:
        while not when():
            time.sleep(0.05)
        put(fleet, None)
        gone_at.append(time.monotonic())

    losing = threading.Thread(target=lose)
    losing.start()
    kinds = [text.split() for text in steps]
    chain = (Step(i, StepKind(k), WHY, m, r, needs=(i - 1,) if i else ()) for i, (k, m, r) in enumerate(kinds))
    outcomes = act(Plan(tuple(chain)), fleet, seen(fleet), CONFIG)
    took_s = time.monotonic() - gone_at[0]
    losing.join()
    return [(outcome.result, outcome.detail) for outcome in outcomes], took_s


@pytest.mark.servers
def test_a_drain_ends_and_the_copy_stays(server: TritonServer) -> None:
    fleet = two(server.replica)
    fleet.linger_s = 30.0
    with Triton(server.replica) as triton:
        triton.load("echo", 30)
        began = time.monotonic()
        outcomes, took_s = cut_short(
            fleet, lambda: time.monotonic() - began > 1, "drain echo small-0", "unload echo small-0"
        )
        assert outcomes == [
            (Result.SKIPPED, f"no longer routed, and not unloaded; not waited for: {LOST}"),
            (Result.SKIPPED, LOST),
        ]
        assert took_s < 5
        assert triton.index()["echo"].state == "READY"


@pytest.mark.servers
def test_a_load_goes_on_and_the_next_tick_waits_for_it(server: TritonServer) -> None:
    code = server.log.parent / "repository" / "slow" / "1" / "model.py"
    code.write_text(f"import time\ntime.sleep({SLOW_S})\n{code.read_text()}")
    fleet = two(server.replica)
    with Triton(server.replica) as triton:
        outcomes, took_s = cut_short(
            fleet, lambda: triton.index()["slow"].state == "LOADING", "load slow small-0", "route slow small-0"
        )
        assert outcomes == [
            (Result.SKIPPED, f"still LOADING, which goes on; not waited for: {LOST}"),
            (Result.SKIPPED, LOST),
        ]
        assert took_s < 5
        assert triton.index()["slow"].state == "LOADING"
    fleet.routes_now["other"].clear()
    load = Step(0, StepKind.LOAD, WHY, "slow", "small-0")
    again = Plan((load, replace(load, id=1, kind=StepKind.ROUTE, needs=(0,))))
    assert [o.result for o in act(again, fleet, seen(fleet), CONFIG)] == [Result.DONE] * 2
    assert server.log.read_text().count("loading: slow:") == 1
    assert server.infer("slow") == 200
