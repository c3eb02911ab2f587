"""The formula against real Tritons, at two points. ``tests/benchmarks/bench_queueing.py`` prints the whole table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.size.measured import at_load, measured_fleet, service_times


@pytest.mark.servers
def test_queue_times_are_as_the_formula_says(tmp_path: Path) -> None:
    """Fifteen seconds a load: chance alone is 20 to 40 % a row."""
    with measured_fleet(tmp_path) as fleet:
        service_s = service_times(fleet)
        rows = [row for load in (0.4, 0.65) for row in at_load(fleet, service_s, load, duration_s=15.0)]
    for row in rows:
        # of a queue of a few milliseconds, what else the machine does is a good part
        assert abs(row.queue_ms - row.said_ms) < 0.7 * row.said_ms + 5, row
    # chances cancel over eight rows
    assert 0.6 < sum(row.queue_ms for row in rows) / sum(row.said_ms for row in rows) < 1.5
