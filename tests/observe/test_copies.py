"""What is loaded and where requests go; and a copy that only seems to serve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.clients.triton import ModelStatus, Triton
from tasks.observe.copies import Suspect, confirmed_failing, copies
from tasks.world import CopyState, ReplicaState
from tests.observe import nobody, replica
from tests.triton_server import triton_server

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


def test_a_copy_has_the_weight_that_the_gateway_gives_it_and_one_where_it_gives_none() -> None:
    names, index = ("r", "s"), {"echo": ModelStatus("READY")}
    found = copies(
        tuple(map(replica, names)), dict.fromkeys(names, index), {"echo": frozenset(names)}, {"echo": {"s": 0.4}}
    )
    assert [(copy.replica, copy.weight) for copy in found] == [("r", 1.0), ("s", 0.4)]


def test_an_absent_copy_says_why() -> None:
    indexes = {"r": {"echo": ModelStatus("UNAVAILABLE", "Internal: no weights")}}
    (copy,) = copies((replica("r"),), indexes, {"echo": frozenset({"r"})})
    assert copy.detail == "Internal: no weights"


@pytest.mark.servers
def test_a_killed_stub_is_failing_until_it_is_repaired(tmp_path: Path) -> None:
    """Prometheus' window shows the failures before and after the repair; Triton's own statistics only before."""
    with triton_server(tmp_path, "small-0") as server, Triton(server.replica) as triton:
        triton.load("echo", 30)
        assert server.infer("echo") == 200
        window = (Suspect("echo", "small-0", failed=3.0, span_s=10.0),)
        assert confirmed_failing(window, (server.replica,)) == {}  # nothing failed in truth
        server.kill_stubs()
        assert [server.infer("echo") for _ in range(3)] == [500] * 3
        assert triton.is_ready("echo")  # Triton still says so
        assert confirmed_failing(window, (server.replica,)) == {
            ("echo", "small-0"): "3 of 3 requests failed in 10 s",
        }
        triton.unload("echo")  # never ends: the process died while it was asked
        triton.load("echo", 30)
        assert server.infer("echo") == 200
        assert confirmed_failing(window, (server.replica,)) == {}


def test_a_suspect_that_cannot_be_asked_is_not_confirmed() -> None:
    lost = replace(nobody("small-1"), state=ReplicaState.READY)
    assert confirmed_failing((Suspect("echo", "small-1", 9.0, 10.0),), (lost,)) == {}
