"""What each policy would have cost on recorded demand, and how often it would have failed: the yardstick.

    DATA_DIR=traces python -m tests.benchmarks.bench_replay [--fleets many-small,few-large,mixed] [--hours 24]

``DATA_DIR`` holds the traces that ``replay_fleets`` names. Each policy, ours too, is run with several settings; its
best one counts (the cheapest that keeps 99.9 % of requests within their objective, else the one that keeps most). A run
that is stopped loses nothing that is in its ``--rows`` file: what is there is not run again. The file knows no code:
what it has of policies that have changed since is for you to take out. ``--optimum`` solves a fleet of few models
exactly instead (by HiGHS, ``pip install highspy``), to tell how much of the distance to the bound can be had.
``--speed`` times a day of 500 models on about 100 replicas at a 30 s tick.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

# small products on all cores cost more than they save
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from tasks.simulate.bound import lower_bound
from tasks.simulate.picture import picture
from tasks.simulate.policies import own, peers
from tasks.simulate.policies.ours import Ours
from tasks.simulate.report import ENOUGH, best, rows, text, tuned
from tasks.simulate.run import Outcome, Policy, simulate
from tasks.simulate.scenario import Scenario
from tests.benchmarks.placement_yardsticks import EXACT_UP_TO, HAS_HIGHS
from tests.benchmarks.replay_fleets import FLEETS
from tests.benchmarks.replay_optimum import optima
from tests.benchmarks.replay_rows import Rows

COMPARED = ("many-small", "few-large", "mixed")
EXTRAS = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Shares that our decisions without forecasts add to what they saw last."""
QUANTILES = (0.9, 0.97, 0.99)
"""Of their forecasts, ``limits.quantile``."""


def shown(name: str) -> Callable[[float], None]:
    """Prints the share that is done: in one place on a terminal, else by tenths."""
    is_terminal, told = sys.stderr.isatty(), 0

    def show(share: float) -> None:
        nonlocal told
        if is_terminal:
            print(f"\r  {name}: {share:.0%} ", end="", file=sys.stderr, flush=True)
        elif int(share * 10) > told:
            told = int(share * 10)
            print(f"  {name}: {share:.0%}", file=sys.stderr, flush=True)

    return show


def timed(scenario: Scenario, policy: Policy, kept: Rows) -> Outcome:
    """The policy's run, or what is kept of it."""
    if known := kept.get(scenario, policy.name):
        return known
    before, is_terminal = time.perf_counter(), sys.stderr.isatty()
    run = simulate(scenario, policy, on_progress=shown(policy.name) if is_terminal else lambda _: None)
    kept.add(scenario, run)
    print(
        "\r" * is_terminal
        + f"  {policy.name}: {time.perf_counter() - before:.1f} s, cost {run.cost:.1f}, {run.within:.3%} within",
        file=sys.stderr,
        flush=True,
    )
    return run


def compare(scenario: Scenario, kept: Rows, is_peers_only: bool, picture_to: Path | None) -> None:
    hours = scenario.duration_s / 3600
    bound = lower_bound(scenario)
    settings = peers() + ([] if is_peers_only else own(scenario, EXTRAS, QUANTILES))
    found = [tuned(policies, lambda policy: timed(scenario, policy, kept)) for policies in settings]
    demand = scenario.demand.mean(scenario.start, scenario.end).sum()
    print(f"\n{scenario.name}: {hours:g} h, {demand:.0f} requests a second; {scenario.note}")
    print(text(rows(found, bound, hours)))
    if not is_peers_only:
        reactive, ours, _ = found[-3:]
        print(against_goals(found[:-3], reactive, ours, bound.mean_per_hour * hours), flush=True)
    if picture_to is not None:
        picture_to.mkdir(parents=True, exist_ok=True)
        name = scenario.name.replace(" ", "-").replace(",", "").replace("+", "and")
        (picture_to / f"{name}.svg").write_text(picture(scenario.name, found, bound))


