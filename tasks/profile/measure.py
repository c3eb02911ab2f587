"""One model in one spare replica: loaded, warmed up, asked, unloaded; and what all that took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from tasks.clients.triton import ModelStatus, Triton, TritonError
from tasks.observe.memory import SETTLE_S, has_gpu, used_bytes
from tasks.profile.inference import Asker, Timing
from tasks.world import Replica

ROUNDS = 2
"""Loads and unloads: two show a spread, and whether a leak grows."""
CONCURRENCY = (1, 2, 4)
LOAD_S = 600.0
UNLOAD_S = 60.0
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Round:
    """One load and unload."""

    load_s: float
    footprint_bytes: int | None
    """More in use after the warm-up than before the load; None: it cannot be read from here."""
    left_bytes: int | None
    """More in use after the unload than before the load."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one copy of a model took and gave."""

    model: str
    gpu_type: str
    replica: str
    rounds: tuple[Round, ...]
    timings: tuple[Timing, ...]

    @property
    def footprint_bytes(self) -> tuple[float, float] | None:
        """Mean and spread."""
        return _mean([float(r.footprint_bytes) for r in self.rounds if r.footprint_bytes is not None])

    @property
    def load_s(self) -> tuple[float, float]:
        """Mean and spread."""
        return fmean(r.load_s for r in self.rounds), pstdev([r.load_s for r in self.rounds])

    @property
    def left_bytes(self) -> int | None:
        """What the last unload did not give back; None: it cannot be read from here."""
        left = [r.left_bytes for r in self.rounds if r.left_bytes is not None]
        return left[-1] if left else None

    def busy(self, instances: int) -> Timing:
        """The timing with the fewest requests at a time that keep every instance busy."""
        return next((t for t in self.timings if t.concurrency >= instances), self.timings[-1])


def measure(replica: Replica, model: str, largest: Mapping[str, Sequence[int]]) -> Measured:
    """Load a model in a replica that is empty and gets no request, measure it, and leave the replica empty.

    Raises:
        TritonError: it does not load, does not answer, or does not unload.
    """
    rounds: list[Round] = []
    timings: tuple[Timing, ...] = ()
    with Triton(replica) as triton:
        for number in range(ROUNDS):
            before = used_bytes(replica)
            start = time.monotonic()
            try:
                triton.load(model, LOAD_S)
                load_s = time.monotonic() - start
                asker = Asker(replica, model, largest, triton.max_batch_size(model))
                asker.warm_up()
                if number == ROUNDS - 1:
                    timings = tuple(asker.timed(triton, concurrency) for concurrency in CONCURRENCY)
                filled = _settled(replica)
                said = triton.memory_bytes().get(model)
            finally:
                _unload(triton, model)
            rounds.append(Round(load_s, said or _difference(filled, before), _difference(_settled(replica), before)))
    return Measured(model, replica.gpu_type, replica.name, tuple(rounds), timings)


def _settled(replica: Replica) -> int | None:
    """In use once that shows: a GPU's memory is read by Triton every so often."""
    time.sleep(2 * SETTLE_S if has_gpu(replica) else SETTLE_S / 5)
    return used_bytes(replica)


def _unload(triton: Triton, model: str) -> None:
    triton.unload(model)
    _wait(lambda: triton.index().get(model, ModelStatus("")).state in ("", "UNAVAILABLE"), f"{model} unloaded")


def _wait(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + UNLOAD_S
    while not is_so():
        if time.monotonic() > deadline:
            raise TritonError(f"not within {UNLOAD_S:g} s: {what}")
        time.sleep(POLL_S)


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before


def _mean(values: list[float]) -> tuple[float, float] | None:
    return (fmean(values), pstdev(values)) if values else None
