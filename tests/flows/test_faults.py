"""One thing breaks at a time, for real: the tick says why, holds what it must, and recovers once it is whole again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from infra.load import start
from infra.local.leftovers import processes
from tasks.decision import StepKind, Tick
from tasks.fleets.supervisor import Supervisor
from tasks.record import one_line
from tasks.record.page import summary
from tests.flows.ticking import configure, flat, is_settled, serving, tick, ticks_until
from tests.local_fleet import RunningFleet, pid_of, running_fleet, wait_until

pytestmark = pytest.mark.servers

EVERY_S = 5.0
MODEL = {"service_ms": 10, "queue_ms": 100, "load_s": 2, "footprint": "80MB"}
CONFIG: Mapping[str, Any] = {
    "pools": {"small": {"memory": "700MB", "max_replicas": 2, "start_s": 3}},
    "models": {
        "vad": MODEL,
        "filetype": {**MODEL, "service_ms": 20},
        "ocr_cls": {**MODEL, "min_copies": 0, "idle_s": 200},
        "ocr_rec": {**MODEL, "min_copies": 0, "idle_s": 200, "service_ms": 40},
    },
    "limits": {"interval_s": EVERY_S, "stale_s": 15, "stabilisation_s": 10, "act_s": 20},
    "metrics": {"window_s": 20, "step_s": 5, "history_s": 300},
}
SHRINKS = (StepKind.UNROUTE, StepKind.UNLOAD, StepKind.SCALE_DOWN)


@pytest.fixture(scope="module")
def broken_in_turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """Settled under a light load that goes on whatever breaks."""
    with running_fleet(tmp_path_factory.mktemp("faults"), CONFIG) as fleet:
        ticks_until(fleet, lambda t: bool(serving(t, "vad") and serving(t, "filetype")), "served", every_s=1)
        with start(flat(900.0, {"vad": 3.0, "filetype": 3.0}), fleet.live.gateway_url):
            yield fleet


@pytest.fixture
def fleet(broken_in_turn: RunningFleet) -> RunningFleet:
    """Whole: what the test before broke has been repaired without a hand on the fleet."""
    ticks_until(broken_in_turn, is_settled, "settled", 20, EVERY_S)
    return broken_in_turn


@contextmanager
def stopped(fleet: RunningFleet, program: str) -> Iterator[None]:
    supervisor = Supervisor(fleet.live.state.supervisor_socket)
    supervisor.stop(program)
    try:
        yield
    finally:
        supervisor.start(program)


def is_unknown(subject: str, words: str) -> Callable[[Tick], bool]:
    return lambda t: any(u.subject == subject and words in u.why for u in t.observation.unknown)


def is_told(a_tick: Tick, words: str) -> bool:
    """In the artifact's page, and in the line that is logged."""
    return words in summary(a_tick) and words in one_line(a_tick)


def assert_all_held(ticks: list[Tick]) -> None:
    last = ticks[-1]
    assert {s.model for s in last.sizings if s.is_held} == {m.name for m in last.observation.fleet.models}
    assert [str(s) for t in ticks for s in t.plan.steps if s.kind in SHRINKS] == []


def test_prometheus_down(fleet: RunningFleet) -> None:
    with stopped(fleet, "prometheus"):
        down = tick(fleet)
    assert is_told(down, "does not answer")
    assert is_unknown("prometheus", "does not answer")(down)
    assert_all_held([down])
    ticks_until(fleet, is_settled, "demand known again", 12, EVERY_S)


def test_prometheus_stale(fleet: RunningFleet) -> None:
    """It answers, and scrapes the gateway at an address where nobody is."""
    config = fleet.live.state.folder / "prometheus" / "prometheus.yml"
    whole = config.read_text()
    config.write_text(whole.replace(fleet.live.state.address("gateway_admin"), "127.0.0.1:9"))
    os.kill(pid_of(fleet, "prometheus"), signal.SIGHUP)
    try:
        ticks = ticks_until(fleet, is_unknown("prometheus", "s old, limit 15 s"), "stale", 10, EVERY_S)
    finally:
        config.write_text(whole)
        os.kill(pid_of(fleet, "prometheus"), signal.SIGHUP)
    assert is_told(ticks[-1], "s old, limit 15 s")
    assert_all_held(ticks[-1:])


def test_gateway_down(fleet: RunningFleet) -> None:
    with stopped(fleet, "envoy"):
        down = tick(fleet)
    assert is_told(down, "the gateway (Envoy) does not answer")
    assert [str(s) for s in down.plan.steps if s.kind in SHRINKS] == []
    wait_until(lambda: is_answered(fleet, "vad"), "served as before")


def is_answered(fleet: RunningFleet, model: str) -> bool:
    with suppress(requests.ConnectionError):
        return fleet.ask(model).ok
    return False


def without_files(folder: Path) -> Callable[[], None]:
    """The whole folder is gone: Triton refuses the load. What is given brings it back."""
    away = folder.parents[1] / folder.name
    folder.chmod(0o755)
    folder.rename(away)
    return lambda: void(away.rename(folder))


def with_half_a_file(folder: Path) -> Callable[[], None]:
    file = folder / "1" / "model.onnx"
    whole = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(whole[: len(whole) // 2])
    return lambda: void(file.write_bytes(whole))


def void(_: object) -> None:
    return None


@pytest.mark.parametrize(
    ("model", "damage", "says"),
    [
        pytest.param("ocr_cls", without_files, "failed to poll from model repository", id="a load that is refused"),
        pytest.param("ocr_rec", with_half_a_file, "Protobuf parsing failed", id="broken files"),
    ],
)
def test_a_load_that_fails(
    fleet: RunningFleet, model: str, damage: Callable[[Path], Callable[[], None]], says: str
) -> None:
    repair = damage(fleet.live.state.folder / "repository" / model)
    configure(fleet, {model: {"min_copies": 1}})
    try:
        failed = tick(fleet)
        time.sleep(EVERY_S + 1)  # until what it told has been scraped
        held = tick(fleet)
    finally:
        repair()
    details = [o.detail for o in failed.outcomes if o.step.model == model]
    assert says in details[0], details
    assert says in summary(failed)
    assert [str(s) for s in held.plan.steps if s.model == model] == []
    assert "backoff" in summary(held)
    assert serving(held, "vad"), "the others are left alone"
    ticks_until(fleet, lambda t: bool(serving(t, model)), "tried again and served", 15, EVERY_S)


def test_a_copy_that_is_ready_and_whose_process_is_dead(fleet: RunningFleet) -> None:
    os.kill(stub_of(fleet, "filetype"), signal.SIGKILL)
    ticks = ticks_until(fleet, lambda t: any(s.model == "filetype" for s in t.plan.steps), "found", 6, EVERY_S)
    repaired = ticks[-1]
    assert "copy_failing" in summary(repaired)
    assert is_told(repaired, "requests failed in")
    tensor = {"name": "bytes", "shape": [1, 2048], "datatype": "INT32", "data": [0] * 2048}
    answer = fleet.infer("filetype", tensor)
    assert answer.status_code == 200, answer.text


def stub_of(fleet: RunningFleet, model: str) -> int:
    """The process of the model's Python backend."""
    mark = f"/repository/{model}/"
    found = [p for p in processes(fleet.live.state.folder) if mark in Path(f"/proc/{p}/cmdline").read_text()]
    assert len(found) == 1, found
    return found[0]
