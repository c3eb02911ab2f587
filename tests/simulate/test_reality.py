"""The simulator against reality: the same minutes on the local fleet of real Tritons, before any policy is compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.local_fleet import running_fleet
from tests.simulate.reality import CONFIG, really, simulated, table

pytestmark = [pytest.mark.servers, pytest.mark.timeout(560)]


def test_queue_times_loads_and_copies_are_those_of_real_servers(tmp_path: Path) -> None:
    with running_fleet(tmp_path, CONFIG) as fleet:
        real = really(fleet)
        said = simulated(fleet.config)
    print("\n" + table(real, said))
    for model, p95_ms in real.p95_ms.items():
        assert said.p95_ms[model] == pytest.approx(p95_ms, rel=0.2), f"p95 of {model}\n{table(real, said)}"
    assert said.loads == pytest.approx(real.loads, rel=0.1), table(real, said)
    assert said.mean_copies == pytest.approx(real.mean_copies, rel=0.1), table(real, said)
