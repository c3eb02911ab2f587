"""The tick as it is scheduled: on a Prefect server, through a worker, with runs that overlap, die and are refused."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from infra.local.demo import await_placement
from infra.local.prefect import SLOT_WAIT_S, environment
from infra.local.prefect_api import call, is_healthy
from infra.local.programs import BIN
from infra.local.ticks import COALESCED, EndedTick, Ticks
from tasks.clients.triton import Triton
from tasks.fleets.supervisor import Supervisor
from tests.flows.ticking import configure
from tests.infra.grafana.queries import of_the_dashboard, of_the_rules
from tests.local_fleet import RunningFleet, pid_of, running_fleet, wait_until

pytestmark = pytest.mark.servers

MODEL = {"footprint": "80MB", "service_ms": 10, "queue_ms": 100, "load_s": 10}
CONFIG: Mapping[str, Any] = {
    "pools": {"small": {"memory": "700MB", "max_replicas": 2, "start_s": 3}},
    "models": {
        "vad": MODEL,
        "filetype": {**MODEL, "min_copies": 0, "idle_s": 200},
        "ocr_cls": {**MODEL, "min_copies": 0, "idle_s": 200},
        "ocr_rec": {**MODEL, "min_copies": 0, "idle_s": 200},
        "squeezenet": {**MODEL, "min_copies": 0, "idle_s": 200},
        "embed": {**MODEL, "footprint": "220MB", "min_copies": 0, "idle_s": 200},
    },
    "limits": {"interval_s": 30, "stale_s": 45, "stabilisation_s": 60, "act_s": 60},
    "metrics": {"window_s": 20, "step_s": 5, "history_s": 300},
}
LOAD_S = 8.0
"""How long a model that is made slow takes to load: enough to break in."""
SCENARIO = """
name: short
phases:
  - {name: quiet, duration_s: 6, rates: {vad: 5}}
  - {name: vad rises, duration_s: 4, ramp: true, rates: {vad: 35}}
  - {name: the cold model is asked for, duration_s: 30, ask: {embed: 1}}
  - {name: a replica is killed, duration_s: 25, marks: {kill: small-0}}
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """With Prefect; the schedule is paused, and nothing listens: a test asks for its ticks itself."""
    with running_fleet(tmp_path_factory.mktemp("schedule"), CONFIG, has_prefect=True) as fleet:
        Supervisor(fleet.live.state.supervisor_socket).stop("listener")
        pause_schedule(fleet, True)
        await_placement(fleet.live, Ticks(fleet.live.state, time.time()), print)
        yield fleet


@pytest.fixture
def ticks(fleet: RunningFleet) -> Ticks:
    """Those of this test."""
    return Ticks(fleet.live.state, time.time())


def pause_schedule(fleet: RunningFleet, is_paused: bool) -> None:
    deployment = call(fleet.live.state, "GET", "deployments/name/reconcile/local")
    call(fleet.live.state, "PATCH", f"deployments/{deployment['id']}", {"paused": is_paused})


def run_of(fleet: RunningFleet, run_id: str) -> Any:
    return call(fleet.live.state, "GET", f"flow_runs/{run_id}")


def ended(ticks: Ticks, run_ids: list[str], timeout_s: float) -> dict[str, EndedTick]:
    """By id, once all of them have ended."""
    found: dict[str, EndedTick] = {}

    def all_ended() -> bool:
        found.update({tick.id: tick for tick in ticks.new()})
        return set(run_ids) <= set(found)

    wait_until(all_ended, f"{len(run_ids)} runs ended", timeout_s)
    return found


def is_acting(fleet: RunningFleet) -> bool:
    """Somebody holds the fleet's lock."""
    with (fleet.live.state.folder / "act.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def state_in_triton(fleet: RunningFleet, model: str) -> str:
    with Triton(fleet.replica("small-0"), secret="") as triton:
        return triton.index()[model].state


def slow_down(fleet: RunningFleet, model: str) -> None:
    """Its next loads take ``LOAD_S``."""
    code = fleet.live.state.folder / "repository" / model / "1" / "model.py"
    code.chmod(0o644)
    code.write_text(code.read_text() + f"\n\ntime.sleep({LOAD_S})\n")


def begin_slow_load(fleet: RunningFleet, ticks: Ticks, model: str) -> str:
    """The id of a run that is in the middle of acting: its load is under way."""
    slow_down(fleet, model)
    configure(fleet, {model: {"min_copies": 1}})
    run_id = ticks.ask()
    wait_until(lambda: state_in_triton(fleet, model) == "LOADING", f"{model} loading", 30)
    return run_id


def loads(fleet: RunningFleet, model: str) -> int:
    """How often Triton was told to load the model since it started."""
    log = (fleet.live.state.folder / "logs" / "small-0.log").read_text()
    return len(re.findall(rf"\bloading: {model}:", log))


def pages(fleet: RunningFleet) -> str:
    """All versions of the summary."""
    wanted = {"artifacts": {"key": {"any_": ["reconcile-summary"]}}}
    return "\n".join(page["data"] for page in call(fleet.live.state, "POST", "artifacts/filter", wanted))


def summary_artifact(fleet: RunningFleet) -> Any:
    return call(fleet.live.state, "GET", "artifacts/reconcile-summary/latest")


def steps_of_the_latest(fleet: RunningFleet) -> list[dict[str, str]]:
    return list(json.loads(call(fleet.live.state, "GET", "artifacts/reconcile-steps/latest")["data"]))


def by_hand(fleet: RunningFleet, *arguments: str) -> str:
    """What ``prefect deployment run`` says to a person who waits for the end of the run."""
    command = [str(BIN / "prefect"), "deployment", "run", "reconcile/local", "--watch", *arguments]
    settings = os.environ | environment(fleet.live.state)
    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=120, check=True).stdout


