"""What each step does, with a real Triton."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tasks.act import act
from tasks.clients.triton import Triton
from tasks.config import Config
from tasks.decision import Plan, Reason, Result, Step, StepKind
from tasks.world import Copy, CopyState, Fleet, Observation, Replica, ReplicaState
from tests.memory_fleet import MemoryFleet
from tests.triton_server import TritonServer, free_ports, triton_server

DONE, FAILED, SKIPPED = Result.DONE, Result.FAILED, Result.SKIPPED
WHY = Reason("placed", "for the test")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with triton_server(tmp_path_factory.mktemp("triton")) as running:
        yield running


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with triton_server(tmp_path_factory.mktemp("triton"), "small-1") as running:
        yield running


CONFIG = Config.model_validate(
    {
        "pools": {"small": {"memory": "1GB", "max_replicas": 4}},
        "models": {name: {"footprint": "10MB", "service_ms": 20} for name in ("echo", "other", "slow", "broken")},
    }
)


def observation(fleet: MemoryFleet, *copies: Copy, demand_rps: float | None = 10.0) -> Observation:
    demand = pd.DataFrame({"time": [0.0], "model": ["echo"], "demand_rps": [demand_rps]})
    return Observation(0.0, Fleet(CONFIG.domain_models(), fleet.pools(), fleet.replicas(), copies), demand)


def perform(fleet: MemoryFleet, *steps: str, seen: Observation | None = None) -> list[tuple[Result, str]]:
    """Each step, written ``KIND MODEL REPLICA``, needs the one before it."""
    parsed = []
    for i, text in enumerate(steps):
        kind, model, where = (*text.split(), "", "")[:3]
        parsed.append(Step(i, StepKind(kind), WHY, model, where, needs=(i - 1,) if i else ()))
    return [(o.result, o.detail) for o in act(Plan(tuple(parsed)), fleet, seen or observation(fleet), CONFIG)]


def test_weights_change_at_once_and_only_among_copies_that_requests_are_sent_to() -> None:
    replicas = tuple(Replica(f"small-{n}", "small", "small", 10**9, 1.0) for n in range(3))
    fleet = MemoryFleet(*replicas, routes={"echo": ["small-0", "small-1"]})

    def weigh(*weights: tuple[str, float]) -> list[tuple[Result, str]]:
        plan = Plan((Step(0, StepKind.WEIGH, WHY, "echo", weights=weights),))
        return [(o.result, o.detail) for o in act(plan, fleet, observation(fleet), CONFIG)]

    assert weigh(("small-0", 0.5), ("small-1", 1.5)) == [(DONE, "")]
    assert weigh(("small-0", 0.5), ("small-1", 1.5)) == [(DONE, "already so")]
    gone = "no requests are sent to small-2 any more: other shares are needed"
    assert weigh(("small-0", 1.0), ("small-2", 1.0)) == [(SKIPPED, gone)]
    assert fleet.weights() == {"echo": {"small-0": 0.5, "small-1": 1.5}}
    assert fleet.done == ["weigh echo"]


@pytest.mark.servers
def test_a_copy_comes_and_goes(server: TritonServer) -> None:
    fleet = MemoryFleet(server.replica)
    assert perform(fleet, "load echo small-0", "route echo small-0") == [(DONE, "")] * 2
    assert server.infer("echo") == 200
    assert perform(fleet, "load echo small-0", "route echo small-0") == [(DONE, "already so")] * 2
    idle = observation(fleet, Copy("echo", "small-0", CopyState.READY, is_routed=True), demand_rps=0.0)
    going = ("unroute echo small-0", "drain echo small-0", "unload echo small-0")
    assert perform(fleet, *going, seen=idle) == [(DONE, "")] * 3
    with Triton(server.replica) as triton:
        assert triton.index()["echo"].state == "UNAVAILABLE"
    assert perform(fleet, *going, seen=idle) == [(DONE, "already so"), (DONE, ""), (DONE, "already so")]
    assert fleet.done == ["route echo small-0", "unroute echo small-0"]


@pytest.mark.servers
def test_a_load_that_another_caller_began_is_waited_for(server: TritonServer) -> None:
    fleet = MemoryFleet(server.replica)
    with Triton(server.replica) as triton:
        caller = threading.Thread(target=triton.load, args=("slow", 30))
        caller.start()
        while triton.index()["slow"].state != "LOADING":
            time.sleep(0.01)
        assert perform(fleet, "load slow small-0", "unload slow small-0") == [(DONE, "")] * 2
        caller.join()
    assert server.log.read_text().count("successfully loaded 'slow'") == 1


@pytest.mark.servers
def test_a_model_that_does_not_load_fails_with_its_cause(server: TritonServer) -> None:
    (loaded, routed) = perform(MemoryFleet(server.replica), "load broken small-0", "route broken small-0")
    assert loaded[0] is FAILED
    assert "no weights" in loaded[1]
    assert routed[0] is SKIPPED


@pytest.mark.servers
def test_a_model_that_is_not_ready_is_not_routed(server: TritonServer) -> None:
    fleet = MemoryFleet(server.replica)
    assert perform(fleet, "route other small-0") == [(FAILED, "replica small-0 says that other is not ready")]
    assert fleet.done == []


@pytest.mark.servers
def test_what_is_routed_is_neither_drained_nor_unloaded(server: TritonServer) -> None:
    fleet = MemoryFleet(server.replica, routes={"echo": ["small-0"]})
    for step in ("drain echo small-0", "unload echo small-0"):
        assert perform(fleet, step) == [(SKIPPED, "requests for echo are sent to small-0")]


@pytest.mark.servers
@pytest.mark.parametrize("demand_rps", [10.0, None], ids=["demand", "unknown"])
def test_the_last_serving_copy_keeps_its_traffic(server: TritonServer, demand_rps: float | None) -> None:
    """small-1 is routed too, but nobody is there."""
    lost = Replica("small-1", "small", "small", 10**9, 1.0, grpc=f"127.0.0.1:{free_ports(1)[0]}")
    fleet = MemoryFleet(server.replica, lost)
    perform(fleet, "load echo small-0", "route echo small-0")
    fleet.routes_now["echo"].add("small-1")
    seen = observation(fleet, demand_rps=demand_rps)
    assert perform(fleet, "unroute echo small-0", seen=seen) == [
        (SKIPPED, "last serving copy of echo, which has demand: kept")
    ]
    assert perform(fleet, "unroute echo small-1", seen=seen) == [(DONE, "")]  # it serves nothing


@pytest.mark.servers
def test_a_copy_that_is_cut_off_is_none_to_count_on(server: TritonServer, second: TritonServer) -> None:
    """It answers us, and no request of others gets there."""
    fleet = MemoryFleet(server.replica, second.replica)
    for name in ("small-0", "small-1"):
        perform(fleet, f"load echo {name}", f"route echo {name}")
    fleet.replicas_now[1] = replace(second.replica, state=ReplicaState.UNREACHABLE)
    ((result, detail),) = perform(fleet, "unroute echo small-0")
    assert (result, detail) == (SKIPPED, "last serving copy of echo, which has demand: kept")
    assert fleet.routes()["echo"] == {"small-0", "small-1"}


@pytest.mark.servers
def test_two_copies_do_not_go_at_once_each_counting_on_the_other(server: TritonServer, second: TritonServer) -> None:
    fleet = MemoryFleet(server.replica, second.replica)
    for name in ("small-0", "small-1"):
        perform(fleet, f"load echo {name}", f"route echo {name}")
    steps = tuple(Step(i, StepKind.UNROUTE, WHY, "echo", f"small-{i}") for i in (0, 1))
    outcomes = act(Plan(steps), fleet, observation(fleet), CONFIG)
    assert sorted(o.result for o in outcomes) == [DONE, SKIPPED]
    assert len(fleet.routes()["echo"]) == 1


@pytest.mark.servers
def test_a_copy_that_is_still_asked_is_not_drained(server: TritonServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.act.steps.DRAIN_S", 2.0)
    fleet = MemoryFleet(server.replica)
    perform(fleet, "load echo small-0")
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.wait(0.1):
            server.infer("echo")

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        (drained, unloaded) = perform(fleet, "drain echo small-0", "unload echo small-0")
    finally:
        is_over.set()
        asking.join()
    assert drained[0] is FAILED
    assert "still asked 2 s after it was unrouted" in drained[1]
    assert unloaded[0] is SKIPPED


@pytest.mark.servers
def test_before_a_drain_the_gateway_is_asked_again_and_clients_with_a_connection_are_waited_for(
    server: TritonServer,
) -> None:
    """A client that asks every second goes on with its connection for two, though nothing is routed any more."""
    fleet = MemoryFleet(server.replica)
    perform(fleet, "load echo small-0")
    fleet.linger_s, asked = 3.0, list[int]()

    def ask() -> None:
        for _ in range(2):
            time.sleep(1.2)
            asked.append(server.infer("echo"))

    asking = threading.Thread(target=ask)
    asking.start()
    outcomes = perform(fleet, "drain echo small-0", "unload echo small-0")
    asking.join()
    assert [result for result, _ in outcomes] == [DONE, DONE]
    assert asked == [200, 200]
    assert fleet.done[0] == "unroute echo small-0"


@pytest.mark.servers
def test_a_copy_whose_process_was_killed_is_repaired(tmp_path: Path) -> None:
    with triton_server(tmp_path) as broken:
        fleet = MemoryFleet(broken.replica)
        perform(fleet, "load echo small-0", "route echo small-0")
        broken.kill_stubs()
        assert [broken.infer("echo") for _ in range(2)] == [500, 500]
        seen = observation(fleet, Copy("echo", "small-0", CopyState.READY, is_routed=True, is_failing=True))
        repair = ("unroute echo small-0", "unload echo small-0", "load echo small-0", "route echo small-0")
        outcomes = perform(fleet, *repair, seen=seen)
        assert [result for result, _ in outcomes] == [DONE] * 4
        assert "its process is dead" in outcomes[1][1]
        assert broken.infer("echo") == 200


@pytest.mark.servers
def test_an_unload_that_never_ends_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process died while it was asked: whether that is so, or a request takes long, nobody can tell."""
    monkeypatch.setattr("tasks.act.steps.UNLOAD_S", 2.0)
    with triton_server(tmp_path) as broken, Triton(broken.replica) as triton:
        fleet = MemoryFleet(broken.replica)
        perform(fleet, "load echo small-0")
        broken.kill_stubs()
        assert broken.infer("echo") == 500
        for _ in range(2):
            ((asked, why),) = perform(fleet, "unload echo small-0")
            assert asked is FAILED
            assert "still UNLOADING after 2 s: a request takes long, or its process is dead: then restart" in why
        assert triton.index()["echo"].state == "UNLOADING"