def against_goals(by_peer: list[Outcome], reactive: Outcome, ours: Outcome, least: float) -> str:
    """What ours is worth; a price counts only where enough is kept for it."""
    good = [run for run in by_peer if run.within >= ENOUGH]
    mesh = next(run for run in by_peer if run.policy.startswith("ModelMesh"))
    parts = [
        f"ours: {ours.within:.3%} within (goal {ENOUGH:.1%}), {ours.cost / least:.2f} x the bound (goal 1.15)",
        f"{ours.cost / (peer := best(good)).cost:.2f} of {peer.policy} (goal 0.50)" if good else
        f"no peer keeps {ENOUGH:.1%}",
        f"{ours.counters.loads} loads, ModelMesh {mesh.counters.loads}",
        f"{ours.cost / reactive.cost - 1:+.1%} of {reactive.policy}, which keeps {reactive.within:.3%} (goal -10%)",
    ]  # fmt: skip
    return "; ".join(parts)


def optimum(scenario: Scenario, every_h: float) -> None:
    if not HAS_HIGHS or len(scenario.models) > EXACT_UP_TO:
        print(f"{scenario.name}: no optimum: " + (f"over {EXACT_UP_TO} models" if HAS_HIGHS else "highspy is missing"))
        return
    found = optima(scenario, every_h)
    for one in found:
        print(f"  at {one.hour:g} h: bound {one.bound:.1f}, optimum {one.proven:.1f}, ours from scratch {one.ours:.1f}")
    bound, proven, ours = (sum(cost) for cost in zip(*((f.bound, f.proven, f.ours) for f in found), strict=True))
    print(
        f"{scenario.name}: the optimum is {proven / bound:.2f} x the bound, ours from scratch {ours / bound:.2f} x",
        flush=True,
    )


def speed(folder: Path, hours: float) -> None:
    scenario = FLEETS["speed"](folder, 1.0, hours)
    before, busy_before, show = time.perf_counter(), time.process_time(), shown("ours")
    scored_from = scenario.warmup_s / (scenario.warmup_s + scenario.duration_s)
    warm: list[float] = []

    def progressed(share: float) -> None:
        show(share)
        if share >= scored_from and not warm:
            warm.append(time.perf_counter() - before)

    run = simulate(scenario, Ours(scenario.limits), on_progress=progressed)
    seconds, busy = time.perf_counter() - before, time.process_time() - busy_before
    day = warm[0] + (seconds - warm[0]) * 24 / hours  # a fleet is filled for the first time once only
    replicas = sum(minute.replicas for minute in run.minutes) / len(run.minutes)
    print(
        f"{len(scenario.models)} models, {replicas:.0f} replicas on average, {hours:g} h at a "
        f"{scenario.limits.interval_s:g} s tick: {seconds:.0f} s ({busy:.0f} s of processor time), of a day "
        f"{day:.0f} s (goal 180 s)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleets", default=",".join(COMPARED), help=f"of {', '.join(FLEETS)} (%(default)s)")
    parser.add_argument("--hours", type=float, default=24.0, help="scored (%(default)s)")
    parser.add_argument("--days", type=float, default=3.0, help="into the traces, where scoring starts (%(default)s)")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="keep each finished run there, and run none again")
    parser.add_argument("--peers-only", action="store_true", help="leave out ours")
    parser.add_argument("--picture", type=Path, metavar="FOLDER", help="write a picture of each fleet there")
    parser.add_argument("--optimum", type=float, metavar="HOURS", help="solve exactly every so many hours instead")
    parser.add_argument("--speed", action="store_true", help="time 500 models on about 100 replicas instead")
    arguments = parser.parse_args()
    folder = Path(os.environ.get("DATA_DIR", ""))
    if not list(folder.glob("servegen_10min_10d.parquet")):
        sys.exit(f"no traces: set DATA_DIR to a folder with them (DATA_DIR={str(folder)!r}); see --help")
    if arguments.speed:
        speed(folder, arguments.hours)
        return
    if unknown := sorted(set(arguments.fleets.split(",")) - set(FLEETS)):
        sys.exit(f"no fleet {', '.join(unknown)}; there are: {', '.join(FLEETS)}")
    for name in arguments.fleets.split(","):
        scenario = FLEETS[name](folder, arguments.days, arguments.hours)
        if arguments.optimum:
            optimum(scenario, arguments.optimum)
            continue
        compare(scenario, Rows(arguments.rows), arguments.peers_only, arguments.picture)


if __name__ == "__main__":
    main()
