"""The few kinds of panel that the dashboard is made of, each with its queries, its unit and its thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = d.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, AMBER, RED, BLUE = "green", "orange", "red", "blue"


@dataclass(frozen=True)
class Query:
    """A PromQL expression and the name of its series, or of its column in a table."""

    expr: str
    legend: str = "__auto"


def _targets(panel: Any, queries: tuple[Query, ...], as_table: bool = False) -> Any:
    panel.datasource(DATASOURCE)
    for number, query in enumerate(queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + number))
        if as_table:
            target.instant().format(PromQueryFormat.TABLE)
        panel.with_target(target)
    return panel


def _thresholds(*steps: tuple[float | None, str]) -> Any:
    return (
        dashboard.ThresholdsConfig()
        .mode(d.ThresholdsMode.ABSOLUTE)
        .steps([d.Threshold(value=value, color=color) for value, color in steps])
    )


def number(title: str, text: str, *queries: Query, unit: str = "short", alarm: float | None = None) -> Any:
    """The newest value, large; red from ``alarm`` on."""
    steps: list[tuple[float | None, str]] = [(None, GREEN if alarm else BLUE)]
    if alarm:
        steps.append((alarm, RED))
    panel = stat.Panel().title(title).description(text).unit(unit).height(4).span(3).thresholds(_thresholds(*steps))
    panel.color_mode(c.BigValueColorMode.BACKGROUND if alarm else c.BigValueColorMode.VALUE)
    panel.graph_mode(c.BigValueGraphMode.NONE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return _targets(panel, queries)


def lines(title: str, text: str, *queries: Query, unit: str = "short", span: int = 12) -> Any:
    """Lines over time. A series whose name ends in ``wanted``, ``forecast`` or ``memory`` is drawn dashed."""
    panel = timeseries.Panel().title(title).description(text).unit(unit).height(8).span(span).min(0)
    legend = common.VizLegendOptions().show_legend(True).display_mode(c.LegendDisplayMode.LIST)
    panel.legend(legend.placement(c.LegendPlacement.BOTTOM))
    panel.tooltip(common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI).sort(c.SortOrder.DESCENDING))
    dashed = d.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [6, 4]})
    panel.override_by_regexp("/(wanted|forecast|memory)$/", [dashed])
    return _targets(panel, queries)


def objective_lines(title: str, text: str, *queries: Query) -> Any:
    """Lines as a share of an objective, with the objective itself drawn at 1."""
    panel = lines(title, text, *queries, unit="percentunit")
    panel.thresholds(_thresholds((None, GREEN), (1.0, RED)))
    return panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(c.GraphTresholdsStyleMode.LINE))


def bars(title: str, text: str, *queries: Query, unit: str = "short", span: int = 12) -> Any:
    """Stacked bars over time."""
    panel = lines(title, text, *queries, unit=unit, span=span)
    panel.draw_style(c.GraphDrawStyle.BARS).fill_opacity(70).line_width(0)
    return panel.stacking(common.StackingConfig().mode(c.StackingMode.NORMAL))


def levels(title: str, text: str, *queries: Query) -> Any:
    """A bar for each series between 0 and 100 %; amber at 80, red at 95."""
    panel = bargauge.Panel().title(title).description(text).unit("percentunit").min(0).max(1).height(8).span(8)
    panel.thresholds(_thresholds((None, GREEN), (0.8, AMBER), (0.95, RED)))
    panel.display_mode(c.BarGaugeDisplayMode.LCD).orientation(c.VizOrientation.HORIZONTAL)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return _targets(panel, queries)


def states(title: str, text: str, *queries: Query) -> Any:
    """A coloured band for each series: 1 green, 0 amber, nothing where there is none."""
    panel = statetimeline.Panel().title(title).description(text).height(10).span(12)
    panel.thresholds(_thresholds((None, AMBER), (1, GREEN))).show_value(c.VisibilityMode.NEVER).merge_values(True)
    panel.color_scheme(dashboard.FieldColor().mode(d.FieldColorModeId.THRESHOLDS))
    panel.row_height(0.8).legend(common.VizLegendOptions().show_legend(False).calcs([]))
    return _targets(panel, queries)


def listing(title: str, text: str, *queries: Query, height: int = 8, span: int = 12) -> Any:
    """A table with a row for each set of labels and a column for each query."""
    panel = table.Panel().title(title).description(text).height(height).span(span).show_header(True)
    renamed = {"Value": queries[0].legend} if len(queries) == 1 else {}
    renamed |= {f"Value #{chr(ord('A') + i)}": query.legend for i, query in enumerate(queries)}
    if len(queries) > 1:
        panel.with_transformation(d.DataTransformerConfig(id_val="merge", options={}))
    hidden = {"excludeByName": {"Time": True}, "indexByName": {}, "renameByName": renamed}
    panel.with_transformation(d.DataTransformerConfig(id_val="organize", options=hidden))
    return _targets(panel, queries, as_table=True)


def matrix(title: str, text: str, query: Query, row: str, column: str) -> Any:
    """A table with a row for each value of one label and a column for each value of another."""
    panel = table.Panel().title(title).description(text).height(10).span(12).show_header(True)
    options = {"rowField": row, "columnField": column, "valueField": "Value", "emptyValue": "empty"}
    panel.with_transformation(d.DataTransformerConfig(id_val="groupingToMatrix", options=options))
    serving = d.ValueMap(options={
        "1": d.ValueMappingResult(text="serving", color=GREEN),
        "0": d.ValueMappingResult(text="not serving", color=AMBER),
    })  # fmt: skip
    panel.mappings([serving])
    cell = d.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-background"})
    panel.override_by_field_type("number", [cell])
    return _targets(panel, (query,), as_table=True)
