"""A backtest for people: one table, one picture, and what follows for the tick."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd

from tasks.forecast.backtest import COMBINED, best_by_model, loss_of_choice, overall

WIDTH, ROW, LEFT = 900, 18, 190
EARNS = 0.02
"""A choice must have lost this much less than the combination to be called better: less is chance."""


def rows(scores: pd.DataFrame) -> list[dict[str, Any]]:
    """One row a model: its demand, the combination, and its best forecaster in hindsight."""
    table = overall(scores)
    best = {row["model"]: row for row in best_by_model(table).to_dict("records")}
    losses = table.pivot(index="model", columns="forecaster", values="loss_upper").to_dict("index")
    combined = table[table["forecaster"] == COMBINED].sort_values("model").to_dict("records")
    return [
        {
            "model": row["model"],
            "demand, req/s": f"{row['demand_rps']:.2f}",
            "loss, combined": f"{row['loss_upper']:.4f}",
            "covered": f"{row['covered']:.0%}",
            "best in hindsight": best[row["model"]]["forecaster"],
            "its loss": f"{best[row['model']]['loss_upper']:.4f}",
            **{str(name): f"{loss:.4f}" for name, loss in losses[row["model"]].items() if name != COMBINED},
            "scored": int(row["scored"]),
        }
        for row in combined
    ]


def loss_by_forecaster(scores: pd.DataFrame) -> pd.Series[float]:
    """Loss at the upper quantile as a share of the combined one's on the same models, the best first."""
    table = overall(scores)
    combined = table[table["forecaster"] == COMBINED].set_index("model")["loss_upper"]
    shares = {}
    for name, group in table.groupby("forecaster"):
        ours = (group["model"].map(combined) * group["scored"]).sum()
        theirs = (group["loss_upper"] * group["scored"]).sum()
        shares[str(name)] = theirs / ours if ours > 0 else 1.0
    return pd.Series(shares, dtype=float).sort_values()


def verdict(scores: pd.DataFrame) -> str:
    """Whether a forecaster chosen for each model would have done better than all of them combined, judged on the newer
    half by what was chosen on the older."""
    alone, combined = loss_of_choice(scores)
    if not combined > 0:
        return "Nothing was lost, by no forecaster: there is nothing to choose by."
    gain = 1 - alone / combined
    said = (
        f"Had each model used alone the forecaster that was best for it in the older half, it would have lost "
        f"{abs(gain):.1%} {'less' if gain > 0 else 'more'} in the newer half than the combination. "
    )
    if gain < EARNS:
        return said + "The tick combines: it weighs all of them anew each time, by what each lost lately."
    return said + (
        "Here a fixed choice did better. The tick combines all the same: on the public traces that it was tuned on, a "
        "choice lost more in ten cases of twelve. Should this stay so for weeks, look at the table for what to remove."
    )


def picture(scores: pd.DataFrame) -> str:
    """Bars (SVG): what each forecaster alone lost, as a share of what the combined one did."""
    shares = loss_by_forecaster(scores)
    longest = min(max(float(shares.max()), 1.0), 3.0)
    scale = (WIDTH - LEFT - 80) / longest
    body = [_bar(i, str(name), float(share), scale) for i, (name, share) in enumerate(shares.items())]
    x, height = LEFT + scale, 30 + ROW * len(shares)
    line = f'<path d="M{x:.1f} 22V{height - 4}" stroke="#333" stroke-dasharray="3 3"/>'
    title = _text(LEFT, 14, "loss at the upper quantile, the combined forecast = 100 %; the less the better")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
    style = 'font-family="sans-serif" font-size="11" fill="#333">'
    return head + style + '<rect width="100%" height="100%" fill="#fff"/>' + title + "".join(body) + line + "</svg>"


def _bar(row: int, name: str, share: float, scale: float) -> str:
    y, width = 24 + ROW * row, min(share, 3.0) * scale
    colour = "#4e79a7" if name == COMBINED else "#b8c6d6"
    return (
        f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{ROW - 4}" fill="{colour}"/>'
        + _text(LEFT - 6, y + 11, name, 'text-anchor="end"')
        + _text(LEFT + width + 5, y + 11, f"{share:.0%}")
    )


def _text(x: float, y: float, text: str, extra: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" {extra}>{escape(text)}</text>'
