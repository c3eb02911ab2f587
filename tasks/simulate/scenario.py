"""What is replayed: a fleet, its demand, and what starting and loading cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tasks.simulate.demand import Demand
from tasks.world import Limits, Model, Pool


def fits(model: Model, pool: Pool) -> bool:
    """Whether one copy has room in an empty replica of a pool that it may live in."""
    return model.need_by_gpu_type[pool.gpu_type].footprint_bytes <= pool.memory_bytes * (1 - pool.headroom)


@dataclass(frozen=True, slots=True)
class Failure:
    """A replica that dies."""

    at_s: float
    """Seconds after the start of what is scored."""
    pool: str
    nth: int = 0
    """Of the pool's replicas that are there then, by age; the last one where there are fewer."""


@dataclass(frozen=True, slots=True)
class Costs:
    """How the simulated fleet behaves, the same for every policy."""

    step_s: float = 5.0
    """Time advances by this much; what changes within a step changes at its end."""
    spread: float = 0.2
    """Coefficient of variation of start-up and load times (log-normal around what is declared)."""
    timeout_s: float = 30.0
    """A request that would wait longer has failed."""
    drain_s: float = 2.0
    """From the end of a copy's routing to its unload."""
    unload_s: float = 1.0
    """Until the memory of an unloaded copy is free."""
    is_round_robin: bool = False
    """Whether the gateway takes turns among a model's copies. False: at random, the worse for everybody."""
    splits_by_weight: bool = False
    """Whether the gateway sends copies the shares that their weights say. False: all of a model's the same."""
    repair_s: float = 10.0
    """From a replica's death to its replacement being started."""


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """One fleet and its demand; every policy gets the same one."""

    name: str
    models: tuple[Model, ...]
    pools: tuple[Pool, ...]
    """Their counts at the start are of no matter: each policy starts from the minimum."""
    demand: Demand
    """Column i is the demand of ``models[i]``; it reaches back before ``start`` as far as history is to be known."""
    start: float
    """Unix seconds: where scoring starts."""
    duration_s: float
    warmup_s: float = 1800.0
    """Before the start, in which policies find their footing; not scored."""
    limits: Limits = field(default_factory=Limits)
    history_s: float = 3600.0
    """Demand history that our decisions read."""
    bin_s: float = 30.0
    """Width of its bins."""
    window_s: float = 30.0
    """Each is the mean over a window of this length that ends with it. A rate in Prometheus is the mean between the
    first and the last scrape of its range: an interval of scrapes shorter than that."""
    lag_s: float = 0.0
    """How old the newest of it is: half an interval of scrapes, as often as not."""
    recorded_from: float = -math.inf
    """Unix seconds; windows that begin before were not observed: a fleet that is new has no history."""
    failures: tuple[Failure, ...] = ()
    costs: Costs = field(default_factory=Costs)
    seed: int = 0
    note: str = ""
    """Where the demand is from, and which part of it is made up."""

    def __post_init__(self) -> None:
        for failure in self.failures:
            self.pool_index(failure.pool)
            if not 0 <= failure.at_s < self.duration_s:
                raise ValueError(f"a replica fails at {failure.at_s:g} s; scored are {self.duration_s:g} s, from 0 on")

    def pool_index(self, name: str) -> int:
        """Which of the pools has this name.

        Raises:
            ValueError: none.
        """
        names = [pool.name for pool in self.pools]
        if name not in names:
            raise ValueError(f"a replica fails in pool {name}; there are: {', '.join(sorted(names))}")
        return names.index(name)

    @property
    def end(self) -> float:
        return self.start + self.duration_s