def waits_s(fleet: RunningFleet, run_id: str) -> list[int]:
    """Each time when it found another run acting: seconds until it was to be asked again."""
    states = call(fleet.live.state, "GET", f"flow_run_states/?flow_run_id={run_id}")
    return [
        round(seconds(state["state_details"]["scheduled_time"]) - seconds(state["timestamp"]))
        for state in states
        if state["name"] == "AwaitingConcurrencySlot"
    ]


def seconds(time_text: str) -> float:
    return datetime.fromisoformat(time_text).timestamp()


def logged(fleet: RunningFleet, run_id: str) -> str:
    wanted = {"logs": {"flow_run_id": {"any_": [run_id]}}}
    return "\n".join(line["message"] for line in call(fleet.live.state, "POST", "logs/filter", wanted))


def planned_page(fleet: RunningFleet) -> str:
    """What a tick that only plans says; empty: its page did not come, as one may not while the server is too busy."""
    said = by_hand(fleet, "-p", "mode=plan")
    found = re.search(r"UUID: ([0-9a-f-]{36})", said)
    assert found is not None, said
    page = summary_artifact(fleet)
    return str(page["data"]) if page["flow_run_id"] == found[1] else ""


def test_plan_shows_exactly_what_apply_does(fleet: RunningFleet) -> None:
    configure(fleet, {"squeezenet": {"min_copies": 1}})

    def is_known() -> bool:
        page = planned_page(fleet)
        return bool(page) and "demand_unknown" not in page

    wait_until(is_known, "the demand of each model is known", 90)
    planned = steps_of_the_latest(fleet)
    assert "plan only" in summary_artifact(fleet)["description"]
    assert {row["result"] for row in planned} == {"planned"}
    # not asked of the gateway: a request would be demand, and the next tick's arithmetic another
    assert loads(fleet, "squeezenet") == 0, "nothing was done"
    by_hand(fleet)
    applied = steps_of_the_latest(fleet)
    assert {row["result"] for row in applied} == {"done"}
    decided = ("step", "reason", "arithmetic")
    assert [[row[key] for key in decided] for row in planned] == [[row[key] for key in decided] for row in applied]
    assert fleet.ask("squeezenet").ok
    assert "record" in summary_artifact(fleet)["data"].rpartition("own time")[2], "each phase's seconds"


def test_a_step_that_fails_is_in_the_log_and_on_the_page_with_its_cause(fleet: RunningFleet, ticks: Ticks) -> None:
    file = fleet.live.state.folder / "repository" / "ocr_rec" / "1" / "model.onnx"
    whole = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(whole[:1000])
    configure(fleet, {"ocr_rec": {"min_copies": 1}})
    run = ticks.ask()
    assert ended(ticks, [run], 180)[run].state == "Completed", "what failed is one step, not the tick"
    file.write_bytes(whole)
    configure(fleet, {"ocr_rec": {"min_copies": 0}})
    wait_until(lambda: "load ocr_rec" in logged(fleet, run), "logged", 20)
    assert "Protobuf parsing failed" in logged(fleet, run)
    assert "Protobuf parsing failed" in summary_artifact(fleet)["data"]


def test_runs_that_overlap_act_one_after_the_other_and_at_most_one_waits(fleet: RunningFleet, ticks: Ticks) -> None:
    first = begin_slow_load(fleet, ticks, "filetype")
    later = [ticks.ask() for _ in range(3)]
    found = ended(ticks, [first, *later], 180)
    assert found[first].state == "Completed", found[first]
    assert sorted(found[run].state for run in later) == [COALESCED, COALESCED, "Completed"]
    second = next(run for run in later if found[run].state == "Completed")
    assert run_of(fleet, first)["end_time"] <= run_of(fleet, second)["start_time"]
    assert set(waits_s(fleet, second)) == {SLOT_WAIT_S}
    assert loads(fleet, "filetype") == 1
    assert fleet.ask("filetype").ok


def test_a_run_killed_while_it_acts_blocks_nothing_and_is_not_repeated(fleet: RunningFleet, ticks: Ticks) -> None:
    killed = begin_slow_load(fleet, ticks, "ocr_cls")
    os.kill(int(run_of(fleet, killed)["infrastructure_pid"]), signal.SIGKILL)
    wait_until(lambda: not is_acting(fleet), "the lock is free")
    next_run = ticks.ask()
    found = ended(ticks, [killed, next_run], 180)
    assert found[killed].state == "Crashed"
    wait_until(lambda: "status code: -9" in pages(fleet), "the artifact says why")
    assert found[next_run].state == "Completed", found[next_run]
    assert loads(fleet, "ocr_cls") == 1, "what Triton went on with was waited for, not asked for again"
    assert fleet.ask("ocr_cls").ok


