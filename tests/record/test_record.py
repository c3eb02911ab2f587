"""What a tick leaves behind: words, pictures and metrics, from plain values."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from prometheus_client import generate_latest

from tasks.decision import (
    Assignment,
    FleetCost,
    Forecast,
    Hold,
    Outcome,
    Placement,
    Plan,
    Reason,
    Result,
    Sizing,
    Step,
    StepKind,
    Tick,
)
from tasks.record import record
from tasks.record.metrics import load_failures, registry
from tasks.record.page import summary
from tasks.record.picture import demand_svg, placement_svg
from tasks.record.rows import demand_rows, placement_rows
from tasks.record.words import one_line
from tasks.world import LearnedFootprint, Limits, LoadFailure, Need, Pool, Unknown
from tests.worlds import NOW, observation

WHY = Reason("demand", "40.0 req/s / 18.0 a copy within 50 ms at p95 -> 3 copies")
KEPT = Reason("kept", "already there")


def a_tick(results: tuple[Result, ...] = (Result.DONE, Result.DONE), mode: str = "apply") -> Tick:
    load = Step(1, StepKind.LOAD, WHY, model="b", replica="small-1")
    route = Step(2, StepKind.ROUTE, WHY, model="b", replica="small-1", needs=(1,))
    return Tick(
        mode=mode,
        observation=observation(),
        forecasts=(
            Forecast("a", 10.0, 20.0, 60.0, "last_value"),
            Forecast("b", 20.0, 40.0, 60.0, "last_value"),
            Forecast("c", None, None, 60.0, "unknown"),
        ),
        sizings=(
            Sizing("a", 2, 20.0, {"small": 18.0}, Reason("demand", "20.0 / 18.0 -> 2")),
            Sizing("b", 2, 40.0, {"small": 18.0}, WHY),
            Sizing("c", 0, None, {"small": 18.0}, Reason("demand_unknown", "no sample for 70 s")),
        ),
        placement=Placement(
            tuple(Assignment(m, r, KEPT) for m, r in (("a", "small-0"), ("b", "small-1"))), {"small": 2}
        ),
        plan=Plan((load, route), (Hold("replica:small-1", Reason("busy", "c is loading")),)),
        outcomes=tuple(Outcome(s, r, 1.5, at=NOW + 1) for s, r in zip((load, route), results, strict=False)),
        seconds_by_phase={"observe": 0.2, "size": 0.001, "decide": 0.01, "act": 3.0},
    )


def test_one_line_says_what_was_done_why_what_is_held_and_how_long_it_took() -> None:
    line = one_line(a_tick())
    assert line == (
        "steps: 1 load, 1 route · b 1 → 2 (40.0 req/s / 18.0 a copy within 50 ms at p95 -> 3 copies)"
        " · held: 1 busy · observe 0.20 s, decide 0.01 s, act 3.00 s"
    )


def test_why_steps_were_skipped_is_told_not_that_others_needed_them() -> None:
    tick, lost = a_tick((Result.SKIPPED, Result.SKIPPED)), "vad has lost its last copy"
    load, route = tick.outcomes
    tick = replace(tick, outcomes=(replace(load, detail=lost), replace(route, detail="needs step 1, which is skipped")))
    assert f"steps: none, 2 skipped · b 1 → 2 ({WHY.text}) · skipped: {lost} · held" in one_line(tick)
    assert f"Not all of it was done: {lost}\n" in summary(tick)
    assert "skipped:" not in one_line(a_tick())
    assert "Not all" not in summary(a_tick())


@pytest.mark.parametrize(
    ("tick", "says"),
    [
        (a_tick(()), "plan only: 2 steps, 1 loads and unloads"),
        (a_tick((Result.FAILED, Result.SKIPPED)), "steps: none, 1 failed, 1 skipped"),
        (replace(a_tick(), plan=Plan(), outcomes=()), "steady, no step"),
    ],
)
def test_deeds(tick: Tick, says: str) -> None:
    assert one_line(tick).startswith(says)


def test_what_could_not_be_read_is_said_in_the_line_and_on_the_page() -> None:
    seen = replace(observation(), unknown=(Unknown("prometheus", "connection refused"),))
    tick = replace(a_tick(), observation=seen)
    assert "unknown: prometheus (connection refused)" in one_line(tick)
    assert "- **prometheus**: connection refused" in summary(tick)


def test_a_copy_that_only_seems_to_serve_is_told_with_what_was_seen() -> None:
    seen = observation()
    first, *others = seen.fleet.copies
    broken = replace(first, is_failing=True, detail="9 of 9 requests failed in 10 s")
    fleet = replace(seen.fleet, copies=(broken, *others))
    tick = replace(a_tick(), observation=replace(seen, fleet=fleet))
    assert "- **a in small-0**: 9 of 9 requests failed in 10 s" in summary(tick)
    assert "failing: a in small-0 (9 of 9 requests failed in 10 s)" in one_line(tick)


def test_page_tells_changes_holds_steps_and_the_unknown_forecast() -> None:
    page = summary(a_tick())
    assert "- **b 1 → 2 copies** — `demand`: 40.0 req/s / 18.0" in page
    assert "- **replica:small-1** — `busy`: c is loading" in page
    assert "| load b small-1 | demand | done | 1.50 |" in page
    assert "- a: `demand`: 20.0 / 18.0 -> 2" in page, "what stays has its arithmetic too"
    assert "3 copies serve (every model in every replica: 6)" in page
    assert page.count("data:image/svg+xml;base64,") == 2


def test_copies_beyond_what_demand_needs_among_which_a_model_is_spread_are_no_change() -> None:
    """a needs one copy, and keeps the two that serve it, each with a smaller share; b is to go from one to three."""
    a, b, c = a_tick().sizings
    where = (("a", "small-0"), ("a", "small-1"), ("b", "small-0"), ("b", "small-1"), ("b", "small+1"))
    placement = Placement(tuple(Assignment(m, r, KEPT) for m, r in where), {"small": 3})
    tick = replace(a_tick(), sizings=(replace(a, copies=1), b, c), placement=placement)
    page = summary(tick)
    assert "a 2 →" not in page + one_line(tick)
    assert "- a: `demand`: 20.0 / 18.0 -> 2, spread over 2" in page
    assert (
        "- **b 1 → 3 copies** — `demand`: 40.0 req/s / 18.0 a copy within 50 ms at p95 -> 3 copies, spread over 3"
        in page
    )
    assert [(row["copies"], row["wanted"], row["placed"]) for row in demand_rows(tick)] == [
        (2, 1, 2),
        (1, 2, 3),
        (0, 0, 0),
    ]


def test_picture_of_demand_tells_what_the_copies_placed_can_serve() -> None:
    """b is forecast to 40 req/s: a small copy serves 18, and one more in a large replica that is still to come 30."""
    small, large = Assignment("b", "small-0", KEPT), Assignment("b", "large+1", KEPT)
    plain, dashes = a_tick(), 'stroke-dasharray="4 3"'
    pools = (*plain.observation.fleet.pools, Pool("large", "large", 10**9, min_replicas=0, max_replicas=1, replicas=0))
    b = replace(plain.sizings[1], capacity_rps_by_gpu_type={"small": 18.0, "large": 30.0})
    tick = replace(
        plain,
        observation=replace(plain.observation, fleet=replace(plain.observation.fleet, pools=pools)),
        forecasts=plain.forecasts[1:2],
        sizings=(b,),
    )
    assert dashes in demand_svg(replace(tick, placement=Placement((small,), {})))
    assert dashes not in demand_svg(replace(tick, placement=Placement((small, large), {}))), "18 + 30 > 1.15 * 40"


def test_page_of_a_large_fleet_is_short_and_says_where_the_rest_is() -> None:
    """60 models, the last one the busiest, and 50 replicas, of which the last one is to load a copy."""
    seen, plain = observation(), a_tick()
    models = tuple(replace(seen.fleet.models[0], name=f"m{i}") for i in range(60))
    replicas = tuple(replace(seen.fleet.replicas[0], name=f"small-{i:02}") for i in range(50))
    load = Step(1, StepKind.LOAD, WHY, model="m0", replica="small-49")
    tick = replace(
        plain,
        observation=replace(seen, fleet=replace(seen.fleet, models=models, replicas=replicas, copies=())),
        forecasts=tuple(Forecast(m.name, 1.0, float(i), 60.0, "last_value") for i, m in enumerate(models)),
        sizings=tuple(Sizing(m.name, 1, 1.0, {"small": 18.0}, WHY) for m in models),
        placement=Placement((), {"small": 50}),
        plan=Plan((load,)),
        outcomes=(),
    )
    page = summary(tick)
    assert page.count(" 0 → 1 copies") == 50
    assert page.count("and 10 more: all are in `reconcile-demand`") == 2, "what changes, and every model"
    assert "| m59 |" in page
    assert "| m9 |" not in page
    words = "".join(ElementTree.fromstring(placement_svg(tick)).itertext())
    assert "(10 more are not drawn)" in words
    assert ["small-38" in words, "small-39" in words, "small-49" in words] == [True, False, True]
    assert "48 more models are not drawn" in demand_svg(tick)


def test_page_tells_what_the_fleet_costs_against_the_least_that_it_could() -> None:
    assert "costs" not in summary(a_tick())
    page = summary(replace(a_tick(), cost=FleetCost(3.0, 2.4)))
    assert "The fleet that is to be costs 3.00 an hour; the lower bound is 2.40, 25% above it" in page


def test_page_tells_the_room_that_is_kept_for_a_copy_and_what_it_is_reckoned_from() -> None:
    """Model a is declared; b was measured, 190 +- 10 MB on the small type, and looked at on the large one."""
    seen = observation()
    a, b, c = seen.fleet.models
    small = Need(210_000_000, 50, footprint_source="measured", footprint_seen=(190e6, 10e6))
    large = Need(262_000_000, 50, footprint_source="learned", footprint_seen=(168e6, 47e6))
    fleet = replace(seen.fleet, models=(a, replace(b, need_by_gpu_type={"small": small, "large": large}), c))
    known = {("b", "large"): LearnedFootprint(168e6, 47e6, 13, NOW)}
    page = summary(replace(a_tick(), observation=replace(seen, fleet=fleet, footprints=known)))
    assert "| 18.0 | 100 MB | 2 | 2 | 1 |" in page
    assert "| 18.0 | 210-262 MB | 1 | 2 | 1 |" in page
    assert (
        "## What a copy takes\n- b: small: 210 MB measured (190 ± 10 MB); large: 262 MB learned, serving 168 ± 47 MB "
        "in 13 looks until 2027-01-15 08:00\n\n"
    ) in page
    assert "## What a copy takes" not in summary(a_tick())


def test_a_fleet_that_leaves_models_out_costs_less_than_the_bound_and_is_not_called_good() -> None:
    assert str(FleetCost(1.0, 2.0)) == "1.00 an hour; the lower bound is 2.00"
    assert str(FleetCost(1.0, 0.0)) == "1.00 an hour; the lower bound is 0.00"


def test_pictures_are_well_formed_and_name_every_replica_and_forecast() -> None:
    placement, demand = placement_svg(a_tick()), demand_svg(a_tick())
    words = "".join(ElementTree.fromstring(placement).itertext())
    assert "small-0" in words
    assert "300 of 500 MB" in words, "a 100 MB and b 200 MB"
    assert "c: unknown" in "".join(ElementTree.fromstring(demand).itertext())
    assert len(placement) + len(demand) < 20_000


def test_tables_name_every_model_and_every_copy() -> None:
    assert [row["model"] for row in demand_rows(a_tick())] == ["a", "b", "c"]
    assert demand_rows(a_tick())[2]["upper"] == "unknown"
    by_copy = {(row["model"], row["replica"]): row for row in placement_rows(a_tick())}
    assert by_copy["b", "small-1"]["now"] == "not there"
    assert by_copy["a", "small-1"]["should be"] == "gone"


def test_unequal_shares_are_told_with_their_reason() -> None:
    """a has weight 1 in both of its replicas now."""
    weights = (("a", "small-0", 0.5), ("a", "small-1", 1.5), ("b", "small-0", 1.0))
    why = Reason("weighed", "small-0 is over its compute target by 0.10")
    wanted = tuple(Assignment(model, replica, KEPT, weight) for model, replica, weight in weights)
    tick = replace(a_tick(), placement=Placement(wanted, {"small": 2}, weight_reasons={"a": why}))
    assert f"## Shares of requests\n- **a**: small-0 0.5, small-1 1.5 · {why}\n" in summary(tick)
    assert [row["weight"] for row in placement_rows(tick)] == ["1 → 0.5", "1", "1 → 1.5", ""]
    assert "## Shares of requests" not in summary(a_tick())


def test_metrics_of_a_tick() -> None:
    text = generate_latest(registry(replace(a_tick(), cost=FleetCost(3.0, 2.4)))).decode()
    for line in (
        'triton_placement_copies_wanted{model="b"} 2.0',
        'triton_placement_copies_needed{model="b"} 2.0',
        'triton_placement_copies_ready{model="a"} 2.0',
        'triton_placement_memory_used_bytes{pool="small",replica="small-0"} 3e+08',
        'triton_placement_steps{kind="load",result="done"} 1.0',
        'triton_placement_holds{code="busy",subject="replica:small-1"} 1.0',
        'triton_placement_replicas_wanted{pool="small"} 2.0',
        'triton_placement_replicas_wanted_timestamp_seconds{pool="small"} 1.8e+09',
        "triton_placement_tick_timestamp_seconds 1.8e+09",
        "triton_placement_cost_per_hour 3.0",
        "triton_placement_cost_bound_per_hour 2.4",
    ):
        assert line in text
    assert 'forecast_upper_rps{model="c"}' not in text, "unknown is not zero"


def test_the_metrics_are_pushed_also_where_prefect_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the next ticks read back: load failures, copies needed."""

    def refuse(**_: object) -> None:
        raise ConnectionError("no Prefect")

    pushed: list[Tick] = []
    monkeypatch.setattr("tasks.record.metrics.push", lambda tick, _: pushed.append(tick))
    monkeypatch.setattr("prefect.artifacts.create_table_artifact", refuse)
    for mode in ("plan", "apply"):
        with pytest.raises(ConnectionError, match="no Prefect"):
            record(a_tick(mode=mode), Limits(), "127.0.0.1:9")
    (tick,) = pushed
    assert (tick.mode, tick.cost is None) == ("apply", False)
    assert tick.seconds_by_phase is not None
    assert {"observe", "record"} <= set(tick.seconds_by_phase)


FAILED_TWICE = LoadFailure("b", "small-1", 2, NOW - 100)


@pytest.mark.parametrize(
    ("before", "result", "after"),
    [
        ((), Result.FAILED, [LoadFailure("b", "small-1", 1, NOW + 1)]),
        ((FAILED_TWICE,), Result.FAILED, [LoadFailure("b", "small-1", 3, NOW + 1)]),
        ((FAILED_TWICE,), Result.DONE, []),
        ((FAILED_TWICE,), Result.SKIPPED, [FAILED_TWICE]),
        ((replace(FAILED_TWICE, last_at=NOW - 4000),), Result.SKIPPED, []),
    ],
)
def test_load_failures_in_a_row(before: tuple[LoadFailure, ...], result: Result, after: list[LoadFailure]) -> None:
    tick = replace(a_tick((result,)), observation=replace(observation(), load_failures=before))
    assert load_failures(tick) == after
