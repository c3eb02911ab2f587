"""A model's memory and its service time double in a running fleet: placement and copies follow, the configuration does
not change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.load import start
from tasks.catalogue import Number, read_catalogue, write_catalogue
from tasks.decision import Tick
from tasks.fleets.local import LocalFleet
from tasks.profile import profile_models, with_measured
from tests.flows.ticking import flat, is_settled, serving, ticks_until
from tests.local_fleet import RunningFleet, running_fleet

pytestmark = [pytest.mark.servers, pytest.mark.timeout(420)]

EVERY_S = 5.0
CONFIG: Mapping[str, Any] = {
    # 150 MB less a tenth hold models of 46, 35 and 45 MB; all of it does not with 90 in place of 45
    "pools": {"small": {"memory": "150MB", "max_replicas": 4, "start_s": 3}},
    "models": {
        "vad": {"service_ms": 20, "queue_ms": 40, "load_s": 2},
        "ocr_cls": {"service_ms": 20, "queue_ms": 100, "load_s": 2},
        "filetype": {"service_ms": 25, "queue_ms": 100, "load_s": 2},
    },
    "catalogue": "catalogue.yaml",
    "limits": {"interval_s": EVERY_S, "stale_s": 15, "stabilisation_s": 10, "act_s": 60},
    "metrics": {"window_s": 20, "step_s": 5, "history_s": 300},
}
RATES = {"vad": 6.0, "ocr_cls": 2.0, "filetype": 2.0}


def profiled(fleet: RunningFleet, *models: str) -> Mapping[str, Number]:
    """Profile the models as the flow does, and return the footprints that the catalogue then has."""
    path = fleet.config.catalogue_path(fleet.config_path)
    found = profile_models(fleet.config, LocalFleet(fleet.config), models, wait_s=10)
    assert found.failures == ()
    catalogue = with_measured(read_catalogue(path), fleet.config, found)
    write_catalogue(path, catalogue)
    footprints = {model: catalogue.entry(model, "small").footprint_bytes for model in models}
    return {model: number for model, number in footprints.items() if number is not None}


def add_memory(fleet: RunningFleet, model: str, megabytes: int) -> None:
    """A new version of the model holds so much more."""
    code = fleet.live.state.folder / "repository" / model / "1" / "model.py"
    code.chmod(0o644)
    start_of_load = "    def initialize(self, args):\n"
    ballast = f"        self.ballast = np.ones({megabytes} * 1_000_000, np.uint8)\n"
    code.write_text(code.read_text().replace(start_of_load, start_of_load + ballast))


def replicas_of(a_tick: Tick) -> set[str]:
    return {replica for model in RATES for replica in serving(a_tick, model)}


def test_a_model_whose_memory_doubled_is_moved(tmp_path: Path) -> None:
    with running_fleet(tmp_path, CONFIG) as fleet:
        before = profiled(fleet, *RATES)
        configuration = fleet.config_path.read_text()
        ticks = ticks_until(
            fleet, lambda t: is_settled(t) and all(serving(t, m) for m in RATES), "settled", 12, EVERY_S
        )
        assert replicas_of(ticks[-1]) == {"small-0"}
        add_memory(fleet, "filetype", round(before["filetype"].value / 1e6))
        after = profiled(fleet, "filetype")
        assert after["filetype"].value == pytest.approx(2 * before["filetype"].value, rel=0.2)
        is_spread = lambda t: is_settled(t) and len(replicas_of(t)) == 2 and all(serving(t, m) for m in RATES)  # noqa: E731
        ticks_until(fleet, is_spread, "spread over two replicas", 8, EVERY_S)
        assert fleet.config_path.read_text() == configuration


def test_a_model_whose_service_time_doubled_gets_copies(tmp_path: Path) -> None:
    with running_fleet(tmp_path, CONFIG) as fleet:
        profiled(fleet, *RATES)
        configuration = fleet.config_path.read_text()
        with start(flat(300.0, RATES), fleet.live.gateway_url):
            # the first requests after none look like a burst: that is over when one copy does again
            is_calm = lambda t: is_settled(t) and asked_for(t, "vad") > 4 and len(serving(t, "vad")) == 1  # noqa: E731
            ticks_until(fleet, is_calm, "one copy under load", 24, EVERY_S)
            (fleet.live.state.folder / "pace" / "vad").write_text("40")
            ticks_until(fleet, lambda t: len(serving(t, "vad")) >= 2, "a second copy", 14, EVERY_S)
            ticks = ticks_until(
                fleet, lambda t: "learned over" in capacity_of(t, "vad"), "it says what it learned", 14, EVERY_S
            )
        assert "20 declared" in capacity_of(ticks[-1], "vad")
        assert fleet.config_path.read_text() == configuration


def asked_for(a_tick: Tick, model: str) -> float:
    known = a_tick.observation.demand.query("model == @model")["demand_rps"].dropna()
    return float(known.iloc[-1]) if len(known) else 0.0


def capacity_of(a_tick: Tick, model: str) -> str:
    """The sizing's arithmetic."""
    return next(sizing.reason.text for sizing in a_tick.sizings if sizing.model == model)
