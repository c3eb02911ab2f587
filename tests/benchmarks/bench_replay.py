"""What each policy would have cost on recorded demand, and how often it would have failed: the yardstick.

    DATA_DIR=traces python -m tests.benchmarks.bench_replay [--fleets many-small,few-large,mixed] [--hours 24]

``DATA_DIR`` holds the traces that ``replay_fleets`` names. Each peer is run with several settings; its best one counts
(the cheapest that keeps 99.9 % of requests within their objective, else the one that keeps most). ``--speed`` times a
day of 500 models on about 100 replicas at a 30 s tick.
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
from tasks.simulate.report import best, rows, text
from tasks.simulate.run import Policy, Run, simulate
from tasks.simulate.scenario import Scenario
from tests.benchmarks.replay_fleets import FLEETS

COMPARED = ("many-small", "few-large", "mixed")


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


def timed(scenario: Scenario, policy: Policy) -> Run:
    before = time.perf_counter()
    run = simulate(scenario, policy, on_progress=shown(policy.name) if sys.stderr.isatty() else lambda _: None)
    print(
        f"  {policy.name}: {time.perf_counter() - before:.1f} s, cost {run.cost:.1f}, {run.within:.3%} within",
        file=sys.stderr,
        flush=True,
    )
    return run


def compare(scenario: Scenario, picture_to: Path | None) -> None:
    hours = scenario.duration_s / 3600
    bound = lower_bound(scenario)
    by_peer = [best([timed(scenario, policy) for policy in settings]) for settings in peers()]
    mine = [timed(scenario, policy) for policy in own(scenario)]
    demand = scenario.demand.mean(scenario.start, scenario.end).sum()
    print(f"\n{scenario.name}: {hours:g} h, {demand:.0f} requests a second; {scenario.note}")
    print(text(rows([*by_peer, *mine], bound, hours)))
    cheapest = min((run.cost, run.policy, run.within) for run in by_peer)
    good = min(((run.cost, run.policy) for run in by_peer if run.within >= 0.999), default=None)
    print(
        f"ours / bound {mine[1].cost / (bound.mean_per_hour * hours):.2f} (goal 1.15); ours / best peer at 99.9 %: "
        + (f"{mine[1].cost / good[0]:.2f} of {good[1]} (goal 0.50)" if good else "no peer keeps 99.9 %")
        + f"; cheapest peer {cheapest[1]} at {cheapest[2]:.2%}; forecasts against reactive: cost "
        f"{mine[1].cost / mine[0].cost - 1:+.1%}, outside {1 - mine[1].within:.3%} after {1 - mine[0].within:.3%}",
        flush=True,
    )
    if picture_to is not None:
        picture_to.mkdir(parents=True, exist_ok=True)
        name = scenario.name.replace(" ", "-").replace(",", "").replace("+", "and")
        (picture_to / f"{name}.svg").write_text(picture(scenario.name, [*by_peer, *mine], bound))


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
    parser.add_argument("--days", type=float, default=3.0, help="of the trace before, as history (%(default)s)")
    parser.add_argument("--picture", type=Path, metavar="FOLDER", help="write a picture of each fleet there")
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
        compare(FLEETS[name](folder, arguments.days, arguments.hours), arguments.picture)


if __name__ == "__main__":
    main()
