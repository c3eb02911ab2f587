"""What is to be sent: rates over time for each model, requests at a time, marks; and the arrivals that this makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Spacing = Literal["poisson", "even"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A model's rate over a stretch of time: constant, or a straight line."""

    model: str
    start_s: float
    end_s: float
    start_rps: float
    end_rps: float


@dataclass(frozen=True, slots=True)
class Ask:
    """Requests of a model that arrive together."""

    model: str
    at_s: float
    count: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that whoever drives the run does at a time: ``kill small-0``."""

    at_s: float
    verb: str
    subject: str

    def __str__(self) -> str:
        return f"{self.verb} {self.subject}"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a scenario or a trace asks for. Times are seconds from the start of the run."""

    name: str
    duration_s: float
    segments: tuple[Segment, ...]
    asks: tuple[Ask, ...] = ()
    marks: tuple[Mark, ...] = ()
    spacing: Spacing = "poisson"
    seed: int = 0
    unobserved_s_by_model: Mapping[str, float] = field(default_factory=dict)
    """Seconds in which a trace was not observed: nothing is sent, and the report says so."""

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(sorted({segment.model for segment in self.segments} | {ask.model for ask in self.asks}))


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """When each request arrives, in order: ``times_s`` (n,) and, beside it, indices into ``models``."""

    models: tuple[str, ...]
    times_s: Floats
    model_index: npt.NDArray[np.int64]


def arrivals(profile: Profile) -> Arrivals:
    """The arrivals of a profile: the same ones for the same seed, whatever other models there are.

    Each model's arrivals are unit-rate ones mapped through the inverse of its cumulative rate (Çınlar, Introduction to
    Stochastic Processes, 1975, ch. 4: time change of a Poisson process).
    """
    models = profile.models
    times = []
    for model in models:
        segments = [segment for segment in profile.segments if segment.model == model]
        asked = [np.full(ask.count, ask.at_s) for ask in profile.asks if ask.model == model]
        times.append(np.concatenate([_through(segments, profile.spacing, (profile.seed, *model.encode())), *asked]))
    index = np.repeat(np.arange(len(models)), [len(one) for one in times])
    every = np.concatenate(times) if times else np.array([])
    order = np.argsort(every, kind="stable")
    return Arrivals(models, every[order], index[order])


def _through(segments: list[Segment], spacing: Spacing, seed: tuple[int, ...]) -> Floats:
    """Arrival times (s) of one model, sorted."""
    if not segments:
        return np.array([])
    start, end, first, last = np.array([[s.start_s, s.end_s, s.start_rps, s.end_rps] for s in segments]).T
    cumulative = np.concatenate([[0.0], np.cumsum((end - start) * (first + last) / 2)])
    units = _units(cumulative[-1], spacing, seed)
    at = np.searchsorted(cumulative, units, side="right") - 1
    area = units - cumulative[at]
    # the root of first*t + slope*t²/2 = area, in the form that also holds where the slope is zero
    slope = ((last - first) / (end - start))[at]
    root = np.sqrt(np.maximum(first[at] ** 2 + 2 * slope * area, 0.0))
    offset: Floats = np.divide(2 * area, first[at] + root, out=np.zeros_like(area), where=first[at] + root > 0)
    times: Floats = start[at] + offset
    return times


def _units(total: float, spacing: Spacing, seed: tuple[int, ...]) -> Floats:
    """Arrivals of rate one in [0, total): a Poisson process given its count is as many uniform points."""
    if spacing == "even":
        return np.arange(0.5, total)
    random = np.random.default_rng(seed)
    return np.sort(random.uniform(0.0, total, random.poisson(total)))
