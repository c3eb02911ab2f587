"""Ticks as a Prefect server tells them: a server of plain answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra.local.prefect_api import PrefectError
from infra.local.ticks import Ticks
from tasks.fleets.state import State


def run(name: str, state: str, message: str | None) -> dict[str, Any]:
    return {"id": name, "end_time": "2026-01-01T00:00:10Z", "state_name": state, "state": {"message": message}}


RUNS = [run("late", "Failed", "ConfigError: 1 wrong:\n  limits: ..."), run("early", "Completed", "steady, no step")]
"""Newest first."""


class Answers(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps(RUNS).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def state() -> Iterator[State]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield State(Path(), {"prefect": server.server_port}, ())
    server.shutdown()
    server.server_close()


def test_each_ended_tick_is_told_once_oldest_first_with_what_went_wrong(state: State) -> None:
    ticks = Ticks(state, 0.0)
    assert [str(tick) for tick in ticks.new()] == [
        "00:00:10 steady, no step",
        "00:00:10 Failed: ConfigError: 1 wrong:",
    ]
    assert ticks.new() == []


def test_a_server_that_does_not_answer_tells_nothing_and_takes_nothing() -> None:
    ticks = Ticks(State(Path(), {"prefect": 9}, ()), 0.0)  # the discard port: nobody is there
    assert ticks.new() == []
    with pytest.raises(PrefectError, match=r"does not answer on http://127\.0\.0\.1:9"):
        ticks.ask()
