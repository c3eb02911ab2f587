"""The local fleet against the real thing: what is asked of it has happened when the call returns."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from infra.local.fleet import down, up
from infra.local.leftovers import processes, shared_memory
from tasks.config import read_config
from tasks.fleets import FleetBusyError, FleetUnreadableError
from tasks.fleets.local import LocalFleet
from tasks.world import ReplicaState
from tests.local_fleet import RunningFleet, pid_of, running_fleet, wait_until

pytestmark = pytest.mark.servers


def names(fleet: RunningFleet) -> list[str]:
    return [replica.name for replica in fleet.live.replicas()]


def is_answered(fleet: RunningFleet, model: str) -> bool:
    with suppress(requests.ConnectionError):
        return fleet.ask(model).ok
    return False


def test_a_fleet_that_was_never_brought_up_says_how(tmp_path: Path) -> None:
    path = tmp_path / "placement.yaml"
    path.write_text(
        f"fleet: {{kind: local, state: {tmp_path}}}\npools: {{small: {{memory: 1GB}}}}\n"
        "models: {vad: {footprint: 1MB, service_ms: 1}}\n"
    )
    with pytest.raises(FleetUnreadableError, match=r"not running.*make up"):
        LocalFleet(read_config(path))


def test_scale_up_takes_the_lowest_free_slot_and_scale_down_the_named_one(local_fleet: RunningFleet) -> None:
    live = local_fleet.live
    assert names(local_fleet) == ["small-0"]
    live.scale_up("small", 3)
    wait_until(lambda: [r.state for r in live.replicas()] == [ReplicaState.READY] * 3, "three ready replicas")
    live.scale_down("small-1")
    assert names(local_fleet) == ["small-0", "small-2"]  # its process is gone when the call returns
    assert [pool.replicas for pool in live.pools()] == [2, 0]
    live.scale_up("small", 2)
    assert names(local_fleet) == ["small-0", "small-2"]  # as many as asked for: nothing happens
    live.scale_down("small-2")
    assert names(local_fleet) == ["small-0"]
    with pytest.raises(OSError, match="pool small has 3 slots, 4 asked for"):
        live.scale_up("small", 4)


def test_a_route_serves_when_the_call_returns_and_stops_when_the_call_returns(local_fleet: RunningFleet) -> None:
    live = local_fleet.live
    local_fleet.load("vad", "small-0")
    for _ in range(10):
        live.route("vad", "small-0")
        assert local_fleet.ask("vad").status_code == 200
        live.unroute("vad", "small-0")
        assert local_fleet.ask("vad").status_code == 503
    assert live.routes()["vad"] == frozenset()
    local_fleet.unload("vad", "small-0")


def test_only_a_model_that_is_at_zero_by_policy_is_cold(local_fleet: RunningFleet) -> None:
    live = local_fleet.live
    answer = local_fleet.ask("squeezenet")  # min_copies 0
    assert (answer.status_code, answer.headers["x-triton-cold"]) == (503, "squeezenet")
    assert "x-triton-cold" not in local_fleet.ask("filetype").headers  # min_copies 1: it is missing, not cold
    local_fleet.load("squeezenet", "small-0")
    live.route("squeezenet", "small-0")
    assert "x-triton-cold" not in local_fleet.ask("squeezenet").headers
    live.unroute("squeezenet", "small-0")
    assert local_fleet.ask("squeezenet").headers["x-triton-cold"] == "squeezenet"
    local_fleet.unload("squeezenet", "small-0")


def test_moves_under_load_lose_no_request(local_fleet: RunningFleet) -> None:
    live = local_fleet.live
    live.scale_up("small", 2)
    wait_until(lambda: all(r.state is ReplicaState.READY for r in live.replicas()), "two ready replicas")
    local_fleet.load("vad", "small-0")
    live.route("vad", "small-0")
    statuses: list[int] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.wait(0.005):
            statuses.append(local_fleet.ask("vad").status_code)

    clients = [threading.Thread(target=ask) for _ in range(2)]
    for client in clients:
        client.start()
    for source, target in [("small-0", "small-1"), ("small-1", "small-0")] * 2:
        local_fleet.load("vad", target)
        live.route("vad", target)
        live.unroute("vad", source)
        local_fleet.unload("vad", source)
    is_over.set()
    for client in clients:
        client.join()
    live.unroute("vad", "small-0")
    local_fleet.unload("vad", "small-0")
    live.scale_down("small-1")
    assert set(statuses) == {200}
    assert len(statuses) > 200


def test_a_killed_replica_comes_back_empty_and_its_routes_stay_as_they_were(local_fleet: RunningFleet) -> None:
    live = local_fleet.live
    local_fleet.load("vad", "small-0")
    live.route("vad", "small-0")
    killed = pid_of(local_fleet, "small-0")
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: pid_of(local_fleet, "small-0") not in (0, killed), "another process")
    wait_until(lambda: local_fleet.replica("small-0").state is ReplicaState.READY, "ready again")
    assert live.routes()["vad"] == {"small-0"}
    assert local_fleet.ask("vad").status_code == 503  # never sent to a server that has not loaded it
    local_fleet.load("vad", "small-0")
    wait_until(lambda: local_fleet.ask("vad").status_code == 200, "served again")
    live.unroute("vad", "small-0")
    local_fleet.unload("vad", "small-0")


def test_a_gateway_that_is_down_is_named_and_keeps_its_routes(local_fleet: RunningFleet) -> None:
    live = local_fleet.live
    local_fleet.load("vad", "small-0")
    live.route("vad", "small-0")
    os.kill(pid_of(local_fleet, "envoy"), signal.SIGKILL)
    with pytest.raises(OSError, match=r"gateway .Envoy. does not answer"):
        live.failing_copies()
    wait_until(lambda: is_answered(local_fleet, "vad"), "served again, from its files")
    live.unroute("vad", "small-0")
    local_fleet.unload("vad", "small-0")


def test_a_service_time_can_be_changed_in_the_running_fleet(local_fleet: RunningFleet) -> None:
    local_fleet.load("filetype", "small-0")
    local_fleet.live.route("filetype", "small-0")
    (local_fleet.live.state.folder / "pace" / "filetype").write_text("300")
    tensor = {"name": "bytes", "shape": [1, 2048], "datatype": "INT32", "data": [0] * 2048}
    start = time.monotonic()
    answer = local_fleet.infer("filetype", tensor)
    assert answer.status_code == 200, answer.text
    assert time.monotonic() - start > 0.3
    (local_fleet.live.state.folder / "pace" / "filetype").unlink()
    local_fleet.live.unroute("filetype", "small-0")
    local_fleet.unload("filetype", "small-0")


def test_one_tick_at_a_time(local_fleet: RunningFleet) -> None:
    other = LocalFleet(local_fleet.config)
    with local_fleet.live.exclusive(1), pytest.raises(FleetBusyError), other.exclusive(0.2):
        pass
    with other.exclusive(0.2):
        pass


def test_up_twice_changes_nothing_and_down_leaves_nothing(tmp_path: Path) -> None:
    with running_fleet(tmp_path) as fleet:
        fleet.live.scale_up("small", 2)
        before = {name: pid_of(fleet, name) for name in ("small-0", "small-1", "envoy")}
        live = up(fleet.config, fleet.config_path, say=print, has_prefect=False)
        assert {name: pid_of(fleet, name) for name in before} == before
        assert live.state == fleet.live.state
        fleet.load("vad", "small-0")
        regions = shared_memory(live.state.folder)
        assert regions
        os.kill(pid_of(fleet, "small-0"), signal.SIGKILL)
        down(live.state.folder, say=print)
        assert processes(live.state.folder) == []
        assert not [region for region in regions if region.exists()]
        with pytest.raises(FleetUnreadableError, match="make up"):
            live.replicas()
        down(live.state.folder, say=print)


def test_supervisord_killed_the_next_up_brings_back_what_was_asked_for(tmp_path: Path) -> None:
    with running_fleet(tmp_path) as fleet:
        fleet.live.scale_up("small", 2)
        supervisord = int((fleet.live.state.folder / "supervisord.pid").read_text())
        os.kill(supervisord, signal.SIGKILL)
        up(fleet.config, fleet.config_path, say=print, has_prefect=False)
        assert names(fleet) == ["small-0", "small-1"]
