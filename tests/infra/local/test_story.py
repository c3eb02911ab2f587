"""The demo's last page, from plain values."""

from __future__ import annotations

import pandas as pd

from infra.load.report import COLUMNS as REQUEST
from infra.load.report import Clock, Report
from infra.local.samples import Kill
from infra.local.story import COLUMNS, ROWS, Story, chart, lost_to, told_kill
from tests.infra.local.test_samples import sample

START = 1_000.0
KILL = Kill("small-0", START + 10, ("a", "b"))


def requests(*rows: tuple[float, str, float, str, str]) -> pd.DataFrame:
    """(intended s, model, latency ms, outcome, cause)"""
    full = [(at, at, model, ms, outcome, 0, cause, "") for at, model, ms, outcome, cause in rows]
    return pd.DataFrame(full, columns=list(REQUEST))


SENT = requests(
    (5.0, "a", 20.0, "failed", "timeout"),  # before the kill
    (9.99, "a", 30.0, "failed", "reset"),  # in flight
    (11.0, "b", 2.0, "failed", "http 503"),
    (12.0, "b", 2.0, "failed", "http 503"),
    (12.0, "b", 2.0, "succeeded", ""),
    (12.0, "c", 2.0, "failed", "http 503"),  # it did not hold c
)


def story(kill: Kill | None = KILL) -> Story:
    """Ten seconds with 3 copies, ten with 4; then ``a`` is lost and back after 4 s."""
    three = (("a", 0), ("b", 0), ("c", 1))
    samples = (
        *(sample(START + t, *three) for t in range(10)),
        *(sample(START + t, ("b", 1), ("c", 1), lost=(("a", 0), ("b", 0))) for t in range(11, 14)),
        *(sample(START + t, *three, ("a", 1)) for t in range(14, 21)),
    )
    report = Report("demo", "", Clock(START, 20.0, 20.0, 1.0), False, (), (), 1.0, 2.0, (), SENT)
    return Story(report, samples, kill, {"quiet": 0.0, "a replica is killed": 10.0})


def test_requests_lost_to_a_kill_are_of_its_models_and_from_then_on() -> None:
    assert lost_to(KILL, SENT, START) == {("a", "reset"): 1, ("b", "http 503"): 2}


def test_what_a_kill_cost() -> None:
    assert told_kill(story(), KILL).splitlines() == [
        "10 s after the start small-0 was killed (SIGKILL); it served a, b",
        "no other replica served a, b: served again 4 s after the kill",
        "requests that failed from then on, of these models: 1 reset (a), 2 http 503 (b)",
    ]


def test_the_chart_is_as_high_as_the_most_copies_and_names_the_phases() -> None:
    lines = chart(story())
    # a twice at the end: two replicas with three models each
    assert lines[0].startswith("    6 │")
    assert lines[0].endswith("░")
    rows = [line.partition("│")[2] for line in lines[:ROWS]]
    assert {len(row) for row in rows} == {COLUMNS}
    assert rows[-1] == "█" * COLUMNS, "there is always a copy"
    assert "1 quiet · 2 a replica is killed" in "\n".join(lines)
