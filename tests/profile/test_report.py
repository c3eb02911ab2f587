"""What is made of measurements: a catalogue's entry, and a row beside the requests."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.clients.triton import Statistics
from tasks.config import Config
from tasks.observe.series import Series
from tasks.profile import Profiles, entry_of
from tasks.profile.inference import Timing, service_ms, variability
from tasks.profile.measure import Measured, Round
from tasks.profile.report import rows
from tasks.world import LearnedFootprint

CONFIG = Config.model_validate(
    {
        "pools": {"small": {"memory": "1GB"}},
        "models": {"m": {"footprint": "90MB", "service_ms": 50, "queue_ms": 50, "instances": 2}},
    }
)
TIMINGS = (
    Timing(1, 40, 20.0, 50.0, 51.0, 0.0),
    Timing(2, 80, 38.0, 52.0, 53.0, 0.0),
    Timing(4, 80, 38.5, 54.0, 104.0, 0.2),
)
"""Of a model with two instances: with one request at a time one of them idles."""


def measured(*rounds: tuple[float, int | None, int | None]) -> Measured:
    return Measured("m", "small", "small-0", tuple(Round(*one) for one in rounds), TIMINGS)


GOOD = measured((1.0, 70_000_000, 3_000_000), (1.4, 74_000_000, 4_000_000))


def test_an_entry_has_mean_and_spread() -> None:
    entry = entry_of(GOOD, instances=2)
    found = {name: (number.value, number.spread) for name, number in entry if number is not None}
    assert found == {
        "footprint_bytes": (72e6, 2e6),
        # both instances busy: 52 and 54
        "service_ms": (52.0, 1.0),
        "service_cv2": (0.0, 0.0),
        "load_s": (1.2, 0.2),
    }
    assert entry_of(measured((1.0, None, None)), instances=2).footprint_bytes is None


@pytest.mark.parametrize(
    ("name", "rounds", "says"),
    [
        ("the allocator keeps a little, and no more the second time", GOOD, "4"),
        ("20 MB more stay after each load", measured((1, 70_000_000, 20_000_000), (1, 70_000_000, 40_000_000)),
         "40, LEAK: 20 more each load"),
        ("it cannot be read from here", measured((1, None, None)), "unknown"),
    ],
)  # fmt: skip
def test_leaks_are_told(name: str, rounds: Measured, says: str) -> None:
    (row,) = rows(CONFIG, Profiles((rounds,)), Series())
    assert row["kept after unload, MB"] == says


def test_requirements_stand_beside_requests() -> None:
    """Two instances of 52 ms within 50 ms at p95: 19.4 req/s; 30 req/s take two copies of 72 MB."""
    demand = pd.DataFrame({"time": np.arange(100.0), "model": "m", "demand_rps": [10.0] * 90 + [30.0] * 10})
    learned = pd.DataFrame(
        [("m", "small", 56.0, 1.5, 9)], columns=["model", "gpu_type", "service_ms", "spread_ms", "windows"]
    )
    footprints = {("m", "small"): LearnedFootprint(75e6, 1e6, 40, 1_800_000_000)}
    (row,) = rows(CONFIG, Profiles((GOOD,)), Series(demand=demand, learned=learned, footprints=footprints))
    assert row == {
        "model": "m",
        "GPU type": "small",
        "req/s, mean": "12.00",
        "req/s, p95": "30.00",
        "memory, MB": "72 ± 2",
        "kept after unload, MB": "4",
        "load, s": "1.20 ± 0.20",
        "service, ms": "50.0 at 1, 52.0 at 2, 54.0 at 4",
        "cv2": "0.000",
        "full load, req/s": "38.5 seen, 38.5 reckoned",
        "declared or in use": "90 MB declared, 50 ms declared, load 5 s",
        "learned": "75 ± 1 MB in 40 looks until 2027-01-15 08:00, 56 ± 2 ms over 9 windows",
        "a copy serves, req/s": "19.37 within 50 ms at p95",
        "copies": "2",
        "memory of these, MB": "144",
    }


def test_requests_nobody_recorded_are_unknown_not_zero() -> None:
    (row,) = rows(CONFIG, Profiles((GOOD,)), Series())
    assert (row["req/s, mean"], row["copies"], row["learned"]) == ("unknown", "unknown", "nothing yet")


def test_requests_executed_together_share_the_time() -> None:
    # 40 requests in 10 executions of 20 ms, each counted with all of them: 40 * 20 ms
    before, after = Statistics(success=5, executions=5, compute_ns=0), Statistics(45, 0, 15, 0, 800_000_000)
    assert service_ms(before, after) == pytest.approx(5.0)


def test_one_hiccup_is_not_variability() -> None:
    steady = np.full(200, 0.010)
    assert variability(np.append(steady, 0.5)) == pytest.approx(0.0)
    assert variability(np.random.default_rng(1).exponential(0.01, 20_000)) == pytest.approx(0.9, abs=0.05)
