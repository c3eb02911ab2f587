"""The comparison as rows and as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tasks.simulate.bound import Bound
from tasks.simulate.run import Outcome, Policy

ENOUGH = 0.999
"""Share of requests within their objective that a policy must reach before its price counts."""


def best(runs: Sequence[Outcome]) -> Outcome:
    """The cheapest of those that keep the objective well enough; where none does, the one that keeps it best."""
    enough = [run for run in runs if run.within >= ENOUGH]
    return min(enough, key=lambda run: run.cost) if enough else max(runs, key=lambda run: run.within)


def tuned(settings: Iterable[Policy], run: Callable[[Policy], Outcome]) -> Outcome:
    """The best of a policy's settings, tried from the boldest on, until one costs more than another that keeps the
    objective well enough: the more careful ones after it cost more still."""
    runs: list[Outcome] = []
    for policy in settings:
        runs.append(run(policy))
        if runs[-1].cost > best(runs).cost and best(runs).within >= ENOUGH:
            break
    return best(runs)


def rows(runs: Sequence[Outcome], bound: Bound, hours: float) -> list[dict[str, str]]:
    """One row a policy, the lower bound first; numbers as text, as tables of artifacts want them."""
    least = bound.mean_per_hour * hours
    head = {"policy": "lower bound", "GPU-hours": "", "cost": f"{least:.1f}", "cost / bound": "1.00"}
    blank = dict.fromkeys(("within objective", "in time", "failed", "cold", "loads", "unloads", "starts"), "")
    return [head | blank, *(_row(run, least) for run in runs)]


def _row(run: Outcome, least: float) -> dict[str, str]:
    return {
        "policy": run.policy,
        "GPU-hours": f"{run.gpu_hours:.1f}",
        "cost": f"{run.cost:.1f}",
        "cost / bound": f"{run.cost / least:.2f}" if least else "",
        "within objective": f"{run.within:.3%}",
        "in time": f"{run.in_time:.3%}",
        "failed": f"{run.failed:.0f}",
        "cold": f"{run.cold:.0f}",
        "loads": str(run.counters.loads),
        "unloads": str(run.counters.unloads),
        "starts": str(run.counters.starts),
    }


def text(table: Sequence[dict[str, str]]) -> str:
    """The rows in columns, for a terminal."""
    columns = list(table[0])
    widths = [max(len(name), *(len(row[name]) for row in table)) for name in columns]
    lines = [dict(zip(columns, columns, strict=True)), *table]
    return "\n".join(
        "  ".join(
            line[name].ljust(width) if name == columns[0] else line[name].rjust(width)
            for name, width in zip(columns, widths, strict=True)
        )
        for line in lines
    )


def markdown(table: Sequence[dict[str, str]]) -> str:
    """The rows as a table in Markdown."""
    columns = list(table[0])
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(head + ["| " + " | ".join(row.values()) + " |" for row in table])
