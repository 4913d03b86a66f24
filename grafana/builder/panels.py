"""Panels of the kinds that Grafana brings along, each with a unit, a description and limits."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from grafana_foundation_sdk.models import bargauge, common, heatmap, stat, statetimeline, timeseries
from grafana_foundation_sdk.models import dashboard as sdk
from grafana_foundation_sdk.models import prometheus as prom

from grafana.builder.limits import PLAIN, SHOWN, Limits
from grafana.builder.links import WORKER_OF_SERIES
from grafana.builder.queries import Query

SOURCE = sdk.DataSourceRef("prometheus", "${datasource}")

COLOURS = {
    "queued": "yellow", "pending": "light-blue", "running": "blue", "completed": "green", "failed": "red",
    "cancelled": "text", "lost": "purple", "stopped": "text", "active": "green", "inactive": "red",
    "used": "blue", "promised": "orange", "there is": "text",
}  # fmt: skip
"""Of series by their names: the same thing has the same colour everywhere."""


class Text(NamedTuple):
    """What a panel says of itself."""

    title: str
    description: str
    unit: str


class Size(NamedTuple):
    """Of a panel, in the grid's units; a row has 24."""

    width: int
    height: int


SMALL, WIDE = Size(4, 4), Size(24, 9)
HALF, THIRD, QUARTER = Size(12, 8), Size(8, 8), Size(6, 8)


def targets(queries: Sequence[Query], form: prom.PromQueryFormat, *, instant: bool) -> list[prom.Dataquery]:
    return [
        prom.Dataquery(
            query.expr, instant=instant, range_val=not instant, editor_mode=prom.QueryEditorMode.CODE, format_val=form,
            legend_format=query.legend or "__auto", ref_id=chr(ord("A") + number), datasource=SOURCE,
        )
        for number, query in enumerate(queries)
    ]  # fmt: skip


def panel(
    kind: str, text: Text, size: Size, queries: Sequence[prom.Dataquery], options: object, defaults: sdk.FieldConfig
) -> sdk.Panel:
    defaults.unit = text.unit
    return sdk.Panel(
        kind,
        targets=list(queries),
        title=text.title,
        description=text.description,
        datasource=SOURCE,
        grid_pos=sdk.GridPos(h=size.height, w=size.width),
        options=options,
        field_config=sdk.FieldConfigSource(defaults, []),
    )


def number(text: Text, expr: str, limits: Limits = SHOWN, names: Mapping[int, str] | None = None) -> sdk.Panel:
    """One figure, as it is now. ``names`` are words for values."""
    options = stat.Options(
        graph_mode=common.BigValueGraphMode.NONE,
        color_mode=common.BigValueColorMode.VALUE,
        justify_mode=common.BigValueJustifyMode.AUTO,
        text_mode=common.BigValueTextMode.VALUE,
        reduce_options=_last(),
        orientation=common.VizOrientation.AUTO,
    )
    defaults = sdk.FieldConfig(
        thresholds=limits, mappings=words(names or {}), color=_colour("thresholds"), no_value="–"
    )
    return panel(
        "stat", text, SMALL, targets([Query(expr)], prom.PromQueryFormat.TIME_SERIES, instant=True), options, defaults
    )


def label(text: Text, query: Query, size: Size = SMALL) -> sdk.Panel:
    """What a label says: the legend of the query is shown in place of its value."""
    shown = number(text, query.expr)
    assert isinstance(shown.options, stat.Options)
    shown.options.text_mode = common.BigValueTextMode.NAME
    shown.targets = [*targets([query], prom.PromQueryFormat.TIME_SERIES, instant=True)]
    shown.grid_pos = sdk.GridPos(h=size.height, w=size.width)
    return shown


def lines(
    text: Text,
    *queries: Query,
    limits: Limits = PLAIN,
    size: Size = HALF,
    stacked: bool = False,
    most: float | None = None,
    per_worker: bool = False,
) -> sdk.Panel:
    """Lines over time. ``most`` is the highest possible value; ``per_worker`` leads from a line to its worker."""
    style = "off" if len(limits.steps) < 2 else "dashed"
    custom = common.GraphFieldConfig(
        draw_style=common.GraphDrawStyle.LINE,
        line_width=1,
        fill_opacity=30 if stacked else 5,
        show_points=common.VisibilityMode.NEVER,
        span_nulls=False,
        stacking=common.StackingConfig(common.StackingMode.NORMAL if stacked else common.StackingMode.NONE, "A"),
        thresholds_style=common.GraphThresholdsStyleConfig(common.GraphThresholdsStyleMode(style)),
        axis_placement=common.AxisPlacement.AUTO,
    )
    options = timeseries.Options(
        legend=_legend(),
        tooltip=common.VizTooltipOptions(common.TooltipDisplayMode.MULTI, common.SortOrder.DESCENDING),
    )
    defaults = sdk.FieldConfig(
        min_val=0, max_val=most, thresholds=limits, color=_colour("palette-classic"), custom=custom,
        links=WORKER_OF_SERIES if per_worker else [],
    )  # fmt: skip
    shown = panel(
        "timeseries", text, size, targets(queries, prom.PromQueryFormat.TIME_SERIES, instant=False), options, defaults
    )
    return paint(shown, COLOURS)