@pytest.mark.servers
def test_only_an_empty_replica_goes(server: TritonServer) -> None:
    fleet = MemoryFleet(server.replica, routes={"other": ["small-0"]})
    perform(fleet, "load echo small-0")
    assert perform(fleet, "scale_down - small-0") == [(SKIPPED, "requests are sent to it: other")]
    fleet.routes_now.clear()
    assert perform(fleet, "scale_down - small-0") == [(SKIPPED, "it holds echo")]
    perform(fleet, "unload echo small-0")
    assert perform(fleet, "scale_down - small-0") == [(DONE, "")]
    assert perform(fleet, "scale_down - small-0") == [(DONE, "already so")]
    assert fleet.done == ["scale_down small-0"]


def test_a_pool_grows_to_what_is_asked_and_never_shrinks() -> None:
    fleet = MemoryFleet()
    grow = Step(1, StepKind.SCALE_UP, WHY, pool="small", count=2)
    for detail in ("0 to 2 replicas", "already so"):
        (outcome,) = act(Plan((grow,)), fleet, observation(fleet), CONFIG)
        assert (outcome.result, outcome.detail) == (DONE, detail)
    (outcome,) = act(Plan((replace(grow, count=1),)), fleet, observation(fleet), CONFIG)
    assert outcome.detail == "already so"
    assert fleet.done == ["scale_up small 2"]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (None, (SKIPPED, "replica small-0 is no longer there")),
        (ReplicaState.STARTING, (FAILED, "replica small-0 is starting")),
        (ReplicaState.LEAVING, (FAILED, "replica small-0 is leaving")),
        (ReplicaState.UNREACHABLE, (FAILED, "replica small-0 is unreachable")),
    ],
)
def test_nothing_is_loaded_where_it_cannot_be(state: ReplicaState | None, expected: tuple[Result, str]) -> None:
    fleet = MemoryFleet(*([Replica("small-0", "small", "small", 10**9, 1.0, state)] if state else []))
    assert perform(fleet, "load echo small-0") == [expected]