def test_an_invalid_configuration_is_refused_and_says_where(fleet: RunningFleet, ticks: Ticks) -> None:
    good = fleet.config_path.read_text()
    fleet.config_path.write_text(good.replace("limits:", "limits:\n  bugdet: 3"))
    try:
        refused = ticks.ask()
        found = ended(ticks, [refused], 180)
    finally:
        fleet.config_path.write_text(good)
    assert found[refused].state == "Failed"
    # the hook that leaves it runs once the state is told
    wait_until(lambda: "limits.bugdet" in summary_artifact(fleet)["data"], "its page")
    assert "allowed: interval_s, budget" in summary_artifact(fleet)["data"]
    wait_until(lambda: "limits.bugdet" in logged(fleet, refused), "and its log", 20)
    assert fleet.ask("vad").ok, "the fleet is left as it is"
    again = ticks.ask()
    assert ended(ticks, [again], 180)[again].state == "Completed"


def test_the_prefect_server_restarts_in_the_middle_of_a_tick(fleet: RunningFleet, ticks: Ticks) -> None:
    configure(fleet, {"filetype": {"min_copies": 2}})
    run = ticks.ask()
    wait_until(lambda: is_acting(fleet), "acting", 30)
    os.kill(pid_of(fleet, "prefect-server"), signal.SIGKILL)
    wait_until(lambda: is_healthy(fleet.live.state), "the server is back", 60)
    assert ended(ticks, [run], 180)[run].state == "Completed"
    assert summary_artifact(fleet)["flow_run_id"] == run, "what it decided is not lost"
    wait_until(lambda: "steps: " in logged(fleet, run), "and logged", 20)
    after = ticks.ask()
    assert ended(ticks, [after], 180)[after].state == "Completed"


def test_a_worker_that_dies_with_its_run_blocks_the_schedule_for_minutes_not_for_ever(
    fleet: RunningFleet, ticks: Ticks
) -> None:
    lost = ticks.ask()
    wait_until(lambda: is_acting(fleet), "acting", 30)
    for pid in (pid_of(fleet, "prefect-worker"), int(run_of(fleet, lost)["infrastructure_pid"])):
        os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    next_run = ticks.ask()
    found = ended(ticks, [next_run], 180)  # 90 s without a heartbeat, a retry every 20 s, a start: 122 s were seen
    print(f"{time.monotonic() - began:.0f} s from the death to the end of the next tick")
    assert found[next_run].state == "Completed", found[next_run]
    wait_until(lambda: run_of(fleet, lost)["state_name"] == "Crashed", "the lost run is called crashed", 60)


def test_the_demo_runs_on_the_fleet_that_is_up_and_tells_what_became_of_it(fleet: RunningFleet, tmp_path: Path) -> None:
    scenario = tmp_path / "short.yaml"
    scenario.write_text(SCENARIO)
    # one copy that is busy 0.35 of the time no longer keeps the objective
    configure(fleet, {"vad": {"queue_ms": 4}})
    Supervisor(fleet.live.state.supervisor_socket).start("listener")
    pause_schedule(fleet, False)
    command = [
        sys.executable,
        "-m",
        "infra.local.demo",
        "--config",
        str(fleet.config_path),
        "--scenario",
        str(scenario),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    for words in (
        "vad 1 → 2",  # the rise
        "embed 0 → 1 (a request",  # the cold model
        "killed small-0 with SIGKILL",
        "served again",
        "every model in every replica",
        "of the machine's",
        "reconcile-summary",
        "make down",
    ):
        assert words in done.stdout
    assert (fleet.live.state.folder / "load" / "requests.parquet").exists()


WHERE_SOMETHING_FAILED = {
    "Loads that fail A",
    "Loads that fail B",
    "annotation Steps failed",
    "Failed at the gateway A",
}
WHERE_A_GPU_IS = {"Memory over time B"}


def test_each_query_of_the_dashboard_is_answered_by_what_ran_here(fleet: RunningFleet) -> None:
    """Since the fleet came up: each has values, those apart for which something must have failed, or a GPU be there."""
    empty = {where for where, query in of_the_dashboard().items() if not values(fleet, query)}
    assert empty <= WHERE_SOMETHING_FAILED | WHERE_A_GPU_IS
    for query in of_the_rules().values():
        values(fleet, query)


def values(fleet: RunningFleet, query: str) -> list[Any]:
    """Of the last quarter of an hour."""
    asked = {"query": query, "start": f"{time.time() - 900}", "end": f"{time.time()}", "step": "5"}
    url = f"{fleet.live.state.url('prometheus')}/api/v1/query_range"
    answer = requests.get(url, params=asked, timeout=10).json()
    assert answer["status"] == "success", f"{query}: {answer.get('error')}"
    return list(answer["data"]["result"])
