"""Three fleets under recorded demand, for the replay's yardstick.

What is recorded: the shape of demand over time, from the traces. What is made up, and drawn from a fixed seed: which
models there are (footprints, service times, objectives), how large their demand is on average, and, where a trace has
bins of minutes, the bursts within them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.simulate.demand import Demand, Floats, Rates, read_demand, scaled, with_bursts
from tasks.simulate.scenario import Scenario
from tasks.world import Limits, Model, Need, Objective, Pool

EPOCH = 1_700_006_400.0
"""A midnight (UTC)."""
DAY_S = 86_400.0
BIN_S = 30.0
BURSTS = (0.08, 15.0)
"""Deviation and memory (s) of bins of 30 s around the line through coarser ones, beyond Poisson arrivals. Azure's two
services, recorded every 10 s, vary around the line through their 10-minute means by 0.08 and 0.13, with a memory of
about 15 s."""


def _read(folder: Path, name: str, days: tuple[float, float]) -> tuple[tuple[str, ...], Demand]:
    """Some days of a trace, its first day's start at ``EPOCH``."""
    trace = pd.read_parquet(folder / f"{name}.parquet")
    first, last = (trace["timestamp"].min() + day * DAY_S for day in days)
    trace = trace[(trace["timestamp"] >= first) & (trace["timestamp"] < last)]
    return read_demand(trace.assign(model=trace["model"].astype(str)), BIN_S, EPOCH)


def _columns(demand: Demand, columns: list[int], shifts_s: list[float]) -> Demand:
    """Series by column, each shifted in time and wrapped around: made-up models of a recorded kind."""
    shifted = [np.roll(demand.rates_rps[:, c], round(s / demand.bin_s)) for c, s in zip(columns, shifts_s, strict=True)]
    return Demand(demand.first, demand.bin_s, np.stack(shifted, axis=1))


