"""Whose turn it is: the waiting runs of a real Prefect server, coalesced by the run that acts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.states import Cancelling, Running, Scheduled
from prefect.testing.utilities import prefect_test_harness

from tasks import turn as turns

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def client() -> Iterator[SyncPrefectClient]:
    with prefect_test_harness(server_startup_timeout=120), get_client(sync_client=True) as client:
        yield client


@flow(name="a-flow")
def a_flow(mode: str = "apply") -> None:
    """Never run: its runs only wait."""


@pytest.fixture
def deployment(client: SyncPrefectClient, request: pytest.FixtureRequest) -> UUID:
    flow_id = client.create_flow(a_flow)
    return client.create_deployment(flow_id, name=request.node.name)


def ask(client: SyncPrefectClient, deployment: UUID, due_s: float = -1, mode: str = "apply") -> UUID:
    """A run that was due ``due_s`` from now."""
    at = datetime.now(UTC) + timedelta(seconds=due_s)
    state: Any = Scheduled(scheduled_time=at)
    return client.create_flow_run_from_deployment(deployment, parameters={"mode": mode}, state=state).id


def names(client: SyncPrefectClient, *runs: UUID) -> list[str]:
    states = [client.read_flow_run(run).state for run in runs]
    return [state.name or "" if state else "" for state in states]


def acting(client: SyncPrefectClient, deployment: UUID) -> turns._Waiting:
    run = ask(client, deployment)
    client.set_flow_run_state(run, Running(), force=True)
    return turns._Waiting(run, deployment, {"mode": "apply"})


def now() -> datetime:
    return datetime.now(UTC)


def test_while_a_tick_acts_the_newest_waiting_run_stands_for_all(client: SyncPrefectClient, deployment: UUID) -> None:
    waiting = acting(client, deployment)
    first, second, third = (ask(client, deployment, due) for due in (-9, -6, -3))
    waiting.coalesce(keep=1, asked_before=now())
    assert names(client, first, second, third) == ["Coalesced", "Coalesced", "Scheduled"]


def test_the_next_scheduled_run_and_a_run_of_another_mode_are_left_alone(
    client: SyncPrefectClient, deployment: UUID
) -> None:
    waiting = acting(client, deployment)
    later, plan_only = ask(client, deployment, due_s=30), ask(client, deployment, mode="plan")
    waiting.coalesce(keep=0, asked_before=now())
    assert names(client, later, plan_only) == ["Scheduled", "Scheduled"]


def test_what_was_asked_before_the_tick_observed_is_seen_and_what_came_after_waits(
    client: SyncPrefectClient, deployment: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, before = acting(client, deployment), ask(client, deployment)
    monkeypatch.setattr(turns._Waiting, "of_this_run", lambda: waiting)
    live: Any = SimpleNamespace(exclusive=lambda _: nullcontext())
    with turns.turn(live, "apply", wait_s=1):
        after = ask(client, deployment, due_s=0.2)
    assert names(client, before, after) == ["Coalesced", "Scheduled"]


def test_a_cancelled_run_stops_before_its_next_step(
    client: SyncPrefectClient, deployment: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LOOK_S", 0.0)
    waiting = acting(client, deployment)
    assert not stops_within(waiting, 2)
    assert waiting.run_id
    client.set_flow_run_state(waiting.run_id, Cancelling(), force=True)
    assert stops_within(waiting, 30)


def test_a_server_that_cannot_be_asked_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(turns, "LOOK_S", 0.0)
    unasked = "http://127.0.0.1:9/api"

    def refused(**_: Any) -> Any:
        raise ConnectionError(unasked)

    monkeypatch.setattr("prefect.client.orchestration.get_client", refused)
    run = UUID(int=1)
    assert not stops_within(turns._Waiting(run, run, {}), 1)
    assert "could not read this run's state" in caplog.text


def test_a_server_that_does_not_answer_holds_up_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client tries again and again; meanwhile it is asked once, not once for each step."""
    monkeypatch.setattr(turns, "LOOK_S", 0.0)
    asked, answers = list[str](), threading.Event()

    def hangs(purpose: str, _: Any) -> None:
        asked.append(purpose)
        answers.wait()

    monkeypatch.setattr(turns, "_ask", hangs)
    run = UUID(int=1)
    waiting, began = turns._Waiting(run, run, {}), time.monotonic()
    assert not any(waiting.should_stop() for _ in range(10))
    assert time.monotonic() - began < 5
    assert asked == ["read this run's state"]
    answers.set()


def stops_within(waiting: turns._Waiting, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (is_over := waiting.should_stop()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return is_over
