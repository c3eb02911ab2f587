"""The comparison as one picture (SVG): cost over time, and what each policy cost against how often it failed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from tasks.simulate.bound import Bound
from tasks.simulate.run import Outcome

WIDTH, HEIGHT = 900, 385
LEFT, RIGHT = (50, 50, 400, 270), (530, 50, 340, 270)
"""The panels: x, y, width, height."""
PALETTE = (
    "#e15759", "#4e79a7", "#59a14f", "#f28e2b", "#b07aa1", "#76b7b2", "#edc948", "#ff9da7", "#9c755f", "#86bcb6",
)  # fmt: skip
LEAST_OUTSIDE = 1e-5
"""Shares outside the objective below this are drawn as this."""


def picture(title: str, runs: Sequence[Outcome], bound: Bound) -> str:
    """Left: cost an hour over time. Right: cost over the bound against the share outside the objective, both the less
    the better; the line is where 99.9 % are within."""
    least = bound.mean_per_hour * (len(runs[0].minutes) / 60)
    ours_first = sorted((run.policy for run in runs), key=lambda name: (not name.startswith("ours"), len(name)))
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(ours_first)}
    legend = [
        _box(50 + (i % 3) * 290, 357 + (i // 3) * 13, colours[run.policy])
        + _text(63 + (i % 3) * 290, 365 + (i // 3) * 13, run.policy)
        for i, run in enumerate(runs)
    ]
    body = [
        _text(50, 22, title, 'font-weight="bold" font-size="14"'),
        *_over_time(runs, bound, colours),
        *_against(runs, least, colours),
        *legend,
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT + 13 * (len(runs) // 3)}" '
    style = 'font-family="sans-serif" font-size="11" fill="#333">'
    return head + style + '<rect width="100%" height="100%" fill="#fff"/>' + "".join(body) + "</svg>"


def _over_time(runs: Sequence[Outcome], bound: Bound, colours: dict[str, str]) -> Iterable[str]:
    x0, y0, width, height = LEFT
    usual = sorted(max(minute.cost_per_hour for minute in run.minutes) for run in runs)
    top = 1.1 * max(2 * float(bound.cost_per_hour.max()), usual[len(usual) // 2])
    start, end = runs[0].minutes[0].time, runs[0].minutes[-1].time
    yield _axes(LEFT, "cost an hour", f"0 to {(end - start) / 3600:.3g} h")
    for value, y in ((f"{top:.0f}", y0 + 8), ("0", y0 + height + 4)):
        yield _text(x0 - 6, y, value, 'text-anchor="end"')

    def line(times: Iterable[float], values: Iterable[float], look: str) -> str:
        points = [
            f"{x0 + (t - start) / max(end - start, 1) * width:.1f} {y0 + height * (1 - min(v / top, 1)):.1f}"
            for t, v in zip(times, values, strict=True)
        ]
        return f'<path d="M{"L".join(points)}" fill="none" {look}/>'

    shown = [run for run in runs if sum(m.cost_per_hour for m in run.minutes) <= top * len(run.minutes)]
    for run in shown:
        kept = run.minutes[:: max(1, len(run.minutes) // 300)]
        look = f'stroke="{colours[run.policy]}" stroke-width="{2 if run.policy.startswith("ours") else 1}"'
        yield line((m.time for m in kept), (m.cost_per_hour for m in kept), look)
    every = max(1, len(bound.time) // 300)
    look = 'stroke="#000" stroke-width="1.6" stroke-dasharray="4 2"'
    yield line((float(t) for t in bound.time[::every]), (float(c) for c in bound.cost_per_hour[::every]), look)
    beyond = f"; not drawn: {len(runs) - len(shown)} that cost more than {top:.0f}" if len(shown) < len(runs) else ""
    yield _text(x0 + 8, y0 + height - 8, f"dashed: the lower bound{beyond}")


def _against(runs: Sequence[Outcome], least: float, colours: dict[str, str]) -> Iterable[str]:
    x0, y0, width, height = RIGHT
    most = math.log(max(8.0, 1.2 * max(run.cost / least for run in runs)))
    decades = -math.log10(LEAST_OUTSIDE)
    yield _axes(RIGHT, "requests outside their objective", "cost / lower bound")

    def across(ratio: float) -> float:
        return x0 + width * min(max(math.log(max(ratio, 1e-9)) / most, 0), 1)

    def down(outside: float) -> float:
        return y0 + height * -math.log10(min(max(outside, LEAST_OUTSIDE), 1)) / decades

    for ratio in (1, 2, 4, 8):
        yield _text(across(ratio), y0 + height + 14, f"{ratio}", 'text-anchor="middle"')
    for outside in (1, 0.1, 0.01, 0.001, 0.0001):
        yield _text(x0 - 6, down(outside) + 4, f"{outside:.4g}", 'text-anchor="end"')
    yield _text(x0 - 6, down(LEAST_OUTSIDE) + 4, "≤ 0.00001", 'text-anchor="end"')
    yield f'<path d="M{x0} {down(0.001):.1f}h{width}" stroke="#999" stroke-dasharray="3 3"/>'
    for run in runs:
        at = f'cx="{across(run.cost / least):.1f}" cy="{down(1 - run.within):.1f}"'
        yield f'<circle {at} r="5" fill="{colours[run.policy]}"><title>{escape(run.policy)}</title></circle>'


def _axes(panel: tuple[int, int, int, int], above: str, below: str) -> str:
    x, y, width, height = panel
    frame = f'<path d="M{x} {y}v{height}h{width}" fill="none" stroke="#999"/>'
    return frame + _text(x, y - 8, above) + _text(x + width, y + height + 26, below, 'text-anchor="end"')


def _text(x: float, y: float, text: str, extra: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" {extra}>{escape(text)}</text>'


def _box(x: float, y: float, colour: str) -> str:
    return f'<rect x="{x:.0f}" y="{y:.0f}" width="9" height="9" fill="{colour}"/>'
