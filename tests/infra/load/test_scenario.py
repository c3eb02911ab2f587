"""What is to be sent: scenarios, traces, and the arrivals that they make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from infra.load import Ask, Mark, Profile, Scenario, ScenarioError, Segment, read_scenario, read_trace, trace_profile
from infra.load.profile import arrivals
from infra.load.scenario import schema
from tasks.config import read_config

SCENARIOS = Path("infra/load/scenarios")
TRACE = Path("infra/load/traces/azure_llm2024_1min_6h.parquet")

CPU_MS = {
    "vad": 0.6, "filetype": 10, "ocr_cls": 1.6, "ocr_det": 30, "ocr_rec": 26, "embed": 20, "squeezenet": 9,
    "densenet121": 65, "resnet50": 81, "vgg19": 373,
}  # fmt: skip
"""Of one core a request, measured: real inference of the local fleet's models."""


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_carried_scenarios_fit_the_local_fleet(path: Path) -> None:
    profile = read_scenario(path).profile()
    assert set(profile.models) <= set(read_config("infra/local/placement.yaml").models)
    # one-off requests counted as if sent over 10 s; 500 of the 2,000 ms a second of two cores leave room for the rest
    for at_s in range(0, int(profile.duration_s), 5):
        rates_ms = sum(s.end_rps * CPU_MS[s.model] for s in profile.segments if s.start_s <= at_s < s.end_s)
        asks_ms = sum(a.count * CPU_MS[a.model] / 10 for a in profile.asks if a.at_s <= at_s < a.at_s + 10)
        assert rates_ms + asks_ms < 520, f"at {at_s} s"


def test_the_demo_tells_its_story() -> None:
    profile = read_scenario(SCENARIOS / "demo.yaml").profile()
    squeezenet = [segment for segment in profile.segments if segment.model == "squeezenet"]
    assert max(s.end_rps for s in squeezenet) / squeezenet[0].start_rps == 7
    assert [str(mark) for mark in profile.marks] == ["kill small-0"]
    assert profile.asks[0] == Ask("vgg19", 100.0, 1)
    assert profile.duration_s == 240


def test_phases_become_segments() -> None:
    scenario = Scenario.model_validate(
        {
            "name": "s",
            "phases": [
                {"duration_s": 10, "rates": {"a": 2, "b": 1}},
                {"duration_s": 20, "rates": {"a": 6}, "ramp": True, "ask": {"c": 3}, "marks": {"kill": "small-0"}},
                {"duration_s": 10, "rates": {"a": 0}},
            ],
        }
    )
    profile = scenario.profile()
    of_a = [segment for segment in profile.segments if segment.model == "a"]
    assert of_a == [Segment("a", 0, 10, 2, 2), Segment("a", 10, 30, 2, 6), Segment("a", 30, 40, 0, 0)]
    assert [s.end_rps for s in profile.segments if s.model == "b"] == [1, 1, 1]  # left out: keeps its rate
    assert (profile.asks, profile.marks) == ((Ask("c", 10, 3),), (Mark(10, "kill", "small-0"),))
    # twice the speed: half the time at the same rates; half the scale: half the rates, and requests asked for stay
    fast = scenario.profile(speed=2, scale=0.5)
    assert fast.segments[2] == Segment("a", 5, 15, 1, 3)
    assert (fast.duration_s, fast.asks) == (20, (Ask("c", 5, 3),))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "{name: s, phases: [{duration_s: 1, rate: {a: 1}}]}",
            "phases.0.rate: Extra inputs are not permitted; allowed:",
        ),
        ("{name: s, phase: []}", "phase: Extra inputs are not permitted; allowed: name, spacing, seed, phases"),
        ("{name: s, phases: []}", "phases: List should have at least 1 item"),
        ("{name: s, phases: [{duration_s: 0}]}", "phases.0.duration_s: Input should be greater than 0"),
        ("{name: s, phases: [{duration_s: .inf}]}", "phases.0.duration_s: Input should be a finite number"),
        ("{name: s, phases: [{duration_s: 1, rates: {a: -1}}]}", "phases.0.rates.a: Input should be greater than or"),
        ("{name: s, phases: [{duration_s: 1, rates: {../a: 1}}]}", "should match pattern"),
        (
            "{name: s, phases: [{duration_s: 1, ask: {a: 0}}]}",
            "phases.0.ask.a: Input should be greater than or equal to 1",
        ),
        ("{name: s, spacing: uniform, phases: [{duration_s: 1}]}", "spacing: Input should be 'poisson' or 'even'"),
        ("[1, 2]", "(top): Input should be a valid dictionary"),
        ("{name: [", "not YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text)
    with pytest.raises(ScenarioError) as error:
        read_scenario(wrong)
    assert says in str(error.value)
    assert "wrong.yaml" in str(error.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ScenarioError, match=r"missing\.yaml: cannot be read: No such file"):
        read_scenario("missing.yaml")


def test_schema_in_the_repository_is_the_code() -> None:
    says = "run: python -m infra.load --schema > infra/load/scenario.schema.json"
    assert Path("infra/load/scenario.schema.json").read_text() == schema(), says


def test_poisson_arrivals_have_the_rate_and_the_spread_of_poisson() -> None:
    profile = Profile("p", 1000, (Segment("a", 0, 500, 20, 20), Segment("a", 500, 1000, 20, 60)), seed=3)
    times = arrivals(profile).times_s
    # 500 s at 20 = 10,000 and 500 s at 40 on average = 20,000; five standard deviations are 5 x sqrt(n) = 500 and 707
    flat, ramp = (times < 500).sum(), (times >= 500).sum()
    assert abs(flat - 10_000) < 500
    assert abs(ramp - 20_000) < 707
    # the second half of the ramp averages 50 a second: 250 s x 50 = 12,500
    assert abs((times >= 750).sum() - 12_500) < 560
    # counts of whole seconds: variance = mean for Poisson; over 500 s its own standard deviation is 6 %
    counts = np.histogram(times, bins=500, range=(0, 500))[0]
    assert 0.7 < counts.var() / counts.mean() < 1.3
    # gaps are exponential: standard deviation = mean
    gaps = np.diff(times[times < 500])
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.05)


