"""The listener on the local fleet: real servers come, die and are asked for."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tasks.fleets.supervisor import Supervisor
from tasks.watch import listen, source
from tasks.watch.changes import Change
from tests.local_fleet import RunningFleet, wait_until

pytestmark = pytest.mark.servers


@contextmanager
def listening(fleet: RunningFleet, folder: Path) -> Iterator[list[tuple[str, str]]]:
    """(event, subject) of all that a listener in a thread of its own tells."""
    found: list[tuple[str, str]] = []
    is_over = threading.Event()

    def tell(changes: Sequence[Change]) -> None:
        found.extend((change.event.removeprefix("triton."), change.subject) for change in changes)

    arguments = (source(fleet.config), tell, folder / "told.json", 60.0, is_over)
    thread = threading.Thread(target=listen, args=arguments)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join(10)


def test_what_happens_to_real_servers_is_told(local_fleet: RunningFleet, tmp_path: Path) -> None:
    live = local_fleet.live
    with listening(local_fleet, tmp_path) as found:
        wait_until(lambda: found == [("replica.ready", "small-0")], "the first look")
        found.clear()

        live.scale_up("small", 2)
        wait_until(lambda: ("replica.ready", "small-1") in found, "a second replica")
        assert ("pool.scaled", "small") in found
        found.clear()

        assert local_fleet.ask("squeezenet").status_code == 503
        wait_until(lambda: found == [("model.unserved", "squeezenet")], "a request without a copy")
        local_fleet.ask("squeezenet")  # once in a while is enough
        found.clear()

        local_fleet.load("vad", "small-1")
        live.route("vad", "small-1")
        time.sleep(2.5)
        pid = Supervisor(live.state.supervisor_socket).programs()["small-1"]["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: ("replica.ready", "small-1") in found, "up again")
        assert found[0] in [("replica.lost", "small-1"), ("replica.ready", "small-1")]
        assert ("replica.lost", "small-1") in found
        found.clear()

        live.unroute("vad", "small-1")
        time.sleep(2.5)
        live.scale_down("small-1")
        wait_until(lambda: found == [("pool.scaled", "small")], "an emptied replica goes, and is not lost")


def test_what_happens_while_nobody_listens_is_told_by_the_next(local_fleet: RunningFleet, tmp_path: Path) -> None:
    live = local_fleet.live
    with listening(local_fleet, tmp_path) as found:
        wait_until(lambda: bool(found), "the first look")
        time.sleep(1.5)
    live.scale_up("small", 2)
    wait_until(lambda: all(replica.state == "ready" for replica in live.replicas()), "a second replica")
    with listening(local_fleet, tmp_path) as found:
        wait_until(lambda: len(found) == 2, "what is new")
        assert found == [("replica.ready", "small-1"), ("pool.scaled", "small")]
        live.scale_down("small-1")
        wait_until(lambda: len(found) == 3, "down again")


def test_a_gateway_that_restarts_hides_no_request(local_fleet: RunningFleet, tmp_path: Path) -> None:
    envoy = Supervisor(local_fleet.live.state.supervisor_socket).programs()["envoy"]["pid"]
    with listening(local_fleet, tmp_path) as found:
        wait_until(lambda: bool(found), "the first look")
        os.kill(envoy, signal.SIGKILL)
        wait_until(lambda: is_answered(local_fleet), "the gateway is back")
        wait_until(lambda: ("model.unserved", "squeezenet") in found, "a request after it")


def is_answered(fleet: RunningFleet) -> bool:
    try:
        return fleet.ask("squeezenet").status_code == 503
    except requests.ConnectionError:
        return False
