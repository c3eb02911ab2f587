"""The arrivals that reality and the simulator are compared on are usual ones: the queues that they make, one by one."""

from __future__ import annotations

import numpy as np
import pytest

from infra.load.profile import arrivals
from tasks.simulate.demand import Floats
from tests.simulate.reality import CONFIG, LEAD_S, RATES, SEED, TICK_S, profile

SEEDS = 60
SECOND_S = LEAD_S + RATES[0][0] + 3 + TICK_S + 1
"""When the rising model's second copy serves: a tick 3 s after the rise hardly sees it, the next does; 1 s of load."""


def waits(times: Floats, service_s: float) -> Floats:
    """Lindley's recursion: a request waits until the one before it is done."""
    found, free = np.zeros(len(times)), 0.0
    for i, time in enumerate(times.tolist()):
        found[i] = max(free - time, 0.0)
        free = max(free, time) + service_s
    return found


def p95_ms(seed: int, model: str) -> float:
    """Of all requests after the lead; from the second copy on they take turns."""
    made = arrivals(profile(seed))
    times = made.times_s[made.model_index == made.models.index(model)]
    parts = [times]
    if model == "squeezenet":
        late = times[times >= SECOND_S]
        parts = [times[times < SECOND_S], late[::2], late[1::2]]
    service_s = CONFIG["models"][model]["service_ms"] / 1000
    found = np.concatenate([waits(part, service_s)[part > LEAD_S] for part in parts])
    return float(np.percentile(found, 95)) * 1000


@pytest.mark.parametrize(("model", "chance"), [("squeezenet", 0.2), ("filetype", 0.08), ("vad", 0.03)])
def test_the_arrivals_are_usual(model: str, chance: float) -> None:
    """Other seeds differ by so much, these are within a twentieth of the mean."""
    others = np.array([p95_ms(seed, model) for seed in range(SEEDS)])
    assert others.std() / others.mean() == pytest.approx(chance, rel=0.3)
    assert p95_ms(SEED, model) == pytest.approx(others.mean(), rel=0.05)
