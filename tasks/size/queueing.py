"""Queue time at a load, and the load at a queue time: one copy as a queueing station.

Arrivals are Poisson, the service time is general, ``servers`` requests are served at a time: M/G/c. Its waiting time is
approximated from the exact one of M/M/c (Erlang C) by the factor ``(ca2 + cs2) / 2``, with ``ca2 = 1`` for Poisson
arrivals: Allen and Cunneen, in A. O. Allen, *Probability, Statistics, and Queueing Theory*, 2nd ed., 1990, section 5.4;
also Bolch et al., *Queueing Networks and Markov Chains*, 2nd ed., 2006, section 6.3.4. For one server the mean is exact
(Pollaczek-Khinchine).

Worked example, one server, constant service time of 50 ms (cs2 = 0), 8 req/s: rho = 8 * 0.05 = 0.4, Erlang C = 0.4,
mean wait = 0.4 / (20 - 8) * (1 + 0) / 2 = 16.7 ms, P(wait > 50 ms) = 0.4 * exp(-(20 - 8) * 0.05 * 2) = 12 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from tasks.world import Objective

HALVINGS = 30
"""Of the interval from no load to full load: leaves an error of a billionth of it."""


class Station(NamedTuple):
    """One copy: ``servers`` requests at a time, each for ``service_s`` on average."""

    service_s: float
    servers: int = 1
    service_cv2: float = 0.0

    @property
    def full_rps(self) -> float:
        """The load at which the queue grows without end."""
        return self.servers / self.service_s

    def mean_wait_s(self, rate_rps: float) -> float:
        """Mean time in the queue; infinite at full load."""
        if rate_rps >= self.full_rps:
            return math.inf
        variability = (1 + self.service_cv2) / 2
        return erlang_c(self.servers, rate_rps * self.service_s) / (self.full_rps - rate_rps) * variability

    def share_over(self, rate_rps: float, wait_s: float) -> float:
        """Share of the requests that wait longer than ``wait_s``; 1 at full load."""
        if rate_rps >= self.full_rps:
            return 1.0
        variability = (1 + self.service_cv2) / 2
        decay = math.exp(-(self.full_rps - rate_rps) * wait_s / variability)
        return erlang_c(self.servers, rate_rps * self.service_s) * decay

    @lru_cache(maxsize=65_536)  # noqa: B019  a station is a value, and most models' stay the same from tick to tick
    def capacity_rps(self, objective: Objective) -> float:
        """The largest load at which the objective is met."""
        allowed, wait_s = 1 - objective.percentile / 100, objective.queue_ms / 1000
        return self._largest_load(lambda rate: self.share_over(rate, wait_s) <= allowed)

    def load_at_mean_wait(self, wait_s: float) -> float:
        """The load at which the mean wait is ``wait_s``: the inverse of ``mean_wait_s``."""
        return self._largest_load(lambda rate: self.mean_wait_s(rate) <= wait_s)

    def _largest_load(self, is_met: Callable[[float], bool]) -> float:
        """By halving: waiting only grows with the load."""
        low, high = 0.0, self.full_rps
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if is_met(middle) else (low, middle)
        return low


def erlang_c(servers: int, offered: float) -> float:
    """Probability that an arrival waits in M/M/c; ``offered`` load in busy servers, below ``servers``.

    By the recurrence of the Erlang B formula, which does not overflow: B(0) = 1, B(k) = a B(k-1) / (k + a B(k-1)).
    Two servers at a = 1: B = 1/2, then 1/5; C = 0.2 / (1 - 0.5 * 0.8) = 1/3.
    """
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = offered * blocked / (k + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))
