"""A tick that ends early: since it may act no more, or since what was lost meanwhile is more urgent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pandas as pd
import pytest

from tasks.act import act
from tasks.act.stop import Losses, Stop
from tasks.clients.triton import ModelStatus, Triton
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
LOST = "other has lost its last copy, in small-1: the next tick repairs that first"
SLOW_S = 8.0
"""Of a load: longer than a tick goes on once it should end."""
CONFIG = Config.model_validate(
    {
        "pools": {"small": {"memory": "1GB", "max_replicas": 4}},
        "models": {name: {"footprint": "10MB", "service_ms": 20} for name in ("echo", "other", "slow")},
    }
)


def two(first: Replica | None = None, **routes: list[str]) -> MemoryFleet:
    """small-0 and small-1; the requests of `other` are sent to small-1 alone."""
    second = Replica("small-1", "small", "small", 10**9, 1.0)
    return MemoryFleet(first or replace(second, name="small-0"), second, routes={"other": ["small-1"], **routes})


def seen(fleet: MemoryFleet, state: CopyState = CopyState.READY, demand_rps: float | None = 10.0) -> Observation:
    """``state``: of each copy in small-0. ``demand_rps``: of `other`; of the others nothing is known."""
    copies = [
        Copy(m, r, state if r == "small-0" else CopyState.READY, is_routed=True)
        for m, names in fleet.routes().items()
        for r in sorted(names)
    ]
    demand = pd.DataFrame({"time": [0.0], "model": ["other"], "demand_rps": [demand_rps]})
    return Observation(0.0, Fleet(CONFIG.domain_models(), fleet.pools(), fleet.replicas(), tuple(copies)), demand)


def put(fleet: MemoryFleet, state: ReplicaState | None) -> None:
    """small-1 is so from now on; None: it is gone."""
    rest = [r for r in fleet.replicas_now if r.name != "small-1"]
    lost = Replica("small-1", "small", "small", 10**9, 1.0, state) if state else None
    fleet.replicas_now = [*rest, lost] if lost else rest


def looks(losses: Losses, count: int = 3) -> list[str]:
    return [losses.look() for _ in range(count)]


@pytest.mark.parametrize(
    ("state", "is_lost"),
    [
        pytest.param(READY, False, id="ready"),
        pytest.param(LEAVING, False, id="leaves, and answers until it is gone"),
        pytest.param(None, True, id="gone"),
        pytest.param(STARTING, True, id="its server starts again"),
        pytest.param(UNREACHABLE, True, id="silent"),
    ],
)
def test_a_lost_replica_with_a_models_last_copy_is_told_by_the_second_look(
    state: ReplicaState | None, is_lost: bool
) -> None:
    fleet = two()
    losses = Losses(fleet, seen(fleet))
    assert losses.look() == ""
    put(fleet, state)
    assert looks(losses) == (["", LOST, LOST] if is_lost else ["", "", ""])


def test_a_server_that_was_restarted_between_two_looks_has_lost_what_it_had() -> None:
    fleet = two()
    first, second = fleet.replicas_now
    fleet.replicas_now = [first, replace(second, life="1")]
    losses = Losses(fleet, seen(fleet))
    fleet.replicas_now = [first, replace(second, life="2")]
    assert looks(losses) == ["", LOST, LOST]


def test_one_that_was_silent_once_is_not_lost() -> None:
    fleet = two()
    losses = Losses(fleet, seen(fleet))
    for state in (UNREACHABLE, READY, UNREACHABLE, READY):
        put(fleet, state)
        assert losses.look() == ""


def test_a_pod_that_is_deleted_is_asked_no_more_before_it_is_gone() -> None:
    fleet = two()
    losses = Losses(fleet, seen(fleet))
    put(fleet, LEAVING)
    fleet.routes_now["other"].clear()
    assert looks(losses, 2) == ["", LOST]


@pytest.mark.parametrize("demand_rps", [None, 10.0, 0.0], ids=["unknown", "demand", "none"])
def test_a_model_that_nobody_asks_for_can_wait(demand_rps: float | None) -> None:
    fleet = two()
    losses = Losses(fleet, seen(fleet, demand_rps=demand_rps))
    put(fleet, None)
    assert looks(losses)[-1] == ("" if demand_rps == 0 else LOST)


@pytest.mark.parametrize("state", [CopyState.READY, CopyState.ABSENT])
def test_what_another_copy_serves_can_wait_unless_that_is_only_routed(state: CopyState) -> None:
    fleet = two(other=["small-0", "small-1"])
    losses = Losses(fleet, seen(fleet, state))
    put(fleet, None)
    assert looks(losses)[-1] == ("" if state is CopyState.READY else LOST)


def test_a_copy_that_was_loaded_anew_counts_again() -> None:
    fleet = two(other=["small-0", "small-1"])
    losses = Losses(fleet, seen(fleet, CopyState.ABSENT))
    fleet.routes_now["other"].discard("small-0")
    assert losses.look() == ""
    fleet.routes_now["other"].add("small-0")
    put(fleet, None)
    assert looks(losses) == [""] * 3


@pytest.mark.parametrize("state", [CopyState.READY, CopyState.LOADING])
def test_a_copy_that_this_tick_only_routes_counts_from_then_on(state: CopyState) -> None:
    fleet = two()
    observed = seen(fleet)
    coming = Copy("other", "small-0", state)
    observed = replace(observed, fleet=replace(observed.fleet, copies=(*observed.fleet.copies, coming)))
    losses = Losses(fleet, observed)
    fleet.routes_now["other"] = {"small-0"}
    assert looks(losses) == [""] * 3
    fleet.replicas_now = fleet.replicas_now[1:]
    assert looks(losses)[-1] == LOST.replace("small-1", "small-0")


def test_a_life_that_is_not_known_is_no_restart() -> None:
    fleet = two()
    first, second = fleet.replicas_now
    fleet.replicas_now = [first, replace(second, life="7")]
    losses = Losses(fleet, seen(fleet))
    for life in ("", "7"):
        fleet.replicas_now = [first, replace(second, life=life)]
        assert looks(losses) == [""] * 3


def test_where_this_tick_has_moved_a_copy_to_counts_too() -> None:
    fleet = two(echo=["small-0"])
    losses = Losses(fleet, seen(fleet, demand_rps=0.0))
    fleet.routes_now["echo"] = {"small-1"}
    assert losses.look() == ""
    put(fleet, None)
    assert looks(losses)[-1] == LOST.replace("other", "echo")


def test_a_model_that_is_not_managed_is_no_tick_s_business() -> None:
    fleet = two(zebra=["small-1"])
    losses = Losses(fleet, seen(fleet, demand_rps=0.0))
    put(fleet, None)
    assert looks(losses) == [""] * 3


def test_a_fleet_that_cannot_be_read_ends_nothing_and_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.act.stop.LOOK_S", 0.05)
    fleet, asked = two(), list[int]()
    answers = fleet.replicas

    def unreadable() -> tuple[Replica, ...]:
        asked.append(1)
        if len(asked) < 3:
            raise (FleetUnreadableError, OSError, ValueError)[len(asked) % 3]("no answer")
        return answers()

    put(fleet, None)
    monkeypatch.setattr(fleet, "replicas", unreadable)
    with Stop(two(), seen(two()), lambda: False) as calm, Stop(fleet, seen(two()), lambda: False) as stop:
        wait_for(lambda: bool(stop.why))
        assert (stop.look(), calm.look()) == (LOST, "")


def test_a_reason_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.act.stop.LOOK_S", 0.05)
    fleet = two()
    with Stop(fleet, seen(fleet), lambda: False) as stop:
        put(fleet, None)
        wait_for(lambda: bool(stop.why))
        put(fleet, READY)
        time.sleep(0.3)
        assert stop.look() == LOST


def wait_for(is_so: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with triton_server(tmp_path_factory.mktemp("triton")) as running:
        yield running


class Ends:
    """What becomes of a plan that should end early."""

    def __init__(self, fleet: MemoryFleet, when: Callable[[], bool], is_cancelled: bool, *steps: str) -> None:
        """``steps``: each needs the one before it. ``when``: the run is cancelled, or small-1 is lost."""
        ended_at: list[float] = []

        def end() -> None:
            wait_for(when)
            ended_at.append(time.monotonic())
            if not is_cancelled:
                put(fleet, None)

        ending = threading.Thread(target=end, daemon=True)
        ending.start()
        kinds = [text.split() for text in steps]
        chain = (Step(i, StepKind(k), WHY, m, r, needs=(i - 1,) if i else ()) for i, (k, m, r) in enumerate(kinds))
        plan, should_stop = Plan(tuple(chain)), lambda: is_cancelled and bool(ended_at)
        outcomes = act(plan, fleet, seen(fleet), CONFIG, should_stop=should_stop)
        assert ended_at, outcomes
        self.after_s = time.monotonic() - ended_at[0]
        self.outcomes = [(outcome.result, outcome.detail) for outcome in outcomes]
        ending.join()


@pytest.mark.servers
@pytest.mark.parametrize("is_cancelled", [False, True], ids=["a model is lost", "cancelled"])
def test_a_drain_ends_and_the_copy_stays(server: TritonServer, is_cancelled: bool) -> None:
    fleet = two(server.replica)
    fleet.linger_s = 30.0
    why = "this run may act no more" if is_cancelled else LOST
    with Triton(server.replica) as triton:
        triton.load("echo", 30)
        began = time.monotonic()
        ends = Ends(
            fleet, lambda: time.monotonic() - began > 1, is_cancelled, "drain echo small-0", "unload echo small-0"
        )
        assert ends.outcomes == [
            (Result.SKIPPED, f"no longer routed, and not unloaded; not waited for: {why}"),
            (Result.SKIPPED, why),
        ]
        assert ends.after_s < 10
        assert triton.index()["echo"].state == "READY"


@pytest.mark.servers
def test_a_load_goes_on_and_the_next_tick_waits_for_it(server: TritonServer) -> None:
    code = server.log.parent / "repository" / "slow" / "1" / "model.py"
    code.write_text(f"import time\ntime.sleep({SLOW_S})\n{code.read_text()}")
    fleet = two(server.replica)
    with Triton(server.replica) as triton:
        is_loading: Callable[[], bool] = lambda: triton.index()["slow"].state == "LOADING"  # noqa: E731
        ends = Ends(fleet, is_loading, False, "load slow small-0", "route slow small-0")
        assert ends.outcomes == [
            (Result.SKIPPED, f"still LOADING, which goes on; not waited for: {LOST}"),
            (Result.SKIPPED, LOST),
        ]
        assert is_loading()
    fleet.routes_now["other"].clear()
    load = Step(0, StepKind.LOAD, WHY, "slow", "small-0")
    again = Plan((load, replace(load, id=1, kind=StepKind.ROUTE, needs=(0,))))
    assert [o.result for o in act(again, fleet, seen(fleet), CONFIG)] == [Result.DONE] * 2
    assert server.log.read_text().count("loading: slow:") == 1
    assert server.infer("slow") == 200


class Hangs:
    """A server that answers no load."""

    def __init__(self, _: Replica) -> None:
        return

    def index(self) -> dict[str, ModelStatus]:
        return {}

    def load(self, _: str, timeout_s: float) -> None:
        time.sleep(timeout_s)

    def close(self) -> None:
        return


@pytest.mark.parametrize(
    ("lost", "result", "detail"),
    [
        ("small-0", Result.FAILED, "replica small-0 is unreachable"),
        ("small-1", Result.SKIPPED, f"still LOADING, which goes on; not waited for: {LOST}"),
    ],
)
def test_a_load_that_takes_its_own_server_with_it_has_failed(
    lost: str, result: Result, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be tried again there at once."""
    monkeypatch.setattr("tasks.act.steps.Triton", Hangs)
    fleet = two(other=[lost])
    observed = seen(fleet)
    began = time.monotonic()
    losing = threading.Timer(0.5, lambda: fall_silent(fleet, lost))
    losing.start()
    (outcome,) = act(Plan((Step(0, StepKind.LOAD, WHY, "slow", "small-0"),)), fleet, observed, CONFIG)
    losing.join()
    assert (outcome.result, outcome.detail) == (result, detail)
    assert time.monotonic() - began < 15


