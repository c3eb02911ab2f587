"""A simulated fleet: it starts, loads, routes, drains, unloads and dies as it is told, each in its time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tasks.simulate.scenario import Failure, Scenario
from tasks.simulate.tables import LEAVING, LOADED, LOADING, READY, STARTING, UNLOADING, Copies, Ints, Replicas

Event = tuple[float, int, Callable[[], None]]


class ImpossibleError(Exception):
    """What a policy asked for cannot be done: no such replica, no memory, nothing there to unload."""


@dataclass(slots=True)
class Counters:
    """What happened since the start of scoring."""

    loads: int = 0
    unloads: int = 0
    starts: int = 0
    moves_refused: int = 0
    """What was asked for and could not be done."""


@dataclass(slots=True, eq=False)
class SimulatedFleet:
    """The fleet at ``now``. Models, pools and replicas are numbers here: columns of arrays."""

    scenario: Scenario
    now: float
    random: np.random.Generator
    replicas: Replicas = field(default_factory=Replicas)
    copies: Copies = field(default_factory=Copies)
    name_by_row: dict[int, str] = field(default_factory=dict)
    row_by_name: dict[str, int] = field(default_factory=dict)
    row_by_copy: dict[tuple[int, int], int] = field(default_factory=dict)
    wanted: list[int] = field(default_factory=list)
    """The count asked for, by pool."""
    counters: Counters = field(default_factory=Counters)
    version: int = 0
    """Changes with each change of replicas, copies or routes."""
    lost: set[tuple[int, str]] = field(default_factory=set)
    """Model and replica of the copies that died with their replica: a route to nowhere, until somebody ends it."""
    on_ready: list[Callable[[int], None]] = field(default_factory=list)
    """Called with each replica's row when it is ready."""
    _events: list[Event] = field(default_factory=list)
    _born: int = 0

    def __post_init__(self) -> None:
        self.wanted = [0] * len(self.scenario.pools)

    # --- time

    def at(self, time: float, what: Callable[[], None]) -> None:
        """Have something done at a time."""
        self._born += 1
        heapq.heappush(self._events, (time, self._born, what))

    def advance(self, time: float) -> None:
        """Do what is due until a time."""
        while self._events and self._events[0][0] <= time:
            due, _, what = heapq.heappop(self._events)
            self.now = max(self.now, due)
            what()
        self.now = time

    def lasting(self, seconds: float) -> float:
        """A duration drawn around what is declared: log-normal with that mean."""
        variance = np.log1p(self.scenario.costs.spread**2)
        return float(seconds * self.random.lognormal(-variance / 2, np.sqrt(variance)))

    # --- replicas

    def scale(self, pool: int, count: int) -> None:
        """Ask for this many replicas; more are started. Fewer take a ``remove`` each."""
        missing = count - len(self.replicas.of(pool))
        self.wanted[pool] = count
        for _ in range(missing):
            self.start(pool)

    def start(self, pool: int) -> int:
        """A replica more, outside the pool's count; its row."""
        what = self.scenario.pools[pool]
        self._born += 1
        row = self.replicas.add(
            state=STARTING, pool=pool, born=self._born, compute=what.compute, cost=what.cost_per_hour,
            memory_bytes=what.memory_bytes,
        )  # fmt: skip
        name = f"{what.name}-{self._born}"
        self.name_by_row[row], self.row_by_name[name] = name, row
        self.counters.starts += 1
        self.version += 1
        self.at(self.now + self.lasting(what.start_s), lambda: self._become_ready(row, name))
        return row

    def remove(self, row: int) -> None:
        """The replica and all that is in it go at once. The pool's count falls with it."""
        pool = int(self.replicas.pool[row])
        self.wanted[pool] = max(0, self.wanted[pool] - 1)
        self._forget(row)

    def leave(self, row: int) -> None:
        """The replica takes no more requests and goes when it is drained."""
        name = self.name_by_row[row]
        pool = int(self.replicas.pool[row])
        self.wanted[pool] = max(0, self.wanted[pool] - 1)
        self.replicas.state[row] = LEAVING
        self.copies.is_routed[self.inside(row)] = False
        self.version += 1
        self.at(self.now + self.scenario.costs.drain_s, lambda: self._forget(row) if self._is(row, name) else None)

    def kill(self, failure: Failure) -> None:
        """The replica dies with all that is in it; its pool starts another."""
        pool = self.scenario.pool_index(failure.pool)
        rows = self.replicas.of(pool)
        if not rows.size:
            return
        row = int(rows[min(failure.nth, len(rows) - 1)])
        self.lost |= {(int(self.copies.model[copy]), self.name_by_row[row]) for copy in self.inside(row)}
        self._forget(row)
        self.at(self.now + self.scenario.costs.repair_s, lambda: self.scale(pool, self.wanted[pool]))

    def inside(self, row: int) -> Ints:
        """Rows of the copies in a replica."""
        return np.flatnonzero((self.copies.replica == row) & (self.copies.state != 0))

    def _forget(self, row: int) -> None:
        for copy in self.inside(row).tolist():
            self._drop(copy)
        self.replicas.remove(row)
        del self.row_by_name[self.name_by_row.pop(row)]
        self.version += 1

    def _become_ready(self, row: int, name: str) -> None:
        if self._is(row, name) and self.replicas.state[row] == STARTING:
            self.replicas.state[row] = READY
            self.version += 1
            for hook in self.on_ready:
                hook(row)

    def _is(self, row: int, name: str) -> bool:
        return self.name_by_row.get(row) == name

    # --- copies

    def load(self, model: int, row: int, load_s: float | None = None, route: bool = True) -> int:
        """Load a model into a replica, and route to it once it is ready.

        Raises:
            ImpossibleError: the replica is not there, has no memory left, or holds the model already.
        """
        pool = self.scenario.pools[int(self.replicas.pool[row])]
        need = self.scenario.models[model].need_by_gpu_type[pool.gpu_type]
        used = self.replicas.used_bytes[row] + need.footprint_bytes
        if row not in self.name_by_row or (model, row) in self.row_by_copy or used > pool.memory_bytes:
            self.counters.moves_refused += 1
            raise ImpossibleError(f"load of {self.scenario.models[model].name}: no replica, no memory, or there")
        copy = self.copies.add(
            state=LOADING, model=model, replica=row, service_s=need.service_ms / 1000, servers=need.instances,
            cv2=need.service_cv2, device_s=need.device_s_per_request, footprint_bytes=need.footprint_bytes, weight=1.0,
        )  # fmt: skip
        self.replicas.used_bytes[row] = used
        self.row_by_copy[model, row] = copy
        self.counters.loads += 1
        self.version += 1
        name = self.name_by_row[row]
        lasts = self.lasting(need.load_s) if load_s is None else load_s
        self.at(self.now + lasts, lambda: self._become_loaded(model, row, name, route))
        return copy

    def route(self, model: int, row: int, is_routed: bool = True) -> None:
        """Requests go there from now on, or do so no more."""
        copy = self._find(model, row)
        self.copies.is_routed[copy] = is_routed
        self.copies.weight[copy] = 1.0
        self.version += 1

    def weigh(self, model: int, weight_by_row: Mapping[int, float]) -> None:
        """Requests are split by these weights from now on.

        Raises:
            ImpossibleError: a copy is not there, or not routed.
        """
        weight_by_copy = {self._find(model, row): weight for row, weight in weight_by_row.items()}
        if not all(self.copies.is_routed[list(weight_by_copy)]):
            raise ImpossibleError(f"shares of {self.scenario.models[model].name}: a copy is not routed")
        for copy, weight in weight_by_copy.items():
            self.copies.weight[copy] = weight
        self.version += 1

    def unload(self, model: int, row: int) -> None:
        """The copy goes; its memory is free a little later."""
        copy = self._find(model, row)
        self.copies.is_routed[copy] = False
        self.copies.state[copy] = UNLOADING
        self.copies.backlog[copy] = 0
        self.counters.unloads += 1
        self.version += 1
        name = self.name_by_row[row]
        self.at(self.now + self.scenario.costs.unload_s, lambda: self._become_free(model, row, name))

    def holders(self, model: int) -> Ints:
        """Rows of a model's copies that are loaded or being loaded."""
        state = self.copies.state
        return np.flatnonzero((self.copies.model == model) & ((state == LOADED) | (state == LOADING)))

    def counts(self, loaded_only: bool = False) -> Ints:
        """(models,): copies that are loaded, and those being loaded."""
        state = self.copies.state
        there = (state == LOADED) if loaded_only else (state == LOADED) | (state == LOADING)
        return np.bincount(self.copies.model[there], minlength=len(self.scenario.models))

    def _find(self, model: int, row: int) -> int:
        if (copy := self.row_by_copy.get((model, row))) is None:
            self.counters.moves_refused += 1
            raise ImpossibleError(f"{self.scenario.models[model].name} is not in that replica")
        return copy

    def _become_loaded(self, model: int, row: int, name: str, route: bool) -> None:
        if not self._is(row, name) or (copy := self.row_by_copy.get((model, row))) is None:
            return
        if self.copies.state[copy] == LOADING:
            self.copies.state[copy] = LOADED
            self.copies.is_routed[copy] = route and self.replicas.state[row] == READY
            self.version += 1

    def _become_free(self, model: int, row: int, name: str) -> None:
        copy = self.row_by_copy.get((model, row))
        if self._is(row, name) and copy is not None and self.copies.state[copy] == UNLOADING:
            self._drop(copy)

    def _drop(self, copy: int) -> None:
        row = int(self.copies.replica[copy])
        self.replicas.used_bytes[row] -= self.copies.footprint_bytes[copy]
        del self.row_by_copy[int(self.copies.model[copy]), row]
        self.copies.remove(copy)
        self.copies.is_routed[copy] = False
        self.version += 1
