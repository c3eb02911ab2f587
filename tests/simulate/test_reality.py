"""The simulator against reality: the same minutes on the local fleet of real Tritons, before any policy is compared."""

from __future__ import annotations

import pytest

from tests.local_fleet import running_fleet
from tests.simulate.reality import CONFIG, Seen, really, simulated, table

pytestmark = [pytest.mark.servers, pytest.mark.nightly, pytest.mark.timeout(560)]
"""Nightly: five minutes of measured times, which need a machine of their own."""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Seen, Seen]:
    """What was seen really, and what the simulator says."""
    with running_fleet(tmp_path_factory.mktemp("reality"), CONFIG) as fleet:
        real = really(fleet)
        said = simulated(fleet.config)
    print("\n" + table(real, said))
    return real, said


@pytest.mark.parametrize("model", ["filetype", "vad"])
def test_queue_times_under_steady_load_are_real(both: tuple[Seen, Seen], model: str) -> None:
    real, said = both
    assert said.p95_ms[model] == pytest.approx(real.p95_ms[model], rel=0.2), table(real, said)


def test_queue_times_under_a_rise_are_real(both: tuple[Seen, Seen]) -> None:
    real, said = both
    assert said.p95_ms["squeezenet"] == pytest.approx(real.p95_ms["squeezenet"], rel=0.2), table(real, said)


def test_loads_and_copies_are_real(both: tuple[Seen, Seen]) -> None:
    real, said = both
    assert said.loads == pytest.approx(real.loads, rel=0.1), table(real, said)
    assert said.mean_copies == pytest.approx(real.mean_copies, rel=0.1), table(real, said)
