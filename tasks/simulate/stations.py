"""Every copy as a queueing station, all at once: the wait of the requests that arrive in one step of time.

Two waits add up. The stochastic one is that of ``tasks.size.queueing`` (M/G/c after Allen and Cunneen), whose formula
holds once the queue has settled. The fluid one is the backlog: what arrived beyond capacity and is not yet served. The
backlog changes on a straight line within the step and is looked at in three places (Simpson's rule). Close to full
load the settled formula grows without bound although no step lasts that long, so its slack is kept above
``LEAST_SLACK``. ``tests/simulate`` holds what this costs against queues simulated request by request.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.simulate.demand import Floats

LEAST_SLACK = 0.02
"""Of capacity: at 2 % of slack the mean wait is 25 to 50 service times, beyond any objective worth the name."""
SIMPSON = ((0.0, 1 / 6), (0.5, 4 / 6), (1.0, 1 / 6))
"""Places in a step and their weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Stations:
    """Copies, one element each."""

    rate_rps: Floats
    full_rps: Floats
    """Requests a second at which they are busy all the time."""
    servers: NDArray[np.int64]
    variability: Floats
    """Mean of the squared coefficients of variation of the times between arrivals and of the service times."""
    backlog: Floats
    """Requests, at the start of the step."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What became of the stations in a step, one element each."""

    backlog: Floats
    """Requests, at its end."""
    served: Floats
    """Requests."""
    dropped: Floats
    """Requests that would have waited longer than the timeout."""
    mean_wait_s: Floats
    """Of those that arrived."""
    over: Floats
    """(limits, stations): the share of those that arrived that waits longer than the limit."""


def advance(stations: Stations, dt_s: float, limits_s: Floats, timeout_s: float) -> Step:
    """One step; ``limits_s`` (limits, stations) are the waits over which requests are counted."""
    s = stations
    settled = _Settled(s)
    grown = s.backlog + (s.rate_rps - s.full_rps) * dt_s
    most = s.full_rps * timeout_s
    backlog = np.clip(grown, 0.0, most)
    dropped = np.maximum(grown - most, 0.0)
    fluid_s = [np.maximum(s.backlog + (grown - s.backlog) * at, 0.0) / s.full_rps for at, _ in SIMPSON]
    over = np.zeros(limits_s.shape)
    mean = settled.mean_wait_s.copy()
    is_fluid = np.flatnonzero((s.backlog > 0) | (grown > 0))
    over += settled.over(limits_s)
    if is_fluid.size:
        crowd = [wait[is_fluid] for wait in fluid_s]
        mean[is_fluid] += sum(weight * wait for (_, weight), wait in zip(SIMPSON, crowd, strict=True))
        left = limits_s[:, is_fluid]
        some = settled.of(is_fluid)
        over[:, is_fluid] = sum(weight * some.over(left - w) for (_, weight), w in zip(SIMPSON, crowd, strict=True))
    arrived = s.rate_rps * dt_s
    return Step(backlog, np.maximum(s.backlog + arrived - backlog - dropped, 0.0), dropped, mean, over)


@dataclass(slots=True, eq=False)
class _Settled:
    """The settled queue: P(wait > t) = ``wait`` * exp(-``decay_rps`` * t)."""

    wait: Floats
    decay_rps: Floats
    mean_wait_s: Floats
    constant_s: Floats
    """The service time of one server whose service is constant and whose arrivals are Poisson; else 0."""
    rate_rps: Floats

    def __init__(self, s: Stations) -> None:
        slack = np.maximum(s.full_rps - s.rate_rps, LEAST_SLACK * s.full_rps)
        self.wait = busy_servers((s.full_rps - slack) / s.full_rps, s.servers)
        self.decay_rps = slack / s.variability
        self.mean_wait_s = self.wait / self.decay_rps
        is_constant = (s.servers == 1) & (np.abs(s.variability - 0.5) < 1e-9)
        self.constant_s, self.rate_rps = np.where(is_constant, 1 / s.full_rps, 0.0), s.full_rps - slack

    def of(self, some: NDArray[np.intp]) -> _Settled:
        part = object.__new__(_Settled)
        part.wait, part.decay_rps, part.mean_wait_s = self.wait[some], self.decay_rps[some], self.mean_wait_s[some]
        part.constant_s, part.rate_rps = self.constant_s[some], self.rate_rps[some]
        return part

    def over(self, limits_s: Floats) -> Floats:
        """Share over each limit; all where the limit is already used up.

        Constant service times have their exact share up to one service time, 1 - (1 - load) exp(rate t) (Erlang's
        M/D/1; Gross et al., *Fundamentals of Queueing Theory*, 4th ed., 2008), and the exponential tail from there.
        """
        left = np.maximum(limits_s, 0)
        first = np.minimum(left, self.constant_s)
        start = np.where(self.constant_s > 0, 1 - (1 - self.wait) * np.exp(self.rate_rps * first), self.wait)
        share: Floats = np.where(limits_s > 0, np.maximum(start, 0) * np.exp(-self.decay_rps * (left - first)), 1.0)
        return share


def busy_servers(load: Floats, servers: NDArray[np.int64]) -> Floats:
    """Erlang's C for many stations: the probability that all servers are busy, ``load`` (0 to 1) a share of them.

    As ``tasks.size.queueing.erlang_c``, one pass for each server of the largest station.
    """
    offered = load * servers
    blocked = np.ones_like(load)
    for k in range(1, int(servers.max(initial=1)) + 1):
        blocked = np.where(k <= servers, offered * blocked / (k + offered * blocked), blocked)
    return blocked / (1 - load * (1 - blocked))
