"""What the fleet held over time, seen from outside, and what it would have held with every model in every replica."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from infra.local.cpu import cpu_s_by_pid
from tasks.fleets import FleetUnreadableError
from tasks.fleets.local import LocalFleet
from tasks.observe.copies import copies, read_indexes
from tasks.world import CopyState, Fleet, Pool

EVERY_S = 1.0
"""A look takes 10 ms at four replicas and asks no model anything."""
FILLING = (CopyState.READY, CopyState.LOADING, CopyState.UNLOADING)


@dataclass(frozen=True, slots=True)
class Sample:
    """The fleet at a time (Unix s)."""

    at: float
    fleet: Fleet
    cpu_s_by_pid: Mapping[int, float] = field(default_factory=dict)
    """CPU seconds that each of its processes had taken."""

    @property
    def serving(self) -> Counter[str]:
        """Serving copies by model."""
        return Counter(copy.model for copy in self.fleet.copies if copy.is_serving)

    @property
    def loaded(self) -> int:
        """Copies that fill memory."""
        return sum(copy.state in FILLING for copy in self.fleet.copies)

    @property
    def memory_bytes(self) -> int:
        """Of all replicas together, as declared."""
        return sum(replica.memory_bytes for replica in self.fleet.replicas)

    @property
    def alike(self) -> int:
        """Replicas that copying pods takes for the same: as many as the model with the most copies has, since each
        brings one copy of every model. At least one."""
        return max(self.serving.values(), default=1)


def look(live: LocalFleet) -> Sample:
    """The fleet now.

    Raises:
        FleetUnreadableError, OSError: its replicas or routes cannot be read.
    """
    replicas, indexes, _ = read_indexes(live.replicas())
    held = copies(replicas, indexes, live.routes())
    return Sample(time.time(), Fleet(live.models, live.pools(), replicas, held))


class Watch:
    """Looks at the fleet every second until it is closed. A look that fails is left out."""

    def __init__(self, live: LocalFleet) -> None:
        self._live = live
        self._samples: list[Sample] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    @property
    def samples(self) -> tuple[Sample, ...]:
        return tuple(self._samples)

    def _run(self) -> None:
        while not self._is_over.wait(EVERY_S):
            with suppress(FleetUnreadableError, OSError):
                sample = look(self._live)
                self._samples.append(replace(sample, cpu_s_by_pid=cpu_s_by_pid(self._live.state.folder)))


def replica_of_all_bytes(fleet: Fleet) -> int:
    """Memory of a replica that holds every model, with the headroom that the pools keep."""
    footprints = sum(max(need.footprint_bytes for need in model.need_by_gpu_type.values()) for model in fleet.models)
    return round(footprints / (1 - max(pool.headroom for pool in fleet.pools)))


@dataclass(frozen=True, slots=True)
class Savings:
    """Means over the time that was watched, and the peaks."""

    copies: float
    peak_copies: int
    copies_alike: float
    """With every model in every replica."""
    peak_copies_alike: int
    replicas: float
    replicas_alike: float
    memory_bytes: float
    """Of the replicas."""
    memory_alike_bytes: float
    replica_of_all_bytes: int
    smallest: Pool
    """The pool with the smallest replicas."""

    @property
    def share(self) -> float:
        """Of the memory that copying pods takes, what was saved."""
        return 1 - self.memory_bytes / self.memory_alike_bytes

    @property
    def in_replicas(self) -> float:
        """The memory saved, in replicas of the smallest pool."""
        return (self.memory_alike_bytes - self.memory_bytes) / self.smallest.memory_bytes


def savings(samples: Sequence[Sample]) -> Savings:
    """What holding a subset saves against copying pods that hold every model, for the same copies of the busiest model.

    Worked: 3 copies of the busiest of 10 models that take 2 GB together are 3 replicas of 2 GB and 30 copies; here they
    were 12 copies in two replicas of 0.7 GB and one of 1.5 GB: 1 - 2.9 / 6 = 52 % saved.

    Raises:
        ValueError: no sample.
    """
    if not samples:
        raise ValueError("no sample")
    fleet = samples[0].fleet
    whole, models = replica_of_all_bytes(fleet), len(fleet.models)

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    alike = [sample.alike for sample in samples]
    loaded = [sample.loaded for sample in samples]
    return Savings(
        copies=mean(loaded),
        peak_copies=max(loaded),
        copies_alike=mean(alike) * models,
        peak_copies_alike=max(alike) * models,
        replicas=mean([len(sample.fleet.replicas) for sample in samples]),
        replicas_alike=mean(alike),
        memory_bytes=mean([sample.memory_bytes for sample in samples]),
        memory_alike_bytes=mean(alike) * whole,
        replica_of_all_bytes=whole,
        smallest=min(fleet.pools, key=lambda pool: pool.memory_bytes),
    )


@dataclass(frozen=True, slots=True)
class Kill:
    """A replica that was killed."""

    replica: str
    at: float
    """Unix seconds."""
    held: tuple[str, ...]
    """Models it served."""


def alone(kill: Kill, samples: Sequence[Sample]) -> tuple[str, ...]:
    """The models that only the killed replica served."""
    before = [sample for sample in samples if sample.at <= kill.at]
    if not before:
        return kill.held
    elsewhere = {copy.model for copy in before[-1].fleet.copies if copy.is_serving and copy.replica != kill.replica}
    return tuple(model for model in kill.held if model not in elsewhere)


def served_again_s(kill: Kill, samples: Sequence[Sample]) -> float | None:
    """Seconds from the kill until each model that it held had a serving copy; None: not while it was watched."""
    for sample in samples:
        is_new = sample.at > kill.at + EVERY_S
        if is_new and all(sample.serving[model] for model in kill.held):
            return sample.at - kill.at
    return None