def test_even_arrivals_follow_a_ramp_exactly() -> None:
    # from 0 to 10 a second over 10 s: 50 requests, the k-th at t²/2 = k + 1/2
    profile = Profile("e", 10, (Segment("a", 0, 10, 0, 10),), spacing="even")
    np.testing.assert_allclose(arrivals(profile).times_s, np.sqrt(2 * (np.arange(50) + 0.5)))


def test_arrivals_are_the_same_for_the_same_seed_whatever_else_is_sent() -> None:
    a, b = Segment("a", 0, 100, 5, 5), Segment("b", 0, 100, 5, 5)
    alone, both = arrivals(Profile("s", 100, (a,), seed=1)), arrivals(Profile("s", 100, (a, b), seed=1))
    other = arrivals(Profile("s", 100, (a,), seed=2))
    np.testing.assert_array_equal(alone.times_s, both.times_s[both.model_index == 0])
    assert not np.array_equal(both.times_s[both.model_index == 0][:50], both.times_s[both.model_index == 1][:50])
    assert not np.array_equal(alone.times_s[:50], other.times_s[:50])
    assert (np.diff(both.times_s) >= 0).all()


def a_trace() -> pd.DataFrame:
    # x: 60 requests in the first minute, not observed in the second, none in the third; y: 600 a minute
    rows = [(0, "x", 60), (120, "x", 0), (0, "y", 600), (60, "y", 600), (120, "y", 1200)]
    return pd.DataFrame(rows, columns=["timestamp", "model", "requests"])


def test_a_trace_becomes_rates_and_its_gaps_are_told() -> None:
    profile = trace_profile(a_trace(), "busy,quiet", speed=10, scale=0.5)
    busy = [segment for segment in profile.segments if segment.model == "busy"]
    # ten times as fast: 60 s last 6; 600 a minute are 10 a second, halved 5
    assert busy == [Segment("busy", 0, 6, 5, 5), Segment("busy", 6, 12, 5, 5), Segment("busy", 12, 18, 10, 10)]
    assert profile.unobserved_s_by_model == {"quiet": 6.0}
    assert profile.duration_s == 18
    counts = pd.Series([profile.models[i] for i in arrivals(profile).model_index]).value_counts()
    assert abs(counts["busy"] - 120) < 55  # 6 x 5 + 6 x 5 + 6 x 10, five standard deviations


def test_series_are_mapped_by_name_or_left_as_they_are() -> None:
    assert trace_profile(a_trace()).models == ("x", "y")
    assert trace_profile(a_trace(), "embed=x").models == ("embed",)
    assert trace_profile(a_trace(), "embed").segments[-1].end_rps == 20  # y, the busiest: 1200 / 60
    with pytest.raises(ScenarioError, match="no series z; it has: y, x"):
        trace_profile(a_trace(), "embed=z")
    with pytest.raises(ScenarioError, match="3 models for 2 series"):
        trace_profile(a_trace(), "a,b,c")


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (a_trace().drop(columns="model"), "no column model; a trace has timestamp, model, requests"),
        (a_trace().assign(requests=-1), "counts of 0 or more"),
        (pd.concat([a_trace(), a_trace()]), "one row a series and timestamp"),
        (a_trace().head(0), "needs rows"),
    ],
)
def test_a_wrong_trace_is_named(tmp_path: Path, frame: pd.DataFrame, says: str) -> None:
    frame.to_parquet(tmp_path / "trace.parquet")
    with pytest.raises(ScenarioError, match=says):
        read_trace(tmp_path / "trace.parquet")


def test_the_carried_trace_plays() -> None:
    trace = read_trace(TRACE)
    assert TRACE.stat().st_size < 100_000
    profile = trace_profile(trace, "squeezenet,embed", speed=60, scale=0.1)
    assert profile.duration_s == pytest.approx(6 * 3600 / 60)
    assert profile.models == ("embed", "squeezenet")
