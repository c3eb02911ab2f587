"""HPA as it is: the cases of its own documentation and source."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.simulate.policies.hpa import SYNC_S, Hpa


def wish(current: int, ready: int, ratio: float, hpa: Hpa | None = None, now: float = 0.0) -> int:
    hpa = hpa or Hpa(max_pods=np.array([100]))
    return int(hpa.pods(now, np.array([current]), np.array([ready]), np.array([ratio]))[0])


@pytest.mark.parametrize(
    ("current", "ready", "ratio", "wanted"),
    [
        (4, 4, 1.5, 6),  # ceil(4 * 1.5)
        (4, 4, 1.09, 4),  # within the tolerance of 0.1
        (4, 4, 1.11, 5),  # ceil(4.44)
        (1, 1, 9.0, 5),  # 9 wanted, at most 4 more or double at a time
        (10, 10, 9.0, 20),  # 90 wanted, at most double
        (4, 2, 1.5, 4),  # two without metrics count as idle: 1.5 * 2 / 4 < 1 would turn the direction: stays
        (4, 3, 2.0, 6),  # the same: 2 * 3 / 4 = 1.5 -> 6
        (4, 4, float("nan"), 4),  # no metric
        (0, 0, 2.0, 1),  # never below one
        (90, 90, 2.0, 100),  # never above its maximum
    ],
)
def test_pods(current: int, ready: int, ratio: float, wanted: int) -> None:
    assert wish(current, ready, ratio) == wanted


def test_down_to_the_most_that_was_wanted_in_five_minutes() -> None:
    hpa = Hpa(max_pods=np.array([100]))
    assert wish(6, 6, 1.5, hpa, now=0) == 9
    seen = [wish(9, 9, 0.3, hpa, now=SYNC_S * i) for i in range(1, 23)]
    # 9 were wanted at 0 s; they are forgotten after 300 s, and ceil(9 * 0.3) = 3 remain
    assert seen == [9] * 19 + [3] * 3
