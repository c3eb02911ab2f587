"""The load generator against a real HTTP server: open loop, each failure by its cause, an honest report."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from infra.load import Ask, Mark, Options, Profile, Progress, Report, Segment, run, start
from infra.load.background import LoadDiedError
from infra.load.report import COLUMNS
from tests.infra.load.gateway import Gateway, served
from tests.triton_server import free_ports


def steady(rps: float, duration_s: float, *models: str, asks: tuple[Ask, ...] = ()) -> Profile:
    segments = tuple(Segment(model, 0.0, duration_s, rps, rps) for model in models)
    return Profile("test", duration_s, segments, asks, spacing="even")


def drive(profile: Profile, url: str, timeout_s: float = 5.0) -> Report:
    return asyncio.run(run(profile, url, Options(timeout_s)))


def test_a_slow_server_does_not_slow_arrivals() -> None:
    # a closed loop with one user would need 39 x 3 = 117 s until the last of 50 x 0.8 = 40 arrives
    with served(Gateway(delay_s={"a": 3.0})) as gateway:
        report = drive(steady(50, 0.8, "a"), gateway.url, timeout_s=20.0)
    times = [at for _, at in gateway.arrived]
    assert report.sent == report.succeeded == len(times) == 40
    assert max(times) - min(times) < 3.0  # all arrived before the first was answered
    assert report.models[0].p50_ms is not None
    assert report.models[0].p50_ms > 3000
    assert gateway.wrong == []


def test_latency_counts_from_the_intended_arrival() -> None:
    def hog(progress: Progress) -> None:
        time.sleep(0.3)  # a client that is kept from sending is late, and its report must say so

    with served(Gateway()) as gateway:
        report = asyncio.run(run(steady(100, 1.0, "a"), gateway.url, Options(5.0, on_progress=hog)))
    assert report.lag_max_ms > 250
    assert report.models[0].p99_ms is not None
    assert report.models[0].p99_ms > 250
    assert report.is_overloaded
    assert any("overloaded" in note for note in report.notes)


@pytest.mark.parametrize(
    ("gateway", "cause", "status"),
    [
        (Gateway(status={"a": 500}), "http 500", 500),
        (Gateway(resets={"a"}), "reset", 0),
        (Gateway(delay_s={"a": 3.0}), "timeout", 0),
        (Gateway(empty={"a"}), "empty answer", 200),
    ],
)
def test_each_failure_has_its_cause(gateway: Gateway, cause: str, status: int) -> None:
    with served(gateway):
        report = drive(steady(20, 0.5, "a", "b"), gateway.url, timeout_s=1.0)
    a, b = report.models
    assert (a.sent, a.succeeded, a.failed_by_cause) == (10, 0, {cause: 10})
    assert (b.sent, b.succeeded, b.failed) == (10, 10, 0)
    assert [(f.model, f.cause, f.count) for f in report.failures] == [("a", cause, 10)]
    assert report.failures[0].first_s == pytest.approx(
        0.025
    )  # the first of even arrivals at 20 a second: half of 50 ms
    assert set(report.requests.loc[report.requests["model"] == "a", "status"]) == {status}


def test_nobody_listens() -> None:
    report = drive(steady(20, 0.5, "a"), f"http://127.0.0.1:{free_ports(1)[0]}")
    assert report.models[0].failed_by_cause == {"refused": 10}
    assert "did not say before the start" in report.notes[0]


def test_cold_is_not_failed_and_only_the_scenario_wakes_a_model() -> None:
    with served(Gateway(cold={"vgg19"})) as gateway:
        report = drive(steady(20, 0.5, "a", asks=(Ask("vgg19", 0.2, 2),)), gateway.url)
    a, vgg19 = report.models
    assert (vgg19.sent, vgg19.cold, vgg19.failed, vgg19.p50_ms) == (2, 2, 0, None)
    assert (report.cold, report.failed) == (2, 0)
    assert a.succeeded == 10
    # 2 asked, 2 seen: had its inputs been asked for at the start, the gateway would have counted a third
    assert sum(count for (_, model), count in gateway.asked.items() if model == "vgg19") == 2


def test_without_the_header_a_503_is_a_failure() -> None:
    with served(Gateway(status={"a": 503})) as gateway:
        report = drive(steady(20, 0.5, "a"), gateway.url)
    assert report.models[0].failed_by_cause == {"http 503": 10}


def test_parquet_has_a_row_a_request_and_the_json_says_the_same(tmp_path: Path) -> None:
    with served(Gateway(status={"bad": 500})) as gateway:
        report = drive(steady(40, 0.5, "a", "bad"), gateway.url)
    folder = report.write(tmp_path / "report")
    rows = pd.read_parquet(folder / "requests.parquet")
    assert tuple(rows.columns) == COLUMNS
    assert rows.groupby(["model", "outcome"]).size().to_dict() == {("a", "succeeded"): 20, ("bad", "failed"): 20}
    assert rows["intended_s"].is_monotonic_increasing
    assert (rows["sent_s"] >= rows["intended_s"]).all()
    assert set(rows.loc[rows["model"] == "a", "replica"]) == {"small-0"}
    summary = json.loads((folder / "report.json").read_text())
    assert (summary["sent"], summary["succeeded"], summary["failed"]) == (40, 20, 20)
    assert summary["models"][0]["queue"]["mean_ms"] is None  # unknown is not zero


def test_marks_come_in_time_and_a_failing_one_does_not_stop_the_load() -> None:
    marks: list[Mark] = []

    def act(mark: Mark) -> None:
        marks.append(mark)
        if mark.verb == "kill":
            raise RuntimeError("no such replica")

    profile = Profile(
        "marks", 1.0, (Segment("a", 0, 1, 20, 20),), spacing="even",
        marks=(Mark(0.6, "say", "hello"), Mark(0.3, "kill", "small-0")),
    )  # fmt: skip
    with served(Gateway()) as gateway:
        report = asyncio.run(run(profile, gateway.url, Options(on_mark=act)))
    assert [str(mark) for mark in marks] == ["kill small-0", "say hello"]
    assert report.succeeded == 20
    # on a busy machine there is also a note that the generator was late
    assert "mark kill small-0 at 0 s failed: RuntimeError: no such replica" in report.notes


def test_in_the_background_it_reports_marks_and_progress_and_stops_early() -> None:
    marks: list[Mark] = []
    seen: list[Progress] = []
    profile = Profile("long", 60.0, (Segment("a", 0, 60, 50, 50),), marks=(Mark(0.5, "kill", "small-0"),))
    with (
        served(Gateway()) as gateway,
        start(profile, gateway.url, on_mark=marks.append, on_progress=seen.append) as load,
    ):
        while not (marks and seen):
            assert load.is_running
            time.sleep(0.05)
        report = load.stop()
        assert not load.is_running
    assert marks == [Mark(0.5, "kill", "small-0")]
    assert report.is_stopped_early
    assert report.clock.sending_s < 30
    assert report.sent == report.succeeded == len(report.requests) == gateway.asked["infer", "a"]


def test_the_command_writes_its_report_when_interrupted(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("{name: long, phases: [{duration_s: 60, rates: {a: 20}}]}")
    with served(Gateway()) as gateway:
        command = ["-m", "infra.load", "--gateway", gateway.url, "--scenario", str(scenario), "--out", str(tmp_path)]
        process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "160"}
        )
        while gateway.asked["infer", "a"] < 5:
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "stopped early" in output
    assert json.loads((tmp_path / "report.json").read_text())["failed"] == 0


def test_a_background_run_that_dies_says_so() -> None:
    with served(Gateway()) as gateway, start(steady(5, 60, "a"), gateway.url) as load:
        while not gateway.arrived:
            time.sleep(0.05)
        os.kill(load.pid, signal.SIGKILL)
        with pytest.raises(LoadDiedError, match="exit code -9 and no report"):
            load.wait()
