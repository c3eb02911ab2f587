"""The placement as arrays: what models need and replicas have, from an observation and its sizings.

Shapes: ``M`` models, ``P`` pools, ``R`` replicas (those that there are, then those that pools could still have), ``C``
copies that are there. Bytes are float64: exact up to 2**53.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.decision import Sizing
from tasks.world import CopyState, Model, Pool

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

PRESENT = (CopyState.LOADING, CopyState.READY)
NOISE = 0.05
"""Share by which a replica's compute may be over its target before a copy moves: its headroom is for that, and demand
that only trembles must move nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Wants:
    """By model."""

    names: tuple[str, ...]
    demand_rps: Floats
    """(M,) what it is sized for; NaN: unknown."""
    copies: Ints
    """(M,) the least that it should have."""
    max_copies: Ints
    """(M,) the most; at least ``copies``."""
    priority: Ints
    """(M,) higher goes first."""
    is_pinned: Flags
    """(M,)"""
    footprint_bytes: Floats
    """(M, P) of one copy; infinite on a GPU type that it has no need for."""
    is_allowed: Flags
    """(M, P) whether a copy may be in the pool."""
    device_s: Floats
    """(M, P) device-seconds one request takes."""
    capacity_rps: Floats
    """(M, P) requests a second that one copy may take; infinite where that is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Spots:
    """By replica, existing ones in order of their names, then new ones, ``POOL+N``, in order of pool and N."""

    names: tuple[str, ...]
    pool: Ints
    """(R,) index into the pools."""
    memory_bytes: Floats
    """(R,)"""
    compute: Floats
    """(R,) device-seconds a second."""
    room_bytes: Floats
    """(R,) memory less the headroom, and less what nobody may touch."""
    room_compute: Floats
    """(R,) the compute target: compute less the headroom."""
    cost_per_hour: Floats
    """(R,)"""
    closed: tuple[str, ...]
    """Why it takes no new copy and keeps none of its own; empty: it does. An open one with foreign copies of unknown
    footprint keeps its copies."""
    keeps: Flags
    """(R,) whether the copies in it may stay."""
    is_new: Flags
    """(R,) there is no such replica yet."""
    is_asked: Flags
    """(R,) new, and its pool has been asked for it already."""
    is_ready: Flags
    """(R,)"""
    is_ours: Flags
    """(R,) we scale its pool."""
    node: Ints
    """(R,) -1: unknown."""
    zone: Ints
    """(R,) -1: unknown."""


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """Copies of our models that take memory now, in the fleet's order."""

    model: Ints
    """(C,)"""
    replica: Ints
    """(C,)"""
    worth: Ints
    """(C,) 0 serving, 1 ready, 2 loading, 3 failing, 4 on its way out."""
    weight: Floats
    """(C,) share of the model's requests relative to its other copies."""


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Everything that a placement rests on."""

    models: tuple[Model, ...]
    sizings: tuple[Sizing, ...]
    pools: tuple[Pool, ...]
    wants: Wants
    spots: Spots
    there: Copies
    routed_by_model: Mapping[int, tuple[int, ...]]
    """Replicas that requests for the model reach without its being there: a restarted one gets its models back."""
    failures_by_model: Mapping[int, tuple[tuple[int, int, float], ...]]
    """(replica, failures in a row, when it may be tried again) of the loads that failed."""
    now: float
    saving_factor: float
    margin: float
    loads: int
    """As many as a tick may do, each with the unload that follows it."""
    splits_by_weight: bool
    """Whether the gateway gives copies the shares that their weights say."""
    noise: float = NOISE
