"""What our decisions see of the simulated fleet: the same Observation as that of a real one, from arrays.

A tick's frames are built from blocks of numbers: the models' column is the same categorical each time, which pandas
shares and groups by its codes. Copies and replicas are remembered as long as they do not change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from tasks.decision import Sizing
from tasks.simulate.demand import Floats, Rates
from tasks.simulate.fleet import SimulatedFleet
from tasks.simulate.scenario import Scenario
from tasks.simulate.tables import LEAVING, LOADED, LOADING, READY, STARTING, UNLOADING, Ints
from tasks.simulate.traffic import Gateway
from tasks.world import (
    TRAFFIC_COLUMNS,
    WANTED_COLUMNS,
    Copy,
    CopyState,
    Fleet,
    Observation,
    Replica,
    ReplicaState,
    empty_frame,
)

REPLICA_STATES = {STARTING: ReplicaState.STARTING, READY: ReplicaState.READY, LEAVING: ReplicaState.LEAVING}
COPY_STATES = {LOADING: CopyState.LOADING, LOADED: CopyState.READY, UNLOADING: CopyState.UNLOADING}


_CopyKey = tuple[int, str, int, bool, float]
"""Model, replica, state, whether it is routed, weight."""


@dataclass(slots=True, eq=False)
class Observer:
    """Keeps the history of one run, and makes an Observation of the fleet as it is now."""

    fleet: SimulatedFleet
    gateway: Gateway
    random: np.random.Generator = field(init=False)
    _grain_s: float = field(init=False)
    """Demand is kept by this; bins, windows and the lag are whole numbers of grains."""
    _grains: Rates = field(init=False)
    """(grains, models): requests counted, from the start of history on."""
    _known: int = 0
    """Grains at the start: the history, and what its first window reaches back."""
    _filled: int = 0
    _wanted: list[tuple[float, Floats]] = field(default_factory=list)
    _models: pd.Index[str] = field(init=False)
    """The categories of the models' columns."""
    _names: list[str] = field(default_factory=list)
    _columns: dict[int, pd.Categorical[str]] = field(default_factory=dict)
    """The models' column by rows a model."""
    _copies: dict[_CopyKey, Copy] = field(default_factory=dict)
    _read_at: float = 0.0

    def __post_init__(self) -> None:
        scenario = self.fleet.scenario
        self.random = np.random.default_rng((scenario.seed, 2))
        self._names = [model.name for model in scenario.models]
        self._models = pd.Index(self._names)
        self._grain_s = _grain_s(scenario)
        spans = (scenario.history_s, scenario.bin_s, max(scenario.window_s, self._grain_s), scenario.lag_s)
        self._known = sum(self._in_grains(span) for span in spans)
        now, known = self.fleet.now, self._known
        grains = known + int((scenario.end - now) / self._grain_s) + 1
        self._grains = np.zeros((grains, len(self._names)), dtype=np.float32)
        for grain in range(known):
            middle = now - (known - grain - 0.5) * self._grain_s
            self._grains[grain] = self.random.poisson(scenario.demand.at(middle) * self._grain_s)
        self._filled = known
        self._read_at = now

    def _in_grains(self, seconds: float) -> int:
        return round(seconds / self._grain_s)

    def observe(self) -> Observation:
        """The fleet, its demand and its traffic since the last observation."""
        self._count()
        scenario, now = self.fleet.scenario, self.fleet.now
        copies = self._copies_now()
        pools = tuple(replace(pool, replicas=self.fleet.wanted[i]) for i, pool in enumerate(scenario.pools))
        observation = Observation(
            now=now,
            fleet=Fleet(scenario.models, pools, self._replicas_now(), copies, scenario.costs.splits_by_weight),
            demand=self._demand(),
            traffic=self._traffic(),
            wanted=self._wanted_frame(),
            age_s_by_source={f"traffic:{name}": 0.0 for name in self.fleet.row_by_name},
        )
        self.fleet.copies.reset()
        self._read_at = now
        return observation

    def remember(self, sizings: tuple[Sizing, ...]) -> None:
        """What this tick wanted, for the stabilisation of the next ones."""
        copies = [float(s.copies if s.needed_copies is None else s.needed_copies) for s in sizings]
        self._wanted.append((self.fleet.now, np.array(copies)))
        oldest = self.fleet.now - self.fleet.scenario.limits.stabilisation_s
        self._wanted = [(time, copies) for time, copies in self._wanted if time >= oldest]

    def _count(self) -> None:
        """Add the grains that are complete since the last time."""
        per = round(self._grain_s / self.fleet.scenario.costs.step_s)
        begun = self.fleet.scenario.start - self.fleet.scenario.warmup_s
        complete = self._known + int((self.fleet.now - begun + 1e-6) / self._grain_s)
        missing = complete - self._filled
        if missing <= 0:
            return
        over = round((self.fleet.now - begun) / self.fleet.scenario.costs.step_s) % per
        steps = self.gateway.counts[-(missing * per + over) : -over or None]
        self._grains[self._filled : complete] = np.add.reduceat(np.array(steps), range(0, len(steps), per), axis=0)
        self._filled = complete

    def _demand(self) -> pd.DataFrame:
        scenario = self.fleet.scenario
        per, bins = self._in_grains(scenario.bin_s), round(scenario.history_s / scenario.bin_s)
        window = max(1, self._in_grains(scenario.window_s))
        lag = self._in_grains(scenario.lag_s)
        newest_grain = self._filled - lag
        total = np.cumsum(self._grains[newest_grain - bins * per - window : newest_grain], axis=0, dtype=float)
        ends = len(total) - 1 - per * np.arange(bins - 1, -1, -1)
        rates = (total[ends] - total[ends - window]) / (window * self._grain_s)
        begun = scenario.start - scenario.warmup_s - self._known * self._grain_s
        # Prometheus dates a rate by when it is asked, not by the last scrape that it knows
        times = begun + self._filled * self._grain_s - scenario.bin_s * np.arange(bins - 1, -1, -1)
        rates[times - (lag + window) * self._grain_s < scenario.recorded_from - 1e-6] = np.nan
        return pd.DataFrame(
            {"time": np.tile(times, rates.shape[1]), "model": self._column(bins), "demand_rps": rates.T.ravel()}
        )

    def _column(self, rows: int) -> pd.Categorical[str]:
        if rows not in self._columns:
            codes = np.repeat(np.arange(len(self._names)), rows)
            self._columns[rows] = pd.Categorical.from_codes(codes, categories=self._models)
        return self._columns[rows]

    def _wanted_frame(self) -> pd.DataFrame:
        if not self._wanted:
            return empty_frame(WANTED_COLUMNS)
        times = np.array([time for time, _ in self._wanted])
        copies = np.stack([copies for _, copies in self._wanted], axis=1)
        model = self._column(len(times))
        return pd.DataFrame({"time": np.tile(times, len(copies)), "model": model, "copies": copies.ravel()})

    def _traffic(self) -> pd.DataFrame:
        table, seconds = self.fleet.copies, max(self.fleet.now - self._read_at, self.fleet.scenario.costs.step_s)
        rows = np.flatnonzero((table.state == LOADED) & (table.served > 0))
        if not rows.size:
            return empty_frame(TRAFFIC_COLUMNS)
        served = table.served[rows]
        names = self.fleet.name_by_row
        return pd.DataFrame(
            {
                "model": pd.Categorical.from_codes(table.model[rows], categories=self._models),
                "replica": pd.Series([names[row] for row in table.replica[rows].tolist()], dtype=object),
                "served_rps": served / seconds,
                "failed_rps": 0.0,
                "queue_ms": 1000 * table.waited_s[rows] / served * self._luck(rows, seconds),
                "service_ms": 1000 * table.worked_s[rows] / served,
            }
        )

    def _luck(self, rows: Ints, seconds: float) -> Floats:
        """How far the mean wait of a window's requests is from the expected one: a factor of mean 1.

        The variance of the mean of n waits in M/M/1, relative to the squared mean, is (2 + 5r - 4r^2 + r^3) /
        (r (1 - r)^2 n): Daley, *The serial correlation coefficients of waiting times*, 1968; also Whitt, *Planning
        queueing simulations*, 1989. A gamma variate has that variance. What waits in a backlog is no matter of luck.
        """
        table = self.fleet.copies
        load = np.clip(table.worked_s[rows] / (seconds * table.servers[rows]), 0.01, 0.95)
        shape = table.served[rows] * load * (1 - load) ** 2 / (2 + 5 * load - 4 * load**2 + load**3)
        luck = self.random.gamma(np.maximum(shape, 0.05)) / np.maximum(shape, 0.05)
        steady: Floats = np.where(table.backlog[rows] > 0, 1.0, luck)
        return steady

    def _replicas_now(self) -> tuple[Replica, ...]:
        table, pools = self.fleet.replicas, self.fleet.scenario.pools
        found = []
        for row, name in sorted(self.fleet.name_by_row.items()):
            pool = pools[int(table.pool[row])]
            state = REPLICA_STATES[int(table.state[row])]
            found.append(Replica(name, pool.name, pool.gpu_type, pool.memory_bytes, pool.compute, state, node=name))
        return tuple(found)

    def _copies_now(self) -> tuple[Copy, ...]:
        table = self.fleet.copies
        rows = np.flatnonzero(table.state)
        columns = (table.model, table.replica, table.state, table.is_routed, table.weight)
        there = [
            self._copy((model, self.fleet.name_by_row[replica], state, is_routed, weight))
            for model, replica, state, is_routed, weight in zip(
                *(column[rows].tolist() for column in columns), strict=True
            )
        ]
        lost = [
            Copy(self._names[m], name, CopyState.ABSENT, True, detail="its replica is gone")
            for m, name in self.fleet.lost
        ]
        return tuple(sorted(there + lost, key=lambda copy: (copy.replica, copy.model)))

    def _copy(self, key: _CopyKey) -> Copy:
        if key not in self._copies:
            model, replica, state, is_routed, weight = key
            self._copies[key] = Copy(self._names[model], replica, COPY_STATES[state], is_routed, weight=weight)
        return self._copies[key]


def _grain_s(scenario: Scenario) -> float:
    """The longest time of which all that demand is looked at by is a whole number, itself of whole steps."""
    step_s = scenario.costs.step_s
    spans = (scenario.bin_s, scenario.limits.interval_s, scenario.window_s, scenario.lag_s)
    return step_s * math.gcd(*(round(span / step_s) for span in spans))