def many_small(folder: Path, models: int, days: float, hours: float) -> Scenario:
    """Many small models on shared GPUs; ServeGen's clients, each one a model."""
    random = np.random.default_rng(11)
    names, recorded = _read(folder, "servegen_10min_10d", (0, days + 1))
    loud = [c for c in range(len(names)) if recorded.rates_rps[:, c].mean() > 0.01]
    columns = [loud[i % len(loud)] for i in range(models)]
    shifts = [(i // len(loud)) * 3 * 3600.0 for i in range(models)]
    demand = with_bursts(_columns(recorded, columns, shifts), *BURSTS, seed=12)
    usual = recorded.rates_rps[:, columns].mean(axis=0)
    service_ms = random.uniform(5, 60, models)
    # the skew of the clients, tempered so that the largest model is a few replicas and not the fleet
    rates = usual**0.6
    rates *= models * 0.11 / (rates * service_ms / 1000).sum()
    start = EPOCH + days * DAY_S
    demand = scaled(demand, rates, demand.first, demand.end)
    made = tuple(
        _model(f"m{i:03d}", {"l4": (float(random.lognormal(np.log(1.1), 0.6)) * 1e9, service_ms[i], 0.3, 1, 15.0)},
               max(25.0, 2 * service_ms[i]), most=60)
        for i in range(models)
    )  # fmt: skip
    pools = (Pool("l4", "l4", 24 * 10**9, 1.0, 1, 200, cost_per_hour=1.0, start_s=120.0),)
    return Scenario(
        f"{models} small models, shared L4", made, pools, demand, start, hours * 3600,
        limits=Limits(budget=max(8, models // 12)),
        note="ServeGen, 10 min bins; bursts within them, time shifts beyond 205 clients and mean rates made up",
    )  # fmt: skip


def few_large(folder: Path, days: float, hours: float) -> Scenario:
    """Few large models, one to three a GPU; Azure's two LLM services and their like, shifted."""
    _, recorded = _read(folder, "azure_llm2024_1min_7d", (0, days + 1))
    columns, shifts = [0, 1, 0, 1, 0, 1], [0, 0, 5 * 3600.0, -4 * 3600.0, 10 * 3600.0, 8 * 3600.0]
    demand = _columns(recorded, columns, shifts)
    sizes = [38e9, 26e9, 18e9, 40e9, 22e9, 60e9]
    service_ms = [900.0, 600.0, 350.0, 1200.0, 500.0, 1500.0]
    slots = [16, 16, 16, 8, 16, 8]
    rates = np.array([60.0, 70.0, 45.0, 12.0, 40.0, 6.0])
    # a batch of requests shares the device: each takes its slot for its service time, the device for a part of it
    made = tuple(
        _model(f"llm{i}", {"h100": (sizes[i], service_ms[i], 1.0, slots[i], 60.0, 0.8 * service_ms[i] / slots[i])},
               500.0, most=30)
        for i in range(6)
    )  # fmt: skip
    pools = (Pool("h100", "h100", 80 * 10**9, 1.0, 1, 60, cost_per_hour=1.0, start_s=240.0),)
    return Scenario(
        "6 large models, H100", made, pools, scaled(demand, rates, demand.first, demand.end),
        EPOCH + days * DAY_S, hours * 3600, limits=Limits(budget=8, act_s=60.0),
        note="Azure LLM 2024, 1 min bins as recorded; four of six series are shifts of the two; mean rates made up",
    )  # fmt: skip


def mixed(folder: Path, days: float, hours: float) -> Scenario:
    """Sixty models on three GPU types; flash crowds (tweets), batches (VM creations), clients (ServeGen)."""
    random = np.random.default_rng(21)
    parts: list[Rates] = []
    rates: list[Floats] = []
    for name, count in (("nab_tweets_5min_55d", 10), ("azure_vm2017_flavor_5min_30d", 6), ("servegen_10min_10d", 44)):
        _, recorded = _read(folder, name, (0, days + 1))
        usual = recorded.rates_rps.mean(axis=0)
        columns = np.argsort(-usual)[:count].tolist()
        parts.append(_columns(recorded, columns, [0.0] * count).rates_rps)
        rates.append((usual[columns] / usual[columns].max()).astype(float))
    length = min(len(part) for part in parts)
    demand = Demand(EPOCH, BIN_S, np.concatenate([part[:length] for part in parts], axis=1))
    models = demand.rates_rps.shape[1]
    service_ms = [float(random.uniform(10, 120)) for _ in range(models)]
    tempered: Floats = np.sqrt(np.concatenate(rates))
    wanted = tempered * (14.0 / float((tempered * np.array(service_ms) / 1000).sum()))
    made = []
    for i in range(models):
        gigabytes = float(np.clip(random.lognormal(np.log(4), 0.8), 0.5, 40))
        speeds = {"t4": (2.2, 15.0), "l4": (1.0, 22.0), "a100": (0.4, 75.0)}
        needs = {gpu: (gigabytes * 1e9, service_ms[i] * slow, 0.3, 1, 20.0)
                 for gpu, (slow, most) in speeds.items() if gigabytes < 0.9 * most}  # fmt: skip
        made.append(_model(f"x{i:02d}", needs, max(40.0, 3 * service_ms[i]), most=80))
    pools = (
        Pool("t4", "t4", 16 * 10**9, 1.0, 0, 60, cost_per_hour=0.35, start_s=120.0),
        Pool("l4", "l4", 24 * 10**9, 1.0, 1, 60, cost_per_hour=0.7, start_s=120.0),
        Pool("a100", "a100", 80 * 10**9, 1.0, 0, 30, cost_per_hour=3.0, start_s=180.0),
    )
    return Scenario(
        "60 models, T4 + L4 + A100", tuple(made), pools,
        with_bursts(scaled(demand, wanted, demand.first, demand.end), *BURSTS, seed=22),
        EPOCH + days * DAY_S, hours * 3600, limits=Limits(budget=12),
        note="tweets and VM creations, 5 min bins, ServeGen, 10 min bins; bursts within them and mean rates made up",
    )  # fmt: skip


def _model(name: str, needs: Mapping[str, tuple[float, ...]], queue_ms: float, most: int) -> Model:
    """Needs by GPU type: footprint (bytes), service (ms), its squared variation, instances, load (s), device (ms)."""
    made = {
        gpu: Need(int(n[0]), float(n[1]), n[2], int(n[3]), n[4], n[5] if len(n) > 5 else None)
        for gpu, n in needs.items()
    }
    return Model(name, made, Objective(queue_ms), max_copies=most, pools=frozenset(made))


FLEETS: Mapping[str, Callable[[Path, float, float], Scenario]] = {
    "many-small": lambda folder, days, hours: many_small(folder, 200, days, hours),
    "few-large": few_large,
    "mixed": mixed,
    "speed": lambda folder, days, hours: many_small(folder, 500, days, hours),
}
