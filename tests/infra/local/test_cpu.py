"""CPU of a fleet's servers: the sum by hand, and a process whose use is known."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.cpu import cpu_s_by_pid, cpu_share
from infra.local.programs import FLEET_VARIABLE


@pytest.mark.parametrize(
    ("looks", "share"),
    [
        pytest.param([(0.0, {1: 10.0}), (10.0, {1: 14.0, 2: 2.0})], (4 + 2) / 20, id="one that came later"),
        pytest.param([(0.0, {1: 1.0, 2: 5.0}), (5.0, {1: 2.0, 2: 6.0}), (10.0, {1: 3.0})], 3 / 20, id="one that ended"),
        pytest.param([(0.0, {1: 10.0})], 0.0, id="a single look"),
        pytest.param([], 0.0, id="none"),
    ],
)
def test_share_of_two_cores(looks: list[tuple[float, dict[int, float]]], share: float) -> None:
    assert cpu_share(looks, cores=2) == pytest.approx(share)


def test_a_process_of_the_fleet_that_works_is_seen_to(tmp_path: Path) -> None:
    work = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", work],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, FLEET_VARIABLE: str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 0.45 <= cpu_s_by_pid(tmp_path)[process.pid] < 5
        process.communicate(b"\n")
    assert cpu_s_by_pid(tmp_path) == {}
