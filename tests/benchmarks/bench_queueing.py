"""Queue times that the formula says beside those that real Tritons show, under open-loop Poisson load.

    python -m tests.benchmarks.bench_queueing [--seconds 75]

Four models of the local fleet in one replica, all asked at the same time, at 30, 50, 70 and 85 % of what a copy takes
by a first measurement. What is said rests on the rate and the mean service time that Triton itself counted meanwhile.
Chance is the standard deviation that the formula's own queue shows between runs of as many requests.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from tests.size.measured import MODELS, Row, at_load, measured_fleet, service_times
from tests.size.test_queueing import simulate

LOADS = (0.3, 0.5, 0.7, 0.85)
RUNS = 40


def chance(row: Row) -> float:
    """Relative standard deviation of the mean wait over simulated runs as long as the measured one."""
    means = [simulate(row.station, row.rate_rps, row.requests, seed).mean() for seed in range(RUNS)]
    return float(np.std(means) / np.mean(means))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=75, help="at each load")
    seconds = parser.parse_args().seconds
    print(
        f"{'model':11s} {'declared':>13s} {'load':>5s} {'requests':>8s} {'service':>9s} "
        f"{'said':>9s} {'measured':>9s} {'error':>7s} {'chance':>7s}"
    )
    with tempfile.TemporaryDirectory() as folder, measured_fleet(Path(folder)) as fleet:
        service_s = service_times(fleet)
        rows = [row for load in LOADS for row in at_load(fleet, service_s, load, seconds)]
    for row in sorted(rows, key=lambda row: (list(MODELS).index(row.model), row.load)):
        service_ms, instances = MODELS[row.model]
        print(
            f"{row.model:11s} {service_ms:6g} ms x {instances:d} {row.load:5.0%} {row.requests:8d} "
            f"{row.station.service_s * 1000:6.2f} ms {row.said_ms:6.2f} ms {row.queue_ms:6.2f} ms "
            f"{row.queue_ms / row.said_ms - 1:+7.0%} {chance(row):7.0%}"
        )


if __name__ == "__main__":
    main()