def spread(text: Text, query: Query, of: str, size: Size = HALF) -> sdk.Panel:
    """A heat map of buckets with the label ``le`` over time. ``of`` is the unit of what is counted in them."""
    options = heatmap.Options(
        calculate=False,
        color=heatmap.HeatmapColorOptions(heatmap.HeatmapColorMode.SCHEME, "Oranges", "dark-orange", None, 0.5, 64),
        cell_gap=1,
        cell_values=heatmap.CellValues(unit=of, decimals=0),
        y_axis=heatmap.YAxisConfig(unit=text.unit, axis_placement=common.AxisPlacement.LEFT, reverse=False),
        show_value=common.VisibilityMode.NEVER,
        legend=heatmap.HeatmapLegend(show=True),
        tooltip=heatmap.HeatmapTooltip(common.TooltipDisplayMode.SINGLE, y_histogram=False, show_color_scale=True),
    )
    hidden = common.HideSeriesConfig(tooltip=False, legend=False, viz=False)
    custom = heatmap.FieldConfig(common.ScaleDistributionConfig(common.ScaleDistribution.LINEAR), hidden)
    queries = targets([query], prom.PromQueryFormat.HEATMAP, instant=False)
    shown = panel("heatmap", text, size, queries, options, sdk.FieldConfig(custom=custom))
    shown.max_data_points = 120
    return shown


def bars(
    text: Text, *queries: Query, limits: Limits = SHOWN, size: Size = HALF, most: float | None = None
) -> sdk.Panel:
    """A bar for each series, as it is now."""
    options = bargauge.Options(
        display_mode=common.BarGaugeDisplayMode.BASIC,
        value_mode=common.BarGaugeValueMode.TEXT,
        name_placement=common.BarGaugeNamePlacement.AUTO,
        sizing=common.BarGaugeSizing.AUTO,
        reduce_options=_last(),
        orientation=common.VizOrientation.HORIZONTAL,
    )
    defaults = sdk.FieldConfig(min_val=0, max_val=most, thresholds=limits, color=_colour("thresholds"), no_value="–")
    return panel(
        "bargauge", text, size, targets(queries, prom.PromQueryFormat.TIME_SERIES, instant=True), options, defaults
    )


def states(text: Text, *queries: Query, limits: Limits, names: Mapping[int, str], size: Size = HALF) -> sdk.Panel:
    """A band for each series over time, in the colours of ``limits`` and with ``names`` for the values."""
    options = statetimeline.Options(
        show_value=common.VisibilityMode.AUTO,
        row_height=0.8,
        merge_values=True,
        legend=_legend(),
        tooltip=common.VizTooltipOptions(common.TooltipDisplayMode.SINGLE, common.SortOrder.NONE),
        align_value=common.TimelineValueAlignment.LEFT,
    )
    defaults = sdk.FieldConfig(
        thresholds=limits, mappings=words(names), color=_colour("thresholds"),
        custom=statetimeline.FieldConfig(line_width=0, fill_opacity=70),
    )  # fmt: skip
    return panel(
        "state-timeline",
        text,
        size,
        targets(queries, prom.PromQueryFormat.TIME_SERIES, instant=False),
        options,
        defaults,
    )


def paint(shown: sdk.Panel, colours: Mapping[str, str]) -> sdk.Panel:
    """Give the series whose legends are among the names these colours."""
    named = {target.legend_format for target in shown.targets or [] if isinstance(target, prom.Dataquery)}
    by_label = any(legend in {"{{status}}", "{{state}}"} for legend in named)
    assert shown.field_config is not None
    shown.field_config.overrides += [
        sdk.DashboardFieldConfigSourceOverrides(
            sdk.MatcherConfig("byName", name),
            [sdk.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})],
        )
        for name, colour in colours.items()
        if by_label or name in named
    ]
    return shown


def words(names: Mapping[int, str]) -> list[sdk.ValueMapping]:
    """Words for values."""
    if not names:
        return []
    return [sdk.ValueMap({str(value): sdk.ValueMappingResult(text=text) for value, text in names.items()})]


def _colour(mode: str) -> sdk.FieldColor:
    return sdk.FieldColor(sdk.FieldColorModeId(mode))


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions(values=False, calcs=["lastNotNull"], fields="")


def _legend() -> common.VizLegendOptions:
    return common.VizLegendOptions(
        common.LegendDisplayMode.LIST, common.LegendPlacement.BOTTOM, show_legend=True, calcs=[]
    )
