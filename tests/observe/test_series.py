"""What is read from a real Prometheus that holds the samples of the test."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from tasks.clients.prometheus import Prometheus, PrometheusError
from tasks.observe.series import covered, demand_frame, read_series, stale, wanted_frame
from tasks.world import LearnedFootprint, LoadFailure, Unknown
from tests.observe import T0, config


def test_demand_has_every_bin_and_gaps_are_not_numbers() -> None:
    """Bins of 5 s back from 100: 90, 95, 100. ``echo`` lacks 95, ``slow`` has none, ``alien`` is not ours."""
    answer = pd.DataFrame(
        [(90.0, "echo", 4.0), (100.0, "echo", 6.0), (100.0, "alien", 9.0)], columns=["time", "model", "value"]
    )
    frame = demand_frame(answer, ["echo", "slow"], 100.0, 5.0, 10.0)
    assert list(frame["model"]) == ["echo"] * 3 + ["slow"] * 3
    assert list(frame["time"]) == [90.0, 95.0, 100.0] * 2
    np.testing.assert_array_equal(frame["demand_rps"], [4.0, np.nan, 6.0, np.nan, np.nan, np.nan])


def test_nothing_answered_is_not_a_number_everywhere() -> None:
    frame = demand_frame(pd.DataFrame({"value": []}), ["echo"], 100.0, 5.0, 10.0)
    assert frame["demand_rps"].isna().all()
    assert len(frame) == 3


def test_wanted_leaves_gaps_out() -> None:
    answer = pd.DataFrame([(5.0, "b", math.nan), (5.0, "a", 2.0), (0.0, "a", 1.0)], columns=["time", "model", "value"])
    assert wanted_frame(answer).to_numpy().tolist() == [[0.0, "a", 1.0], [5.0, "a", 2.0]]


@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        ({"demand:a": 3.0, "demand:b": 4.0}, []),
        ({"demand:a": 3.0, "demand:b": 50.0}, [("model:b", "newest demand sample is 50 s old, limit 45 s")]),
        ({"demand:a": 214.0, "demand:b": 300.0}, [("prometheus", "newest demand sample is 214 s old, limit 45 s")]),
        ({"demand:a": 3.0}, [("model:b", "no demand sample in the last 300 s: check metrics.demand_query and the "
                                         "gateway's scrape")]),
    ],
)  # fmt: skip
def test_what_is_too_old_is_unknown(ages: dict[str, float], expected: list[tuple[str, str]]) -> None:
    assert stale(ages, ["a", "b"], 45.0, 300.0) == tuple(Unknown(*pair) for pair in expected)


MODELS = ["echo", "other"]


@pytest.mark.servers
def test_demand_is_read_with_its_gaps(url: str) -> None:
    """No scrape from 400 to 520. A window of 20 s may lack 3/8 x 20 = 7.5 s at each end: the last bin before the gap
    ends at 405, the first one after it at 540. ``rate`` alone would say 6.25 at 410 and 6.25 at 530."""
    series = read_series(url, config(), MODELS, T0 + 600)
    by_model = {model: frame.set_index("time")["demand_rps"] for model, frame in series.demand.groupby("model")}
    echo = by_model["echo"]
    assert list(echo.index[echo.isna()] - T0) == list(range(410, 540, 5))
    np.testing.assert_allclose(echo.dropna(), 10.0, rtol=0.13)  # at 405 an eighth of the window is missing
    assert list(by_model["other"].dropna().index - T0) == [585, 590, 595, 600]  # a rate needs two samples
    assert series.age_s_by_source["demand:echo"] == 0.0
    assert series.unknown == ()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("demand", "demand"),
        (
            'sum(rate(a:b_c{x="1"}[{window}]) + rate(d[{window}]))',
            '(sum(rate(a:b_c{x="1"}[20000ms]) + rate(d[20000ms])))'
            ' and on() (time() - 0 - max(timestamp(a:b_c{x="1"})) <= 7.5)'
            ' and on() (time() - 20 - max(timestamp(a:b_c{x="1"} offset 20000ms)) <= 7.5)',
        ),
    ],
)
def test_a_demand_query_is_answered_only_where_samples_cover_its_window(query: str, expected: str) -> None:
    assert covered(query, 20.0) == expected


@pytest.mark.servers
def test_traffic_is_one_row_a_copy(url: str) -> None:
    """10 requests a second, 9 served and 1 failed; 3 ms queued and 1 + 20 + 2 ms executed, by two of them at a time."""
    series = read_series(url, config(), MODELS, T0 + 600)
    traffic = series.traffic[series.traffic["model"].isin(MODELS)]
    assert traffic[["model", "replica"]].to_numpy().tolist() == [["echo", "small-0"], ["other", "small-1"]]
    busy, idle = traffic[["served_rps", "failed_rps", "queue_ms", "service_ms"]].to_numpy(dtype=float)
    np.testing.assert_allclose(busy, [9.0, 1.0, 3.0, 11.5])
    np.testing.assert_allclose(idle, [0.0, 0.0, np.nan, np.nan])
    assert series.age_s_by_source["traffic:small-0"] == 0.0
    assert series.age_s_by_source["traffic:small-1"] == 10.0


@pytest.mark.servers
def test_what_past_ticks_left_is_read_back(url: str) -> None:
    series = read_series(url, config(), MODELS, T0 + 600)
    # every interval / 2 = 15 s of the last 120 s; nothing before 540
    assert series.wanted.to_numpy().tolist() == [[T0 + t, "echo", 3.0] for t in (540, 555, 570, 585, 600)]
    assert series.learned.to_numpy().tolist() == [["echo", "small", 23.0, 1.5, 7.0]]
    assert series.footprints == {("echo", "small"): LearnedFootprint(9e7, 2e6, 12, T0 + 590)}
    assert series.load_failures == (LoadFailure("slow", "small-1", 2, T0 + 580),)


@pytest.mark.servers
def test_what_a_tick_of_long_ago_wanted_is_not_what_was_wanted_since(url: str) -> None:
    """The last tick observed at 600, took 20 s, and is repeated. It counts for that, an interval of 30 s and the 120 s
    that the next one may act: until 770. Every 15 s of the last 120 s."""
    series = read_series(url, config(), MODELS, T0 + 814)
    assert list(series.wanted["time"] - T0) == [694, 709, 724, 739, 754, 769]


@pytest.mark.servers
def test_only_a_copy_all_of_whose_requests_fail_is_a_suspect(url: str) -> None:
    """Not one that a client asks badly, six times of ten; nor one whose clients gave up."""
    (suspect,) = read_series(url, config(), MODELS, T0 + 600).suspects
    assert (suspect.model, suspect.replica) == ("bad", "small-0")
    assert suspect.failed == pytest.approx(10, abs=1)  # one a second in half a window


@pytest.mark.servers
@pytest.mark.parametrize("lost", ["served", "failed"])
def test_half_an_answer_makes_no_suspect(url: str, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    refuse(monkeypatch, {"served": "increase(nv_inference_request_success", "failed": "{reason!~"}[lost])
    series = read_series(url, config(), MODELS, T0 + 600)
    assert series.suspects == ()
    assert [unknown.why for unknown in series.unknown] == ["overloaded"]


@pytest.mark.servers
def test_a_service_time_without_its_executions_is_unknown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole time of a batch is not a request's."""
    refuse(monkeypatch, "nv_inference_exec_count")
    traffic = read_series(url, config(), MODELS, T0 + 600).traffic.set_index("model")
    assert traffic.loc["echo", "queue_ms"] == pytest.approx(3.0)
    assert pd.isna(traffic["service_ms"]["echo"])


def refuse(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """No answer to the instant query that has this part."""
    instant = Prometheus.instant

    def ask(prometheus: Prometheus, query: str, at: float) -> pd.DataFrame:
        if part in query:
            raise PrometheusError("overloaded")
        return instant(prometheus, query, at)

    monkeypatch.setattr(Prometheus, "instant", ask)


@pytest.mark.servers
def test_a_stale_prometheus_is_unknown_and_keeps_what_it_has(url: str) -> None:
    """The newest sample is of 600. Bins of 5 s back from 814 end at 604, then at 609, 9 s after it: too late."""
    series = read_series(url, config(), MODELS, T0 + 814)
    (unknown,) = series.unknown
    assert unknown.subject == "prometheus"
    assert unknown.why == "newest demand sample is 210 s old, limit 45 s"
    assert series.demand["demand_rps"].notna().any()
    assert series.age_s_by_source["demand:echo"] == 210.0


@pytest.mark.servers
def test_a_wrong_query_loses_only_its_part(url: str) -> None:
    series = read_series(url, config(demand_query="sum(("), MODELS, T0 + 600)
    (unknown,) = series.unknown
    assert "refuses sum((" in unknown.why
    assert series.demand.empty
    assert not series.traffic.empty
    assert series.load_failures
