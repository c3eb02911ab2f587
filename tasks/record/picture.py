"""Two pictures as SVG: the placement, replica by replica, and demand against forecast.

Written by hand rather than with a plotting library: a tick leaves a picture behind every thirty seconds, and 5 kB
without an import keeps both the tick and its history light.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from html import escape

from tasks.decision import Forecast, StepKind, Tick
from tasks.world import Copy, CopyState, Fleet, Replica, ReplicaState

WIDTH = 900
"""Pixels: the width of a page of text in the Prefect UI."""
PALETTE = (
    "#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#76b7b2", "#edc948", "#ff9da7", "#9c755f", "#e15759", "#86bcb6",
)  # fmt: skip
"""Tableau 10: told apart by most colour-blind readers when each also carries its name, as here."""


MOST_REPLICAS = 40
"""In the picture of the placement: a thousand are not looked at, and would be stored with every tick."""


def data_uri(svg: str) -> str:
    """The picture as a Markdown image's address: the UI strips inline SVG, and shows this."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _svg(height: float, body: Iterable[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
    style = 'font-family="sans-serif" font-size="11" fill="#333">'
    return head + style + '<rect width="100%" height="100%" fill="#fff"/>' + "".join(body) + "</svg>"


def _text(x: float, y: float, text: str, extra: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" {extra}>{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, extra: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height}" {extra}/>'


def placement_svg(tick: Tick) -> str:
    """Memory bars, one a replica, as observed: solid serves, pale does not, dashed will be loaded, struck will go."""
    fleet = tick.observation.fleet
    colour = {model.name: PALETTE[i % len(PALETTE)] for i, model in enumerate(fleet.models)}
    largest = max((replica.memory_bytes for replica in fleet.replicas), default=1)
    loads = {(s.model, s.replica) for s in tick.plan.steps if s.kind is StepKind.LOAD}
    unloads = {(s.model, s.replica) for s in tick.plan.steps if s.kind is StepKind.UNLOAD}
    body, y = [], 24.0
    for replica in _drawn(tick):
        body.append(_replica_row(fleet, replica, y, (WIDTH - 260) / largest))
        x = 130.0
        for model, copy in _contents(fleet, replica, loads):
            width = _footprint(fleet, model, replica) * (WIDTH - 260) / largest
            goes = (model, replica.name) in unloads
            body.append(_segment(x, y, width, model, colour.get(model, "#bbb"), (copy, goes)))
            x += width
        y += 34
    legend = "solid: serves · pale: does not serve · dashed: to be loaded · struck: to be unloaded · dotted: headroom"
    more = len(fleet.replicas) - MOST_REPLICAS
    title = "memory of each replica, and who fills it" + (f" ({more:,} more are not drawn)" if more > 0 else "")
    return _svg(y + 18, [_text(130, 14, title), *body, _text(130, y + 8, legend)])


def _drawn(tick: Tick) -> list[Replica]:
    """By pool and name; of a large fleet those that a step touches before the others."""
    touched = {step.replica for step in tick.plan.steps}
    by_name = sorted(tick.observation.fleet.replicas, key=lambda r: (r.pool, r.name))
    first = sorted(by_name, key=lambda r: r.name not in touched)[:MOST_REPLICAS]
    return sorted(first, key=lambda r: (r.pool, r.name))


def _replica_row(fleet: Fleet, replica: Replica, y: float, pixels_per_byte: float) -> str:
    width = replica.memory_bytes * pixels_per_byte
    pool = fleet.pool_by_name.get(replica.pool)
    usable = width * (1 - (pool.headroom if pool else 0))
    used = sum(_footprint(fleet, c.model, replica) for c in fleet.copies_in(replica.name) if _fills(c))
    label = f"{used / 1e6:,.0f} of {replica.memory_bytes / 1e6:,.0f} MB"
    state = "" if replica.state is ReplicaState.READY else f" ({replica.state})"
    return (
        _text(124, y + 17, replica.name + state, 'text-anchor="end" font-weight="bold"')
        + _box(130, y, width, 26, 'fill="#f4f4f4" stroke="#999"')
        + f'<path d="M{130 + usable:.1f} {y:.0f}v26" stroke="#999" stroke-dasharray="2 2"/>'
        + _text(138 + width, y + 17, label)
    )


def _fills(copy: Copy) -> bool:
    return copy.state in (CopyState.READY, CopyState.LOADING, CopyState.UNLOADING, CopyState.UNKNOWN)


def _footprint(fleet: Fleet, model: str, replica: Replica) -> int:
    known = fleet.model_by_name.get(model)
    need = known.need_by_gpu_type.get(replica.gpu_type) if known else None
    return need.footprint_bytes if need else 0


def _contents(fleet: Fleet, replica: Replica, loads: set[tuple[str, str]]) -> list[tuple[str, Copy | None]]:
    there: list[tuple[str, Copy | None]] = [(c.model, c) for c in fleet.copies_in(replica.name) if _fills(c)]
    held = {model for model, _ in there}
    return sorted(there) + [(m, None) for m, r in sorted(loads) if r == replica.name and m not in held]


def _segment(x: float, y: float, width: float, model: str, fill: str, fate: tuple[Copy | None, bool]) -> str:
    copy, goes = fate
    if copy is None:
        look = f'fill="none" stroke="{fill}" stroke-width="2" stroke-dasharray="4 3"'
    else:
        look = f'fill="{fill}" fill-opacity="{1 if copy.is_serving else 0.35}" stroke="#fff"'
    box = _box(x + 1, y + 1, width - 2, 24, look)
    strike = f'<path d="M{x + 3:.1f} {y + 13:.0f}h{width - 6:.1f}" stroke="#c00" stroke-width="2"/>' if goes else ""
    is_dark = copy is not None and copy.is_serving
    name = model if len(model) * 6.2 < width - 4 else model[: max(int((width - 6) / 6.2), 0)]
    return box + strike + _text(x + 5, y + 17, name, 'fill="#fff"' if is_dark else "")


def demand_svg(tick: Tick, most: int = 12) -> str:
    """For the ``most`` busiest models: observed demand (line), the forecast's median (dot) to its upper quantile (bar),
    and what the copies that have a place can serve (dashed)."""
    busiest = sorted(tick.forecasts, key=lambda f: -(f.upper_rps or 0))[:most]
    capacity = _capacity_rps(tick)
    panels = [_panel(tick, f, capacity[f.model], ((i % 3) * 300.0, (i // 3) * 100.0)) for i, f in enumerate(busiest)]
    height = 100 * -(-len(busiest) // 3)
    rest = len(tick.forecasts) - len(busiest)
    legend = "line: demand · dot and bar: forecast, median to upper quantile · dashed: what the copies placed can serve"
    more = f" · {rest:,} more models are not drawn" if rest else ""
    return _svg(height + 22, [*panels, _text(12, height + 14, legend + more)])


def _capacity_rps(tick: Tick) -> dict[str, float]:
    """By model: each copy that has a place serves what its GPU type allows."""
    fleet = tick.observation.fleet
    gpu_type_by_replica = {replica.name: replica.gpu_type for replica in fleet.replicas}
    by_gpu_type = {sizing.model: sizing.capacity_rps_by_gpu_type for sizing in tick.sizings}
    found = dict.fromkeys(by_gpu_type, 0.0)
    for a in tick.placement.assignments:
        gpu_type = gpu_type_by_replica.get(a.replica)
        if gpu_type is None:  # one that is still to be started
            gpu_type = fleet.pool_by_name[a.replica.rpartition("+")[0]].gpu_type
        found[a.model] += by_gpu_type[a.model].get(gpu_type, 0)
    return found


def _panel(tick: Tick, forecast: Forecast, capacity_rps: float, corner: tuple[float, float]) -> str:
    x0, y0 = corner
    seen = tick.observation.demand
    rows = seen[seen["model"] == forecast.model].tail(120)
    top = max(float(rows["demand_rps"].max()) if len(rows) else 0, forecast.upper_rps or 0, 1e-9) * 1.15
    now = tick.observation.now
    start = float(rows["time"].min()) if len(rows) else now - 1
    scale_x = 225 / max(now - start, 1)

    def at(rps: float) -> float:
        return y0 + 84 - 58 * min(rps / top, 1.0)

    points = [
        (x0 + 12 + (t - start) * scale_x, at(v))
        for t, v in zip(rows["time"], rows["demand_rps"], strict=True)
        if not math.isnan(v)
    ]
    line = "M" + "L".join(f"{x:.0f} {y:.1f}" for x, y in points) if points else ""
    upper, median = forecast.upper_rps, forecast.median_rps
    parts = [f'<path d="{line}" fill="none" stroke="#4e79a7" stroke-width="1.5"/>']
    if upper is not None and median is not None:
        parts.append(f'<path d="M{x0 + 258:.0f} {at(median):.1f}V{at(upper):.1f}" stroke="#f28e2b" stroke-width="5"/>')
        parts.append(f'<circle cx="{x0 + 258:.0f}" cy="{at(median):.1f}" r="3.5" fill="#e15759"/>')
    if 0 < capacity_rps < top:
        parts.append(f'<path d="M{x0 + 12:.0f} {at(capacity_rps):.1f}h255" stroke="#59a14f" stroke-dasharray="4 3"/>')
    says = "unknown" if upper is None else f"{median or 0:.1f} to {upper:.1f} req/s"
    title = _text(x0 + 12, y0 + 15, f"{forecast.model}: {says}", 'font-weight="bold"')
    return title + f'<path d="M{x0 + 12:.0f} {y0 + 84:.0f}h255" stroke="#ccc"/>' + "".join(parts)
