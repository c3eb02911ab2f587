"""The simulated fleet: everything in its time, nothing beyond its memory, nothing after its death."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.simulate.fleet import ImpossibleError, SimulatedFleet
from tasks.simulate.scenario import Failure
from tasks.simulate.tables import LOADED, LOADING, READY, STARTING
from tests.simulate.small import START, flat, model, scenario


@pytest.fixture
def fleet() -> SimulatedFleet:
    """Three models of 2, 3 and 6 GB; one replica of 10 GB, ready."""
    models = (model("a"), model("b", 3), model("c", 6))
    made = SimulatedFleet(scenario(models, flat(5, 5, 5)), START, np.random.default_rng(0))
    made.scale(0, 1)
    made.advance(START + 60)
    return made


def row(fleet: SimulatedFleet) -> int:
    return int(fleet.replicas.of(0)[0])


def test_a_replica_is_ready_after_its_start(fleet: SimulatedFleet) -> None:
    fleet.scale(0, 2)
    new = int(fleet.replicas.of(0)[1])
    fleet.advance(START + 60 + 59)
    assert fleet.replicas.state[new] == STARTING
    fleet.advance(START + 60 + 60)
    assert fleet.replicas.state[new] == READY


def test_a_copy_takes_memory_at_once_and_requests_after_its_load(fleet: SimulatedFleet) -> None:
    copy = fleet.load(0, row(fleet))
    assert (fleet.copies.state[copy], fleet.replicas.used_bytes[row(fleet)]) == (LOADING, 2e9)
    fleet.advance(START + 69)
    assert not fleet.copies.is_routed[copy]
    fleet.advance(START + 70)
    assert (fleet.copies.state[copy], bool(fleet.copies.is_routed[copy])) == (LOADED, True)


def test_an_unload_gives_its_memory_a_second_later(fleet: SimulatedFleet) -> None:
    fleet.load(0, row(fleet))
    fleet.advance(START + 80)
    fleet.unload(0, row(fleet))
    assert fleet.replicas.used_bytes[row(fleet)] == 2e9
    fleet.advance(START + 81)
    assert fleet.replicas.used_bytes[row(fleet)] == 0
    assert not fleet.row_by_copy


@pytest.mark.parametrize(
    ("loads", "why"),
    [((0, 0), "it is there already"), ((1, 2, 0), "3 + 6 + 2 GB > 10 GB")],
)
def test_what_cannot_be_loaded_is_refused(fleet: SimulatedFleet, loads: tuple[int, ...], why: str) -> None:
    for wanted in loads[:-1]:
        fleet.load(wanted, row(fleet))
    with pytest.raises(ImpossibleError):
        fleet.load(loads[-1], row(fleet))
    assert fleet.counters.moves_refused == 1, why


def test_a_replica_that_dies_takes_its_copies_along_and_is_replaced(fleet: SimulatedFleet) -> None:
    fleet.load(0, row(fleet))
    fleet.advance(START + 100)
    name = fleet.name_by_row[row(fleet)]
    fleet.kill(Failure(0, "gpu"))
    assert not fleet.row_by_copy
    assert fleet.lost == {(0, name)}
    fleet.advance(START + 110)  # repair_s
    assert fleet.replicas.state[row(fleet)] == STARTING
    fleet.advance(START + 170)
    assert fleet.replicas.state[row(fleet)] == READY


def test_a_load_under_way_in_a_replica_that_dies_comes_to_nothing(fleet: SimulatedFleet) -> None:
    fleet.load(0, row(fleet))
    fleet.kill(Failure(0, "gpu"))
    fleet.advance(START + 300)
    assert not fleet.row_by_copy
    assert fleet.replicas.used_bytes[row(fleet)] == 0


def test_durations_spread_around_what_is_declared() -> None:
    from tasks.simulate.scenario import Costs

    made = SimulatedFleet(scenario((model("a"),), flat(5), costs=Costs(spread=0.2)), START, np.random.default_rng(0))
    drawn = np.array([made.lasting(60) for _ in range(5000)])
    assert drawn.mean() == pytest.approx(60, rel=0.01)
    assert drawn.std() == pytest.approx(12, rel=0.05)
