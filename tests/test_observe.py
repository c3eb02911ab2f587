"""observe against a real Triton and a real Prometheus that holds the samples of the test."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.clients.triton import ModelStatus, Triton, TritonError
from tasks.config import Config
from tasks.fleets import FleetUnreadableError
from tasks.observe import observe
from tasks.observe.copies import Suspect, confirmed_failing, copies
from tasks.observe.series import covered, demand_frame, read_series, stale, wanted_frame
from tasks.world import Copy, CopyState, LoadFailure, Replica, ReplicaState, Unknown
from tests.memory_fleet import MemoryFleet
from tests.prometheus_server import Samples, prometheus_server
from tests.triton_server import TritonServer, free_ports, triton_server

T0 = 1_795_000_000.0
DEMAND = "sum by (model) (rate(gateway_requests_total[{window}]))"


def config(**metrics: object) -> Config:
    return Config.model_validate(
        {
            "pools": {"small": {"memory": "1GB", "max_replicas": 4}},
            "models": {name: {"footprint": "10MB", "service_ms": 20} for name in ("echo", "other", "slow")},
            "limits": {"stale_s": 45, "interval_s": 30, "stabilisation_s": 120},
            "metrics": {"demand_query": DEMAND, "window_s": 20, "step_s": 5, "history_s": 300} | metrics,
        }
    )


def replica(name: str, state: ReplicaState = ReplicaState.READY, **fields: str) -> Replica:
    return Replica(name, "small", "small", 10**9, 1.0, state, **fields)


def nobody(name: str) -> Replica:
    return replica(name, grpc=f"127.0.0.1:{free_ports(1)[0]}")


# --- copies: where the index and the routes meet

READY, GONE = ReplicaState.READY, None


@pytest.mark.parametrize(
    ("index", "state", "is_routed", "expected"),
    [
        ("READY", READY, True, CopyState.READY),
        ("READY", READY, False, CopyState.READY),
        ("LOADING", READY, False, CopyState.LOADING),
        ("UNLOADING", READY, False, CopyState.UNLOADING),
        ("UNAVAILABLE", READY, False, None),
        ("", READY, False, None),
        ("UNAVAILABLE", READY, True, CopyState.ABSENT),
        ("", READY, True, CopyState.ABSENT),
        (None, ReplicaState.STARTING, True, CopyState.ABSENT),
        (None, GONE, True, CopyState.ABSENT),
        (None, ReplicaState.UNREACHABLE, True, CopyState.UNKNOWN),
        (None, ReplicaState.UNREACHABLE, False, None),
        ("READY", ReplicaState.LEAVING, True, CopyState.READY),
    ],
)
def test_a_copy_is_what_triton_has_and_where_requests_go(
    index: str | None, state: ReplicaState | None, is_routed: bool, expected: CopyState | None
) -> None:
    replicas = (replica("r", state),) if state else ()
    indexes = {"r": {"echo": ModelStatus(index)}} if index is not None else {}
    found = copies(replicas, indexes, {"echo": frozenset({"r"} if is_routed else ())})
    assert [(copy.state, copy.is_routed) for copy in found] == ([(expected, is_routed)] if expected else [])


def test_an_absent_copy_says_why() -> None:
    indexes = {"r": {"echo": ModelStatus("UNAVAILABLE", "Internal: no weights")}}
    (copy,) = copies((replica("r"),), indexes, {"echo": frozenset({"r"})})
    assert copy.detail == "Internal: no weights"


# --- frames


def test_demand_has_every_bin_and_gaps_are_not_numbers() -> None:
    """Bins of 5 s back from 100: 90, 95, 100. ``echo`` lacks 95, ``slow`` has none, ``alien`` is not ours."""
    answer = pd.DataFrame(
        [(90.0, "echo", 4.0), (100.0, "echo", 6.0), (100.0, "alien", 9.0)], columns=["time", "model", "value"]
    )
    frame = demand_frame(answer, ["echo", "slow"], 100.0, 5.0, 10.0)
    assert list(frame["model"]) == ["echo"] * 3 + ["slow"] * 3
    assert list(frame["time"]) == [90.0, 95.0, 100.0] * 2
    np.testing.assert_array_equal(frame["demand_rps"], [4.0, np.nan, 6.0, np.nan, np.nan, np.nan])


def test_nothing_answered_is_not_a_number_everywhere() -> None:
    frame = demand_frame(pd.DataFrame({"value": []}), ["echo"], 100.0, 5.0, 10.0)
    assert frame["demand_rps"].isna().all()
    assert len(frame) == 3


def test_wanted_leaves_gaps_out() -> None:
    answer = pd.DataFrame([(5.0, "b", math.nan), (5.0, "a", 2.0), (0.0, "a", 1.0)], columns=["time", "model", "value"])
    assert wanted_frame(answer).to_numpy().tolist() == [[0.0, "a", 1.0], [5.0, "a", 2.0]]


@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        ({"demand:a": 3.0, "demand:b": 4.0}, []),
        ({"demand:a": 3.0, "demand:b": 50.0}, [("model:b", "newest demand sample is 50 s old, limit 45 s")]),
        ({"demand:a": 214.0, "demand:b": 300.0}, [("prometheus", "newest demand sample is 214 s old, limit 45 s")]),
        ({"demand:a": 3.0}, [("model:b", "no demand sample in the last 300 s: check metrics.demand_query and the "
                                         "gateway's scrape")]),
    ],
)  # fmt: skip
def test_what_is_too_old_is_unknown(ages: dict[str, float], expected: list[tuple[str, str]]) -> None:
    assert stale(ages, ["a", "b"], 45.0, 300.0) == tuple(Unknown(*pair) for pair in expected)


# --- Prometheus


def counter(per_s: float, times: range, start: float = 0.0) -> dict[float, float]:
    return {T0 + t: start + per_s * t for t in times}


def traffic(model: str, where: str, per_s: float, times: range) -> Samples:
    """Each request waits 3 ms and is executed 1 + 20 + 2 ms; every tenth fails."""
    labels = f'model="{model}",replica="{where}",pool="small",version="1"'
    per_request_us = {"queue": 3000, "compute_input": 1000, "compute_infer": 20_000, "compute_output": 2000}
    return {
        f"nv_inference_request_success{{{labels}}}": counter(0.9 * per_s, times),
        f'nv_inference_request_failure{{{labels},reason="OTHER"}}': counter(0.1 * per_s, times),
        f'nv_inference_request_failure{{{labels},reason="REJECTED"}}': counter(0.0, times),
        **{
            f"nv_inference_{part}_duration_us{{{labels}}}": counter(0.9 * per_s * us, times)
            for part, us in per_request_us.items()
        },
    }


SAMPLES: Samples = {
    # two minutes without a scrape
    'gateway_requests_total{model="echo"}': counter(10, range(0, 401, 5)) | counter(10, range(520, 601, 5)),
    # its first request comes later
    'gateway_requests_total{model="other"}': counter(4, range(580, 601, 5)),
    **traffic("echo", "small-0", 10, range(0, 601, 5)),
    **traffic("other", "small-1", 0, range(0, 591, 5)),
    # more failed than served, of late; and a copy whose clients gave up
    'nv_inference_request_failure{model="bad",replica="small-0",reason="BACKEND"}': counter(1, range(560, 601, 5)),
    'nv_inference_request_failure{model="hasty",replica="small-0",reason="CANCELED"}': counter(1, range(560, 601, 5)),
    'triton_placement_copies_wanted{model="echo"}': dict.fromkeys((T0 + t for t in range(540, 601, 5)), 3.0),
    'triton_placement_load_failures{model="slow",replica="small-1"}': {T0 + 600: 2.0},
    'triton_placement_load_failed_timestamp_seconds{model="slow",replica="small-1"}': {T0 + 600: T0 + 580},
    'triton_placement_load_failures{model="echo",replica="small-1"}': {T0 + 600: 0.0},
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus_server(tmp_path_factory.mktemp("prometheus"), SAMPLES) as running:
        yield running


MODELS = ["echo", "other"]


@pytest.mark.servers
def test_demand_is_read_with_its_gaps(url: str) -> None:
    """No scrape from 400 to 520. A window of 20 s may lack 3/8 x 20 = 7.5 s at each end: the last bin before the gap
    ends at 405, the first one after it at 540. ``rate`` alone would say 6.25 at 410 and 6.25 at 530."""
    series = read_series(url, config(), MODELS, T0 + 600)
    by_model = {model: frame.set_index("time")["demand_rps"] for model, frame in series.demand.groupby("model")}
    echo = by_model["echo"]
    assert list(echo.index[echo.isna()] - T0) == list(range(410, 540, 5))
    np.testing.assert_allclose(echo.dropna(), 10.0, rtol=0.13)  # at 405 an eighth of the window is missing
    assert list(by_model["other"].dropna().index - T0) == [585, 590, 595, 600]  # a rate needs two samples
    assert series.age_s_by_source["demand:echo"] == 0.0
    assert series.unknown == ()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("demand", "demand"),
        (
            'sum(rate(a:b_c{x="1"}[{window}]) + rate(d[{window}]))',
            '(sum(rate(a:b_c{x="1"}[20000ms]) + rate(d[20000ms])))'
            ' and on() (time() - 0 - max(timestamp(a:b_c{x="1"})) <= 7.5)'
            ' and on() (time() - 20 - max(timestamp(a:b_c{x="1"} offset 20000ms)) <= 7.5)',
        ),
    ],
)
def test_a_demand_query_is_answered_only_where_samples_cover_its_window(query: str, expected: str) -> None:
    assert covered(query, 20.0) == expected


@pytest.mark.servers
def test_traffic_is_one_row_a_copy(url: str) -> None:
    """10 requests a second, 9 served and 1 failed; 3 ms queued and 1 + 20 + 2 ms executed."""
    series = read_series(url, config(), MODELS, T0 + 600)
    assert series.traffic[["model", "replica"]].to_numpy().tolist() == [["echo", "small-0"], ["other", "small-1"]]
    busy, idle = series.traffic[["served_rps", "failed_rps", "queue_ms", "service_ms"]].to_numpy(dtype=float)
    np.testing.assert_allclose(busy, [9.0, 1.0, 3.0, 23.0])
    np.testing.assert_allclose(idle, [0.0, 0.0, np.nan, np.nan])
    assert series.age_s_by_source["traffic:small-0"] == 0.0
    assert series.age_s_by_source["traffic:small-1"] == 10.0


@pytest.mark.servers
def test_what_past_ticks_left_is_read_back(url: str) -> None:
    series = read_series(url, config(), MODELS, T0 + 600)
    # every interval / 2 = 15 s of the last 120 s; nothing before 540
    assert series.wanted.to_numpy().tolist() == [[T0 + t, "echo", 3.0] for t in (540, 555, 570, 585, 600)]
    assert series.load_failures == (LoadFailure("slow", "small-1", 2, T0 + 580),)


@pytest.mark.servers
def test_only_failures_of_its_own_make_a_suspect(url: str) -> None:
    (suspect,) = read_series(url, config(), MODELS, T0 + 600).suspects
    assert (suspect.model, suspect.replica, suspect.served) == ("bad", "small-0", 0.0)
    assert suspect.failed == pytest.approx(10, abs=1)  # one a second in half a window


@pytest.mark.servers
def test_a_stale_prometheus_is_unknown_and_keeps_what_it_has(url: str) -> None:
    """The newest sample is of 600. Bins of 5 s back from 814 end at 604, then at 609, 9 s after it: too late."""
    series = read_series(url, config(), MODELS, T0 + 814)
    (unknown,) = series.unknown
    assert unknown.subject == "prometheus"
    assert unknown.why == "newest demand sample is 210 s old, limit 45 s"
    assert series.demand["demand_rps"].notna().any()
    assert series.age_s_by_source["demand:echo"] == 210.0


@pytest.mark.servers
def test_a_wrong_query_loses_only_its_part(url: str) -> None:
    series = read_series(url, config(demand_query="sum(("), MODELS, T0 + 600)
    (unknown,) = series.unknown
    assert "refuses sum((" in unknown.why
    assert series.demand.empty
    assert not series.traffic.empty
    assert series.load_failures


# --- the whole


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with triton_server(tmp_path_factory.mktemp("triton")) as running:
        with Triton(running.replica) as triton:
            triton.load("echo", 30)
        yield running


@pytest.mark.servers
def test_an_observation_of_real_servers(server: TritonServer, url: str) -> None:
    with Triton(server.replica) as triton:
        triton.load("other", 30)  # loaded, not routed
    fleet = MemoryFleet(server.replica, replica("small-1", ReplicaState.STARTING), routes={"echo": ["small-0"]})
    observe(config(prometheus_url=url), fleet, T0 + 600)  # the first imports the clients
    began = time.monotonic()
    seen = observe(config(prometheus_url=url), fleet, T0 + 600)
    assert time.monotonic() - began < 1.0
    assert seen.fleet.copies == (
        Copy("echo", "small-0", CopyState.READY, is_routed=True),
        Copy("other", "small-0", CopyState.READY),
    )
    assert [r.state for r in seen.fleet.replicas] == [ReplicaState.READY, ReplicaState.STARTING]
    assert [model.name for model in seen.fleet.models] == ["echo", "other", "slow"]
    assert [u.subject for u in seen.unknown] == ["model:slow"]


@pytest.mark.servers
def test_a_replica_that_does_not_answer_is_unknown_and_so_are_its_copies(server: TritonServer) -> None:
    lost = nobody("small-1")
    seen = observe(config(), MemoryFleet(server.replica, lost, routes={"echo": ["small-0", "small-1"]}), T0)
    assert [r.state for r in seen.fleet.replicas] == [ReplicaState.READY, ReplicaState.UNREACHABLE]
    assert {c.replica: c.state for c in seen.fleet.copies_of("echo")} == {
        "small-0": CopyState.READY,
        "small-1": CopyState.UNKNOWN,
    }
    (why,) = [u.why for u in seen.unknown if u.subject == "replica:small-1"]
    assert "refused" in why


@pytest.mark.servers
def test_one_lost_answer_is_not_a_lost_replica(server: TritonServer, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Callable[[Triton], dict[str, ModelStatus]]] = [Triton.index]

    def lose_the_first(triton: Triton) -> dict[str, ModelStatus]:
        if len(answers) == 1:
            answers.append(Triton.index)
            raise TritonError("lost")
        return answers[0](triton)

    monkeypatch.setattr(Triton, "index", lose_the_first)
    (seen,) = observe(config(), MemoryFleet(server.replica), T0).fleet.replicas
    assert seen.state is ReplicaState.READY
    assert len(answers) == 2


@pytest.mark.servers
def test_a_frozen_replica_costs_a_few_seconds_not_the_tick(tmp_path: Path) -> None:
    with triton_server(tmp_path, "frozen") as frozen:
        os.kill(frozen.process.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            seen = observe(config(), MemoryFleet(frozen.replica), T0)
            assert time.monotonic() - began < 6  # two tries of 2 s
        finally:
            os.kill(frozen.process.pid, signal.SIGCONT)
    assert seen.fleet.replicas[0].state is ReplicaState.UNREACHABLE
    assert "no answer after 2 s" in seen.fleet.replicas[0].detail


def test_a_leaving_replica_that_is_gone_already_is_not_lost() -> None:
    leaving = replace(nobody("small-0"), state=ReplicaState.LEAVING)
    seen = observe(config(), MemoryFleet(leaving, routes={"echo": ["small-0"]}), T0)
    assert seen.fleet.replicas == (leaving,)
    assert [(copy.state, copy.detail) for copy in seen.fleet.copies] == [(CopyState.ABSENT, "its replica is leaving")]
    assert {unknown.subject for unknown in seen.unknown} == {"prometheus"}


def test_prometheus_down_leaves_demand_unknown_once() -> None:
    fleet = MemoryFleet(replica("small-0", ReplicaState.STARTING))
    seen = observe(config(), fleet, T0)
    assert seen.demand.empty
    assert seen.traffic.empty
    (unknown,) = seen.unknown
    assert unknown.subject == "prometheus"
    assert "127.0.0.1:9 does not answer" in unknown.why


def test_what_the_gateway_sees_fail_is_failing() -> None:
    fleet = MemoryFleet(replica("small-0", ReplicaState.STARTING), routes={"echo": ["small-0"]})
    fleet.failing = {("echo", "small-0"): "12 of 12 requests failed"}
    (copy,) = observe(config(), fleet, T0).fleet.copies
    assert copy.is_failing
    assert copy.detail == "12 of 12 requests failed"


@pytest.mark.parametrize("unreadable", ["replicas", "routes", "pools"])
def test_an_unreadable_fleet_ends_the_tick(unreadable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: MemoryFleet) -> None:
        raise FleetUnreadableError("no list")

    monkeypatch.setattr(MemoryFleet, unreadable, refuse)
    with pytest.raises(FleetUnreadableError, match="no list"):
        observe(config(), MemoryFleet(), T0)


# --- a copy that only seems to serve


@pytest.mark.servers
def test_a_killed_stub_is_failing_until_it_is_repaired(tmp_path: Path) -> None:
    """Prometheus' window shows the failures before and after the repair; Triton's own statistics only before."""
    with triton_server(tmp_path, "small-0") as server, Triton(server.replica) as triton:
        triton.load("echo", 30)
        assert server.infer("echo") == 200
        window = (Suspect("echo", "small-0", failed=3.0, served=1.0, span_s=10.0),)
        assert confirmed_failing(window, (server.replica,)) == {}  # nothing failed in truth
        server.kill_stubs()
        assert [server.infer("echo") for _ in range(3)] == [500] * 3
        assert triton.is_ready("echo")  # Triton still says so
        assert confirmed_failing(window, (server.replica,)) == {
            ("echo", "small-0"): "3 of 4 requests failed in 10 s",
        }
        triton.unload("echo")  # never ends: the process died while it was asked
        triton.load("echo", 30)
        assert server.infer("echo") == 200
        assert confirmed_failing(window, (server.replica,)) == {}


def test_a_suspect_that_cannot_be_asked_is_not_confirmed() -> None:
    lost = replace(nobody("small-1"), state=ReplicaState.READY)
    assert confirmed_failing((Suspect("echo", "small-1", 9.0, 0.0, 10.0),), (lost,)) == {}
