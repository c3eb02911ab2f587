"""What one copy takes: learned beside declared."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from tasks.size.capacity import capacities, measured_service_ms
from tasks.size.queueing import Station
from tasks.world import TRAFFIC_COLUMNS, Learned, Model, Need, Objective
from tests.size.fleets import NEED, Row, seen

NAN = float("nan")
MODEL = Model("m", {"small": Need(1, 50.0), "large": Need(1, 20.0)}, Objective(50.0))


@pytest.mark.parametrize(
    ("name", "traffic", "age_s", "service_ms"),
    [
        ("one copy", [(8.0, 1.0, 60.0)], 0.0, 60.0),
        ("weighted by requests: (30 * 40 + 10 * 80) / 40", [(30.0, 1.0, 40.0), (10.0, 1.0, 80.0)], 0.0, 50.0),
        ("half a request a second is enough", [(0.5, 1.0, 60.0)], 0.0, 60.0),
        ("too few requests to be believed", [(0.4, 1.0, 60.0)], 0.0, None),
        ("no request", [(0.0, NAN, NAN)], 0.0, None),
        ("too few on one copy, enough on the other", [(0.4, 1.0, 900.0), (10.0, 1.0, 80.0)], 0.0, 80.0),
        ("60 s old, 60 allowed", [(8.0, 1.0, 60.0)], 60.0, 60.0),
        ("61 s old", [(8.0, 1.0, 60.0)], 61.0, None),
        ("of unknown age", [(8.0, 1.0, 60.0)], None, None),
        ("not observed", [], 0.0, None),
    ],
)
def test_measured_service_time(name: str, traffic: list[Row], age_s: float | None, service_ms: float | None) -> None:
    measured = measured_service_ms(seen(2, traffic=traffic, age_s=age_s), stale_s=60)
    assert measured == ({} if service_ms is None else {("m", "small"): pytest.approx(service_ms)})


def test_service_times_are_told_apart_by_gpu_type_and_replicas_that_are_gone_count_for_nothing() -> None:
    observation = seen(2)
    first, second = observation.fleet.replicas
    fleet = replace(observation.fleet, replicas=(first, replace(second, gpu_type="large")))
    rows = [("m", "small-0", 8.0, 0.0, 1.0, 60.0), ("m", "small-1", 8.0, 0.0, 1.0, 25.0), ("m", "gone", 8, 0, 1, 999)]
    age = {f"traffic:{name}": 0.0 for name in ("small-0", "small-1", "gone")}
    observation = replace(
        observation, fleet=fleet, traffic=pd.DataFrame(rows, columns=list(TRAFFIC_COLUMNS)), age_s_by_source=age
    )
    assert measured_service_ms(observation, 60) == {("m", "small"): 60.0, ("m", "large"): 25.0}


ONCE = 1
"""Window: as good as the window's own mean."""


@pytest.mark.parametrize(
    ("name", "learned", "small", "large"),
    [
        ("nothing learned: as declared", {}, (50.0, "50 ms declared"), (20.0, "20 ms declared")),
        (
            "both measured once",
            {"small": Learned(75.0, 0.0, ONCE), "large": Learned(10.0, 0.0, ONCE)},
            (75.0, "75 ms measured, 50 declared"),
            (10.0, "10 ms measured, 20 declared"),
        ),
        (
            "9 % off is noise",
            {"small": Learned(54.5, 1.0, 9), "large": Learned(18.2, 1.0, 9)},
            (50.0, "50 ms declared"),
            (20.0, "20 ms declared"),
        ),
        (
            "12 % off is not",
            {"small": Learned(56.0, 12.0, 3), "large": Learned(20.0, 1.0, 2)},
            (56.0, "56 ± 12 ms learned over 3 windows, 50 declared"),
            (20.0, "20 ms declared"),
        ),
        (
            "doubled on one: doubled on the other",
            {"small": Learned(100.0, 0.3, 12)},
            (100.0, "100 ± 0.3 ms learned over 12 windows, 50 declared"),
            (40.0, "40 ms as on other GPU types, 20 declared"),
        ),
        (
            "within noise on one: as declared on the other",
            {"small": Learned(52.0, 1.0, 9)},
            (50.0, "50 ms declared"),
            (20.0, "20 ms declared"),
        ),
    ],
)
def test_declared_until_learned(
    name: str, learned: dict[str, Learned], small: tuple[float, str], large: tuple[float, str]
) -> None:
    found = capacities(MODEL, {"small", "large"}, learned)
    for gpu, (service_ms, source) in (("small", small), ("large", large)):
        assert found[gpu].station.service_s * 1000 == pytest.approx(service_ms)
        assert found[gpu].source == source
        assert found[gpu].rps == pytest.approx(Station(service_ms / 1000).capacity_rps(Objective(50.0)))


def test_only_gpu_types_that_it_has_a_need_for() -> None:
    assert list(capacities(MODEL, {"small", "huge"}, {})) == ["small"]


def test_variability_and_instances_are_those_declared() -> None:
    model = Model("m", {"small": replace(NEED, service_cv2=1.0, instances=2)}, Objective(50.0))
    assert capacities(model, {"small"}, {"small": Learned(80.0, 1.0, 5)})["small"].station == Station(0.08, 2, 1.0)
