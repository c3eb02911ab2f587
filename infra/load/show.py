"""A run on the terminal: its progress while it goes, its report as a table when it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from infra.load.open_loop import Progress
from infra.load.queue_time import WINDOW_S
from infra.load.report import Report

LINE_S = 10.0
"""Where there is no terminal, one line of progress this often."""


@contextmanager
def progress(console: Console, duration_s: float) -> Iterator[Callable[[Progress], None]]:
    """A bar, or lines where there is no terminal; call what it gives with each progress."""
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (TextColumn("{task.fields[clock]}"), BarColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("", total=duration_s, clock="")
        yield lambda now: bar.update(task, completed=now.elapsed_s, description=_counts(now), clock=_clock(now))


def _lines(console: Console) -> Callable[[Progress], None]:
    next_s = LINE_S

    def line(now: Progress) -> None:
        nonlocal next_s
        if now.elapsed_s >= next_s:
            next_s += LINE_S
            console.print(f"{_clock(now)} {_counts(now)}", highlight=False)

    return line


def _clock(now: Progress) -> str:
    return f"{now.elapsed_s:5.0f} / {now.duration_s:.0f} s"


def _counts(now: Progress) -> str:
    cold = f" · {now.cold} cold" if now.cold else ""
    return f"{now.rps:5.0f} req/s · {now.sent} sent · {now.in_flight} in flight{cold} · {now.failed} failed"


def show(report: Report, console: Console) -> None:
    """Print the report."""
    clock = report.clock
    console.print(_table(report))
    if any(model.queue.mean_ms is not None for model in report.models):
        console.print(
            f"queue: Triton's counters; mean over all requests / 95th percentile of {WINDOW_S:.0f} s windows' means",
            style="dim",
        )
    early = ", stopped early" if report.is_stopped_early else ""
    console.print(
        f"{report.sent} sent in {clock.sending_s:.1f} s{early}; the client took {clock.cpu_s:.1f} s of CPU and sent "
        f"99 % of arrivals within {report.lag_p99_ms:.1f} ms (latest {report.lag_max_ms:.0f} ms)",
        highlight=False,
    )
    for failure in report.failures:
        by = f" by {failure.first_replica}" if failure.first_replica else ""
        console.print(
            f"failed: {failure.model} {failure.cause} x {failure.count}, first at {failure.first_s:.1f} s{by}: "
            f"{failure.first_detail}",
            style="red", highlight=False, markup=False,
        )  # fmt: skip
    for note in report.notes:
        console.print(f"note: {note}", style="yellow", highlight=False, markup=False)


def _table(report: Report) -> Table:
    """At most 80 columns wide: causes of failures are told below it."""
    title = f"{report.name}: latency in ms from the intended arrival, of succeeded requests"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model")
    for column in ("sent", "succeeded", "cold", "failed", "p50", "p95", "p99", "queue"):
        table.add_column(column, justify="right")
    for model in report.models:
        counts = (model.sent, model.succeeded, model.cold, model.failed)
        queue = f"{_ms(model.queue.mean_ms)} / {_ms(model.queue.p95_ms)}"
        table.add_row(model.model, *map(str, counts), _ms(model.p50_ms), _ms(model.p95_ms), _ms(model.p99_ms), queue)
    table.add_section()
    table.add_row("all", *map(str, (report.sent, report.succeeded, report.cold, report.failed)), "", "", "", "")
    return table


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.1f}"
