"""The demo's last page: what was sent, what holding a subset saved, what the kill cost, and where to look."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from rich.console import Console
from rich.table import Table

from infra.load import Report
from infra.load.show import show
from infra.local.cpu import cpu_share
from infra.local.samples import Kill, Sample, Savings, alone, savings, served_again_s
from tasks.clients.prometheus import Prometheus, PrometheusError
from tasks.fleets.state import State
from tasks.record.words import PHASES

COLUMNS = 64
"""Of the chart: it fits a terminal of 80."""
ROWS = 8
MB = 10**6
SCRAPE_S = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Story:
    """Everything that the last page tells."""

    report: Report
    samples: tuple[Sample, ...]
    kill: Kill | None
    start_by_phase: Mapping[str, float]
    """Seconds from the start of the load at which each phase of the scenario began."""


def tell(story: Story, state: State, folder: Path, console: Console) -> None:
    """Print the page. ``folder``: where the load's report was written."""
    show(story.report, console)
    _rule("copies over time", console)
    if story.samples:
        console.print("\n".join(chart(story)), markup=False)
        console.print(_saved(story), markup=False)
    else:
        console.print("the fleet could not be looked at")
    if story.kill:
        _rule("the kill", console)
        console.print(told_kill(story, story.kill), markup=False)
    _rule("each tick's own time", console)
    console.print(_seconds(state, story.report))
    _rule("where to look", console)
    console.print(_places(state, folder), markup=False, soft_wrap=True)


def _rule(title: str, console: Console) -> None:
    console.print()
    console.rule(title, align="left", style="dim")


def chart(story: Story) -> list[str]:
    """Copies over time as lines of text: solid what there was, light what every model in every replica adds."""
    start, end = story.report.clock.started_at, story.samples[-1].at
    width_s = max(end - start, 1.0) / COLUMNS
    columns = [_column(story.samples, start + i * width_s, start + (i + 1) * width_s) for i in range(COLUMNS)]
    top = max(max(column) for column in columns)
    lines = []
    for row in range(ROWS, 0, -1):
        level = (row - 0.5) * top / ROWS
        cells = ("█" if loaded > level else "░" if alike > level else " " for loaded, alike in columns)
        lines.append(f"{row * top / ROWS:5.0f} │{''.join(cells)}")
    lines.append("      └" + "─" * COLUMNS)
    lines += _marks(story, width_s)
    return [*lines, "       █ copies loaded   ░ what every model in every replica would load besides"]


def _column(samples: Sequence[Sample], first: float, last: float) -> tuple[int, int]:
    """Copies loaded, and with every model in every replica: of the newest sample up to ``last``."""
    before = [sample for sample in samples if sample.at <= last] or [samples[0]]
    within = [sample for sample in before if sample.at > first] or [before[-1]]
    return max(s.loaded for s in within), max(s.alike for s in within) * len(within[0].fleet.models)


def _marks(story: Story, width_s: float) -> list[str]:
    """Where each phase begins, by its number, and the phases below."""
    axis = [" "] * COLUMNS
    for number, at_s in enumerate(story.start_by_phase.values(), 1):
        if (column := int(at_s / width_s)) < COLUMNS:
            axis[column] = str(number % 10)
    names = [f"{number} {name}" for number, name in enumerate(story.start_by_phase, 1)]
    lines = ["       " + "".join(axis).rstrip()]
    for name in names:
        if len(lines) == 1 or len(lines[-1]) + len(name) > COLUMNS:
            lines.append("       " + name)
        else:
            lines[-1] += f" · {name}"
    return lines


def _saved(story: Story) -> str:
    s = savings(story.samples)
    cores = os.cpu_count() or 1
    cpu = cpu_share([(sample.at, sample.cpu_s_by_pid) for sample in story.samples], cores)
    return (
        f"\nhere     {s.copies:.1f} copies on average, at most {s.peak_copies}, "
        f"in {s.replicas:.1f} replicas of {s.memory_bytes / MB:,.0f} MB together\n"
        f"copied   {s.copies_alike:.1f} copies on average, at most {s.peak_copies_alike}, "
        f"in {s.replicas_alike:.1f} replicas of {s.memory_alike_bytes / MB:,.0f} MB together: as many\n"
        f"         as the busiest model has copies, each with every model: {s.replica_of_all_bytes / MB:,.0f} MB\n"
        f"{_verdict(s)}\n"
        f"CPU      all these servers together took {cpu:.0%} of the machine's {cores} cores"
    )


def _verdict(s: Savings) -> str:
    if s.share < 0:
        return "saved    nothing: copied pods would take less memory, since a few of them hold so few models"
    return f"saved    {s.share:.0%} of the memory, as much as {s.in_replicas:.1f} replicas of pool {s.smallest.name}"


def told_kill(story: Story, kill: Kill) -> str:
    """What the kill cost, by the requests and by the looks at the fleet."""
    at_s = kill.at - story.report.clock.started_at
    lost = lost_to(kill, story.report.requests, story.report.clock.started_at)
    only = alone(kill, story.samples)
    again_s = served_again_s(kill, story.samples)
    lines = [f"{at_s:.0f} s after the start {kill.replica} was killed (SIGKILL); it served {', '.join(kill.held)}"]
    if again_s is None:
        lines.append("not all of these were served again while this was watched")
    elif only:
        lines.append(f"no other replica served {', '.join(only)}: served again {again_s:.0f} s after the kill")
    else:
        lines.append("another replica served each of them, so none was without a copy")
    causes = ", ".join(f"{count} {cause} ({model})" for (model, cause), count in lost.items())
    lines.append(f"requests that failed from then on, of these models: {causes or 'none'}")
    return "\n".join(lines)


def lost_to(kill: Kill, requests: pd.DataFrame, started_at: float) -> dict[tuple[str, str], int]:
    """Requests of the models that the killed replica held which failed at its kill or later, by model and cause."""
    ended = started_at + requests["intended_s"] + requests["latency_ms"] / 1000
    failed = requests[(requests["outcome"] == "failed") & (ended >= kill.at) & requests["model"].isin(kill.held)]
    return dict(Counter(zip(failed["model"], failed["cause"], strict=True)))


def _seconds(state: State, report: Report) -> Table | str:
    """Median and longest of each phase, from what the ticks told Prometheus."""
    clock = report.clock
    end = clock.started_at + clock.elapsed_s
    try:
        with Prometheus(state.url("prometheus")) as prometheus:
            answer = prometheus.history("triton_placement_tick_seconds", end, clock.elapsed_s, SCRAPE_S)
    except PrometheusError as error:
        return str(error)
    seen = {phase: answer.loc[answer["phase"] == phase, "value"] for phase in PHASES} if "phase" in answer else {}
    if not any(len(values) for values in seen.values()):
        return "no tick told its times"
    table = Table("phase", "median s", "longest s", box=None)
    for phase, values in seen.items():
        if len(values):
            table.add_row(phase, f"{statistics.median(values):.3f}", f"{max(values):.3f}")
    return table


def _places(state: State, folder: Path) -> str:
    graph = f"graph?g0.expr={quote('triton_placement_copies_ready')}&g0.tab=0&g0.range_input=15m"
    return (
        f"decisions   {state.url('prefect')}/artifacts/key/reconcile-summary\n"
        f"copies      {state.url('prometheus')}/{graph}\n"
        f"gateway     {state.url('gateway')}/v2/models/NAME\n"
        f"requests    {folder}, read by notebooks/01_load_and_decisions.ipynb"
    )
