"""May a copy go to a replica? One rule a function; each returns why not, or an empty text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tasks.place.board import Board, Load, Spot
from tasks.world import LoadFailure, Model

LONGEST_BACKOFF_S = 600.0
"""A load that keeps failing is tried again at least this often: somebody may have repaired its files."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A copy that looks for a place, and one place to judge."""

    model: Model
    load: Load
    spot: Spot
    is_first: bool
    """No other copy of the model is placed."""
    counts_going: bool
    """Whether memory of copies that are to be unloaded counts as taken."""
    retry_at: float
    """When a load of the model in the replica may be tried again."""
    now: float


Filter = Callable[[Candidate], str]


def is_open(c: Candidate) -> str:
    return c.spot.closed


def is_not_held(c: Candidate) -> str:
    return "it holds a copy" if c.model.name in c.spot.load_by_model else ""


def has_memory(c: Candidate) -> str:
    taken = c.spot.used_bytes + (c.spot.going_bytes if c.counts_going else 0)
    if taken + c.load.memory_bytes <= c.spot.room_bytes:
        return ""
    mb = [round(n / 1e6) for n in (c.load.memory_bytes, c.spot.room_bytes, taken)]
    return f"{mb[0]} MB > {mb[1]} - {mb[2]} MB"


def has_compute(c: Candidate) -> str:
    """Waived for a model's first copy: a slow copy beats none."""
    if c.is_first or c.spot.used_compute + c.load.compute <= c.spot.room_compute:
        return ""
    return f"compute {c.load.compute:.2f} > {c.spot.room_compute:.2f} - {c.spot.used_compute:.2f}"


def is_not_backing_off(c: Candidate) -> str:
    return f"its load failed, next try in {c.retry_at - c.now:.0f} s" if c.now < c.retry_at else ""


CAPACITY: tuple[Filter, ...] = (is_open, is_not_held, has_memory, has_compute)
FILTERS: tuple[Filter, ...] = (*CAPACITY, is_not_backing_off)


def retry_at(failure: LoadFailure | None, interval_s: float) -> float:
    """When a failed load may be tried again: after 2, 4, 8... intervals, at most ``LONGEST_BACKOFF_S``."""
    if failure is None:
        return 0.0
    return failure.last_at + min(interval_s * 2.0 ** min(failure.count, 30), LONGEST_BACKOFF_S)


def refusal(candidate: Candidate, filters: tuple[Filter, ...] = FILTERS) -> str:
    """The first rule's refusal, or an empty text."""
    return next((why for rule in filters if (why := rule(candidate))), "")


def is_allowed(board: Board, model: str, spot: Spot) -> bool:
    return board.model_by_name[model].may_live_in(spot.pool)
