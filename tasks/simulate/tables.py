"""The simulated fleet's replicas and copies as columns: rows are reused, and looked up by name or by pair."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tasks.simulate.demand import Floats

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

STARTING, READY, LEAVING = 1, 2, 3
"""States of a replica; 0 is a free row."""
LOADING, LOADED, UNLOADING = 1, 2, 3
"""States of a copy; 0 is a free row."""


ROWS = 64
"""At first; a table that is full doubles."""


def _ints() -> Ints:
    return np.zeros(ROWS, dtype=np.int64)


def _floats() -> Floats:
    return np.zeros(ROWS)


def _flags() -> Flags:
    return np.zeros(ROWS, dtype=np.bool_)


@dataclass(slots=True, eq=False)
class Table:
    """Columns of the same length; ``state`` 0 is free."""

    state: Ints = field(default_factory=_ints)

    def add(self, **values: float) -> int:
        """A row with these values and zeros; its number."""
        free = np.flatnonzero(self.state == 0)
        if not free.size:
            self._grow()
            free = np.flatnonzero(self.state == 0)
        row = int(free[0])
        for name in (f.name for f in fields(self)):
            getattr(self, name)[row] = values.get(name, 0)
        return row

    def remove(self, row: int) -> None:
        self.state[row] = 0

    def _grow(self) -> None:
        for name in (f.name for f in fields(self)):
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column, np.zeros_like(column)]))


@dataclass(slots=True, eq=False)
class Replicas(Table):
    pool: Ints = field(default_factory=_ints)
    born: Floats = field(default_factory=_floats)
    memory_bytes: Floats = field(default_factory=_floats)
    used_bytes: Floats = field(default_factory=_floats)
    compute: Floats = field(default_factory=_floats)
    cost: Floats = field(default_factory=_floats)
    """An hour."""

    def of(self, pool: int) -> Ints:
        """Rows of a pool that are not leaving, the oldest first."""
        rows = np.flatnonzero((self.pool == pool) & ((self.state == STARTING) | (self.state == READY)))
        return rows[np.argsort(self.born[rows], kind="stable")]


@dataclass(slots=True, eq=False)
class Copies(Table):
    model: Ints = field(default_factory=_ints)
    replica: Ints = field(default_factory=_ints)
    is_routed: Flags = field(default_factory=_flags)
    weight: Floats = field(default_factory=_floats)
    """Share of the model's requests relative to its other routed copies."""
    service_s: Floats = field(default_factory=_floats)
    servers: Ints = field(default_factory=_ints)
    cv2: Floats = field(default_factory=_floats)
    device_s: Floats = field(default_factory=_floats)
    """Device time of one request."""
    footprint_bytes: Floats = field(default_factory=_floats)
    backlog: Floats = field(default_factory=_floats)
    served: Floats = field(default_factory=_floats)
    """Requests since the meters were last read."""
    waited_s: Floats = field(default_factory=_floats)
    """Their waits, summed."""
    worked_s: Floats = field(default_factory=_floats)
    """Their service times, summed."""

    def reset(self) -> Self:
        """Start the meters anew."""
        for meter in (self.served, self.waited_s, self.worked_s):
            meter[:] = 0
        return self
