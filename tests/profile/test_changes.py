"""A model's service time and another's memory double in a running fleet: copies and placement follow what is learned
while serving; neither the configuration nor the catalogue changes."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.load import start
from tasks.catalogue import Catalogue, Entry, Number, write_catalogue
from tasks.decision import Tick
from tasks.fleets.local import LocalFleet
from tasks.observe.series import read_series
from tests.flows.ticking import flat, is_settled, serving, ticks_until
from tests.local_fleet import RunningFleet, running_fleet

pytestmark = [pytest.mark.servers, pytest.mark.timeout(420)]

EVERY_S = 5.0
CONFIG: Mapping[str, Any] = {
    # 160 MB less a tenth hold all three; all of 160 MB does not with 100 in place of 50
    "pools": {"small": {"memory": "160MB", "compute": 4, "max_replicas": 4, "start_s": 3}},
    "models": {
        "vad": {"service_ms": 20, "queue_ms": 40, "load_s": 2},
        "ocr_cls": {"service_ms": 20, "queue_ms": 100, "load_s": 2},
        "filetype": {"service_ms": 25, "queue_ms": 100, "load_s": 2},
    },
    "catalogue": "catalogue.yaml",
    "limits": {"interval_s": EVERY_S, "stale_s": 15, "stabilisation_s": 10, "act_s": 60},
    "metrics": {"window_s": 20, "step_s": 5, "history_s": 300},
}
RATES = {"vad": 9.0, "ocr_cls": 2.0, "filetype": 2.0}
MEASURED_MB = {"vad": 50, "ocr_cls": 40, "filetype": 50}
"""What profiling finds, within a tenth."""


def measured() -> Catalogue:
    """As profiling leaves it."""
    catalogue = Catalogue()
    for model, megabytes in MEASURED_MB.items():
        number = Number(value=megabytes * 1e6, source="measured", date=datetime.date(2026, 1, 31))
        catalogue = catalogue.with_entry(model, "small", Entry(footprint_bytes=number))
    return catalogue


def reload_with_more_memory(fleet: RunningFleet, model: str, replica: str, megabytes: int) -> None:
    """A new version of the model, in its running copy's place: it holds so much more."""
    code = fleet.live.state.folder / "repository" / model / "1" / "model.py"
    code.chmod(0o644)
    start_of_load = "    def initialize(self, args):\n"
    ballast = f"        self.ballast = np.ones({megabytes} * 1_000_000, np.uint8)\n"
    code.write_text(code.read_text().replace(start_of_load, start_of_load + ballast))
    fleet.load(model, replica)


def is_calm(a_tick: Tick) -> bool:
    """All three in one replica; the first requests after none, which look like a burst, are over."""
    return is_settled(a_tick) and asked_for(a_tick, "vad") > 6 and len(replicas_of(a_tick)) == 1


def has_followed(a_tick: Tick) -> bool:
    """A second copy where the time doubled, apart from its neighbours where the memory did, and both learned."""
    is_apart = bool(serving(a_tick, "filetype")) and serving(a_tick, "filetype").isdisjoint(serving(a_tick, "ocr_cls"))
    return is_apart and len(serving(a_tick, "vad")) >= 2 and "learned over" in capacity_of(a_tick, "vad")


def test_copies_and_placement_follow_what_doubled(tmp_path: Path) -> None:
    with running_fleet(tmp_path, CONFIG) as fleet:
        catalogue = fleet.config.catalogue_path(fleet.config_path)
        write_catalogue(catalogue, measured())
        written = fleet.config_path.read_text(), catalogue.read_text()
        ticks_until(fleet, lambda t: all(serving(t, model) for model in RATES), "loaded", 8, every_s=1.0)
        with start(flat(300.0, RATES), fleet.live.gateway_url) as load:
            before = ticks_until(fleet, is_calm, "one copy of each under load", 24, EVERY_S)[-1]
            (fleet.live.state.folder / "pace" / "vad").write_text("40")
            (together,) = replicas_of(before)
            reload_with_more_memory(fleet, "filetype", together, MEASURED_MB["filetype"])
            after = ticks_until(fleet, has_followed, "copies and placement follow", 20, EVERY_S)[-1]
            report = load.stop()
        assert [one for one in report.models if one.succeeded < one.sent] == []
        known = after.observation.footprints["filetype", "small"]
        assert known.footprint_bytes > 1.5e6 * MEASURED_MB["filetype"]
        assert after.observation.fleet.model_by_name["filetype"].need_by_gpu_type["small"].footprint_source == "learned"
        assert "20 declared" in capacity_of(after, "vad")
        assert (fleet.config_path.read_text(), catalogue.read_text()) == written
        # what was learned is read back: a tick that cannot look at the copies still knows it
        url = LocalFleet(fleet.config).prometheus_url
        again = read_series(url, fleet.config, list(RATES), time.time()).footprints["filetype", "small"]
        assert again.footprint_bytes == pytest.approx(known.footprint_bytes, rel=0.1)


def replicas_of(a_tick: Tick) -> set[str]:
    return {replica for model in RATES for replica in serving(a_tick, model)}


def asked_for(a_tick: Tick, model: str) -> float:
    known = a_tick.observation.demand.query("model == @model")["demand_rps"].dropna()
    return float(known.iloc[-1]) if len(known) else 0.0


def capacity_of(a_tick: Tick, model: str) -> str:
    """The sizing's arithmetic."""
    return next(sizing.reason.text for sizing in a_tick.sizings if sizing.model == model)