def fall_silent(fleet: MemoryFleet, name: str) -> None:
    fleet.replicas_now = [replace(r, state=UNREACHABLE) if r.name == name else r for r in fleet.replicas_now]


@pytest.mark.servers
def test_the_repair_of_a_dead_copy_is_not_left_half_done(server: TritonServer) -> None:
    """An unload of it never ends by itself: the next tick would wait for it in vain."""
    fleet = two(server.replica)
    with Triton(server.replica) as triton:
        triton.load("echo", 30)
        server.kill_stubs()
        assert server.infer("echo") == 500
        copy = Copy("echo", "small-0", CopyState.READY, is_failing=True)
        observed = seen(fleet)
        observed = replace(observed, fleet=replace(observed.fleet, copies=(*observed.fleet.copies, copy)))
        put(fleet, None)
        plan = Plan(
            (
                Step(0, StepKind.UNLOAD, WHY, "echo", "small-0"),
                Step(1, StepKind.LOAD, WHY, "echo", "small-0", needs=(0,)),
            )
        )
        unloaded, loaded = act(plan, fleet, observed, CONFIG)
        assert unloaded.result is Result.DONE
        assert (loaded.result, loaded.detail) == (Result.SKIPPED, LOST)
        assert triton.index()["echo"].state == "UNAVAILABLE"
