"""What a backtest tells people, on demand whose best forecaster is known."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from tasks.forecast.backtest import COMBINED, backtest_models, loss_of_choice, overall
from tasks.forecast.score_card import loss_by_forecaster, picture, rows, verdict
from tasks.world import Limits, Model, Need, Objective, Pool


def scores(*losses: tuple[str, str, str, float]) -> pd.DataFrame:
    """(model, forecaster, half, loss), each of ten forecasts of a demand of 8 req/s."""
    frame = pd.DataFrame(losses, columns=["model", "forecaster", "half", "loss_upper"])
    return frame.assign(loss_median=0.5, covered=0.9, demand_rps=8.0, scored=10)


CHOSEN_WRONG = scores(
    ("m", COMBINED, "older", 1.0), ("m", COMBINED, "newer", 1.0),
    ("m", "level", "older", 0.8), ("m", "level", "newer", 1.5),
    ("m", "last value", "older", 1.2), ("m", "last value", "newer", 0.5),
)  # fmt: skip
CHOSEN_WELL = CHOSEN_WRONG.replace({"loss_upper": {1.5: 0.9}})


@pytest.mark.parametrize(
    ("name", "of", "losses", "says"),
    [
        ("the best of the older half loses in the newer", CHOSEN_WRONG, (1.5, 1.0), "50.0% more"),
        ("and wins in it", CHOSEN_WELL, (0.9, 1.0), "10.0% less"),
    ],
)
def test_a_choice_is_judged_on_what_it_was_not_made_by(
    name: str, of: pd.DataFrame, losses: tuple[float, float], says: str
) -> None:
    assert loss_of_choice(of) == pytest.approx(losses)
    assert says in verdict(of)
    assert ("did better" in verdict(of)) is (losses[0] < losses[1])


def test_losses_are_shares_of_the_combined_ones_and_the_best_is_first() -> None:
    # last value (1.2 + 0.5) / 2, combined 1, level (0.8 + 1.5) / 2
    assert loss_by_forecaster(CHOSEN_WRONG).to_dict() == pytest.approx({"last value": 0.85, COMBINED: 1, "level": 1.15})
    assert list(loss_by_forecaster(CHOSEN_WRONG).index) == ["last value", COMBINED, "level"]


def test_one_row_a_model_names_its_best_in_hindsight() -> None:
    (row,) = rows(CHOSEN_WRONG)
    assert (row["model"], row["best in hindsight"], row["its loss"]) == ("m", "last value", "0.8500")
    assert (row["loss, combined"], row["level"], row["scored"]) == ("1.0000", "1.1500", 20)


def test_the_picture_is_well_formed_and_names_every_forecaster() -> None:
    words = "".join(ElementTree.fromstring(picture(CHOSEN_WRONG)).itertext())
    for said in ("last value", "85%", COMBINED, "100%", "level", "115%"):
        assert said in words


def test_each_model_is_scored_at_its_own_horizon() -> None:
    """Demand repeats every 8 bins of 10 s: ``quick`` is forecast 30 s ahead, ``slow`` 80 s, when it is as it is now."""
    wave = np.tile([1.0, 1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0], 60)
    models = tuple(
        Model(name, {"g": Need(1, 1.0, load_s=load)}, Objective(9))
        for name, load in {"quick": 10.0, "slow": 60.0}.items()
    )
    frame = pd.concat(
        [pd.DataFrame({"time": 10.0 * np.arange(len(wave)), "model": m.name, "demand_rps": wave}) for m in models]
    )
    limits = Limits(interval_s=10.0)
    table = overall(backtest_models(frame, models, (Pool("p", "g", 1, start_s=10.0),), limits, reach_s=4800.0))
    loss = table.set_index(["model", "forecaster"])["loss_median"]
    assert loss["slow", "last value"] == pytest.approx(0.0, abs=0.01)
    assert loss["quick", "last value"] > 0.5


def test_no_more_history_than_the_tick_reads_is_used() -> None:
    day = np.where(np.arange(144) < 72, 10.0, 50.0)
    demand = pd.DataFrame({"time": 600.0 * np.arange(6 * 144), "model": "m", "demand_rps": np.tile(day, 6)})
    model, pool = Model("m", {"g": Need(1, 1.0, load_s=1800.0)}, Objective(9)), Pool("p", "g", 1, start_s=1200.0)

    def forecasters(reach_s: float) -> set[str]:
        scored = backtest_models(demand, (model,), (pool,), Limits(interval_s=600.0), reach_s)
        return set(scored["forecaster"])

    assert "same time, a week" in forecasters(3 * 86_400.0)
    assert "same time, a week" not in forecasters(6 * 3600.0)
