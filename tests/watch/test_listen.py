"""The listener's loop: what is told, once, in spite of what does not answer, and of restarts."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tasks.fleets import FleetUnreadableError
from tasks.watch import listen
from tasks.watch.changes import Change, Seen, Snapshot
from tasks.watch.tell import NotToldError, events

READY = Seen("small", "1", is_ready=True)


@dataclass
class Scripted:
    """A fleet whose looks are written down; it is over after the last."""

    looks: list[Snapshot | Exception]
    is_over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> Snapshot:
        now = self.looks.pop(0)
        if not self.looks:
            self.is_over.set()
        if isinstance(now, Exception):
            raise now
        return now

    def wait(self) -> bool:
        return False


@dataclass
class Server:
    """Takes events, but for the first ``refusals`` times."""

    refusals: int = 0
    told: list[list[str]] = field(default_factory=list)

    def __call__(self, found: Sequence[Change]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise NotToldError("connection refused")
        self.told.append([f"{change.event.removeprefix('triton.')} {change.subject}" for change in found])


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.watch.loop.RETRY_S", 0.0)


@pytest.fixture
def hear(tmp_path: Path) -> Callable[..., Server]:
    """Listen to a script, with the memory of those before it."""

    def listened(*looks: Snapshot | Exception, refusals: int = 0, quiet_s: float = 0.0) -> Server:
        server, script = Server(refusals), Scripted(list(looks))
        listen(script, server, tmp_path / "told.json", quiet_s, script.is_over)
        return server

    return listened


def ready(*names: str) -> Snapshot:
    return Snapshot(dict.fromkeys(names, READY))


def asked(count: float) -> Snapshot:
    return Snapshot(unserved_by_model={"cold": count})


def test_each_change_is_told_once(hear: Callable[..., Server]) -> None:
    server = hear(ready("a"), ready("a"), ready("a", "b", "c"), ready("a", "b", "c"))
    assert server.told == [["replica.ready a"], ["replica.ready b", "replica.ready c"]]


def test_a_fleet_that_cannot_be_read_loses_no_change(hear: Callable[..., Server]) -> None:
    server = hear(ready("a"), FleetUnreadableError("down"), OSError("down"), ready("a", "b"))
    assert server.told == [["replica.ready a"], ["replica.ready b"]]


def test_a_server_that_does_not_answer_is_told_later(hear: Callable[..., Server]) -> None:
    server = hear(ready("a"), ready("a", "b"), ready("a", "b"), refusals=2)
    assert server.told == [["replica.ready a", "replica.ready b"]]


def test_a_restarted_listener_tells_what_changed_meanwhile_and_no_more(hear: Callable[..., Server]) -> None:
    hear(ready("a"))
    assert hear(ready("a", "b")).told == [["replica.ready b"]]
    assert hear(ready("a", "b")).told == []


def test_each_look_says_that_the_loop_goes_round(hear: Callable[..., Server], tmp_path: Path) -> None:
    """A fleet that cannot be read is looked at, too."""
    hear(ready("a"), OSError("down"))
    alive = tmp_path / "told.alive"
    os.utime(alive, (0, 0))
    hear(OSError("down"))
    assert alive.stat().st_mtime > time.time() - 60


def test_a_model_that_is_asked_again_and_again_is_told_once_in_a_while(hear: Callable[..., Server]) -> None:
    assert hear(asked(0), asked(1), asked(2), asked(3), quiet_s=60).told == [["model.unserved cold"]]
    assert hear(asked(3), asked(4), asked(5), quiet_s=0).told == [["model.unserved cold"]] * 2


def test_of_what_changed_together_the_first_asks_for_a_tick() -> None:
    found = [Change("triton.replica.ready", name, "ready for a load", "small") for name in ("a", "b")]
    first, second = events(found, "local")
    assert first["resource"] == {
        "prefect.resource.id": "triton.replica.a",
        "prefect.resource.name": "a",
        "triton.fleet": "local",
        "triton.asks-for": "tick",
    }
    assert "triton.asks-for" not in second["resource"]
    assert second["related"][0]["prefect.resource.id"] == "triton.pool.small"
    assert second["payload"] == {"text": "ready for a load"}
