"""Copies on shared replicas for peers that pack: each reserves memory and compute, replicas come and go with them."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.simulate.fleet import SimulatedFleet
from tasks.simulate.policies.deployments import cheapest_pool, room_bytes
from tasks.simulate.tables import READY

RETRY_S = 1.0
"""Between two looks whether an unload has left its memory."""


@dataclass(slots=True, eq=False)
class Shelf:
    """A replica, or one that is starting, and what is to be in it."""

    pool: int
    models: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Memory (bytes) and compute that each reserves."""


@dataclass(slots=True, eq=False)
class Shelves:
    """Every model in its cheapest pool, best fit by what is left, at most one copy of a model in a replica."""

    fleet: SimulatedFleet
    compute: list[float]
    """Device-seconds a second that a copy of each model reserves."""
    shelf_by_name: dict[str, Shelf] = field(default_factory=dict)
    _pools: list[int] = field(init=False)
    _leaving: str | None = None
    """The replica that is being emptied."""

    def __post_init__(self) -> None:
        scenario = self.fleet.scenario
        self._pools = [cheapest_pool(scenario, model, is_shared=True) for model in range(len(scenario.models))]
        self.fleet.on_ready.append(self._fill)

    def count(self, model: int) -> int:
        """Copies that are, or are on their way."""
        return sum(model in shelf.models for shelf in self.shelf_by_name.values())

    def add(self, model: int) -> None:
        """One copy more: where it leaves least room, else in a new replica."""
        pool = self._pools[model]
        what = self.fleet.scenario.pools[pool]
        need = self.fleet.scenario.models[model].need_by_gpu_type[what.gpu_type]
        takes = (float(need.footprint_bytes), min(self.compute[model], what.compute * (1 - what.headroom)))
        fits = [(self._left(shelf, takes), name) for name, shelf in self.shelf_by_name.items() if shelf.pool == pool
                and model not in shelf.models and self._left(shelf, takes) >= 0]  # fmt: skip
        name = min(fits)[1] if fits else self._open(pool)
        self._put(model, takes, name)

    def drop(self, model: int) -> None:
        """One copy fewer: of the emptiest replica that holds one."""
        name = min((len(shelf.models), name) for name, shelf in self.shelf_by_name.items() if model in shelf.models)[1]
        self._take_out(model, name)

    def tidy(self) -> None:
        """Empty replicas go; those that died are forgotten with what was in them."""
        for name in list(self.shelf_by_name):
            if name not in self.fleet.row_by_name:
                del self.shelf_by_name[name]
            elif not self.shelf_by_name[name].models and not self.fleet.inside(self.fleet.row_by_name[name]).size:
                self.fleet.leave(self.fleet.row_by_name[name])
                del self.shelf_by_name[name]

    def consolidate(self) -> None:
        """Load the copies of the replica with fewest into others, if all fit there; ``finish`` then ends it."""
        for name, shelf in sorted(self.shelf_by_name.items(), key=lambda item: len(item[1].models)):
            places = self._places_elsewhere(name)
            if places is not None and self._leaving is None:
                for model, other in places.items():
                    self._put(model, shelf.models[model], other)
                self._leaving = name

    def finish(self) -> None:
        """The replica that was emptied by ``consolidate`` goes."""
        if self._leaving in self.shelf_by_name:
            row = self.fleet.row_by_name[self._leaving]
            self.fleet.counters.unloads += len(self.fleet.inside(row))
            self.fleet.leave(row)
            del self.shelf_by_name[self._leaving]
        self._leaving = None

    def _places_elsewhere(self, name: str) -> dict[int, str] | None:
        """Where each copy of a replica would go, the largest first; None: not all fit."""
        going, found = self.shelf_by_name[name], {}
        trial = {n: Shelf(s.pool, dict(s.models)) for n, s in self.shelf_by_name.items()
                 if n != name and s.pool == going.pool}  # fmt: skip
        for model, takes in sorted(going.models.items(), key=lambda item: -item[1][0]):
            fits = [(self._left(shelf, takes), n) for n, shelf in trial.items()
                    if model not in shelf.models and self._left(shelf, takes) >= 0]  # fmt: skip
            if not fits:
                return None
            found[model] = min(fits)[1]
            trial[found[model]].models[model] = takes
        return found

    def _open(self, pool: int) -> str:
        name = self.fleet.name_by_row[self.fleet.start(pool)]
        self.shelf_by_name[name] = Shelf(pool)
        return name

    def _put(self, model: int, takes: tuple[float, float], name: str) -> None:
        self.shelf_by_name[name].models[model] = takes
        if self.fleet.replicas.state[self.fleet.row_by_name[name]] == READY:
            self._load(model, name)

    def _load(self, model: int, name: str) -> None:
        """Load it as soon as what goes has left its memory."""
        row, shelf = self.fleet.row_by_name.get(name), self.shelf_by_name.get(name)
        if row is None or shelf is None or model not in shelf.models:
            return
        used = float(self.fleet.replicas.used_bytes[row]) + shelf.models[model][0]
        if (model, row) in self.fleet.row_by_copy or used > self.fleet.replicas.memory_bytes[row]:
            self.fleet.at(self.fleet.now + RETRY_S, lambda: self._load(model, name))
        else:
            self.fleet.load(model, row)

    def _left(self, shelf: Shelf, takes: tuple[float, float]) -> float:
        """The lesser of the shares of memory and compute that are left once it is in; negative: it does not fit."""
        pool = self.fleet.scenario.pools[shelf.pool]
        memory = room_bytes(pool) - takes[0] - sum(memory for memory, _ in shelf.models.values())
        compute = pool.compute * (1 - pool.headroom) - takes[1] - sum(compute for _, compute in shelf.models.values())
        return min(memory / pool.memory_bytes, compute / pool.compute)

    def _take_out(self, model: int, name: str) -> None:
        del self.shelf_by_name[name].models[model]
        row = self.fleet.row_by_name.get(name)
        if row is not None and (model, row) in self.fleet.row_by_copy:
            self.fleet.unload(model, row)

    def _fill(self, row: int) -> None:
        shelf = self.shelf_by_name.get(self.fleet.name_by_row[row])
        for model in shelf.models if shelf else ():
            self._load(model, self.fleet.name_by_row[row])
