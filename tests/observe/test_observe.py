"""The whole observation, of a real Triton and a real Prometheus."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.clients.triton import SECRET_FILE, ModelStatus, Triton, TritonError
from tasks.fleets import FleetUnreadableError
from tasks.observe import observe
from tasks.world import Copy, CopyState, ReplicaState
from tests.memory_fleet import MemoryFleet
from tests.observe import T0, config, nobody, replica
from tests.triton_server import TritonServer, triton_server


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


def test_where_no_replica_answers_it_is_we_who_cannot_read() -> None:
    """One that should be there and starts, or leaves, tells nothing; one alone is repaired."""
    silent, others = [nobody(f"small-{n}") for n in range(2)], [nobody("small-2"), nobody("small-3")]
    states = zip(others, (ReplicaState.STARTING, ReplicaState.LEAVING), strict=True)
    fleet = MemoryFleet(*silent, *(replace(other, state=state) for other, state in states))
    with pytest.raises(
        FleetUnreadableError, match=r"no replica can be read, of 2 .* control secret .* network .*small-0"
    ):
        observe(config(), fleet, T0)
    fleet.replicas_now.remove(silent[0])
    (lost, *_) = observe(config(), fleet, T0).fleet.replicas
    assert (lost.name, lost.state) == ("small-1", ReplicaState.UNREACHABLE)


def test_a_missing_secret_is_told_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(SECRET_FILE, str(tmp_path / "secret"))
    with pytest.raises(FleetUnreadableError, match=f"{SECRET_FILE}: {tmp_path}/secret cannot be read"):
        observe(config(), MemoryFleet(nobody("small-0")), T0)


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
