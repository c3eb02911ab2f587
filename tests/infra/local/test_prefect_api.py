"""The Prefect server's API as it is asked here: a server whose answers are planned."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra.local import prefect_api
from infra.local.prefect_api import PrefectError, call, has
from tasks.fleets.state import State

Plan = Callable[..., State]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plan]:
    """A server that gives these statuses, one after the other."""
    monkeypatch.setattr(prefect_api, "BUSY_PAUSES_S", (0.0, 0.0))
    statuses: list[int] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = statuses.pop(0)
            body = b"" if status == 204 else b'{"id": 7}'
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def plan(*wanted: int) -> State:
        statuses.extend(wanted)
        return State(Path(), {"prefect": server.server_port}, ())

    yield plan
    server.shutdown()
    server.server_close()
    assert statuses == []


def test_a_busy_server_is_asked_again(answering: Plan) -> None:
    assert call(answering(503, 503, 200), "GET", "work_pools/local") == {"id": 7}


def test_a_server_that_stays_busy_is_told(answering: Plan) -> None:
    with pytest.raises(PrefectError, match=r"/api/work_pools/local: 503 "):
        call(answering(503, 503, 503), "GET", "work_pools/local")


def test_an_answer_without_a_body_is_nothing(answering: Plan) -> None:
    assert call(answering(204), "GET", "flow_runs/1") is None


@pytest.mark.parametrize(("statuses", "is_there"), [((200,), True), ((404,), False), ((503, 404), False)])
def test_what_is_there(answering: Plan, statuses: tuple[int, ...], is_there: bool) -> None:
    assert has(answering(*statuses), "deployments/name/reconcile/local") is is_there


def test_a_refusal_is_not_taken_for_absence(answering: Plan) -> None:
    with pytest.raises(PrefectError, match=r"500"):
        has(answering(500), "work_pools/local")
