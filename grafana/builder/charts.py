"""What changes over time: lines, distributions, states."""

from collections.abc import Mapping

from grafana_foundation_sdk.models import common, heatmap, statetimeline, timeseries
from grafana_foundation_sdk.models import dashboard as sdk
from grafana_foundation_sdk.models import prometheus as prom

from grafana.builder.limits import PLAIN, Limits
from grafana.builder.links import WORKER_OF_SERIES
from grafana.builder.panels import HALF, Size, Text, coloured, paint, panel, targets, words
from grafana.builder.queries import Query


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
        min_val=0, max_val=most, thresholds=limits, color=coloured("palette-classic"), custom=custom,
        links=WORKER_OF_SERIES if per_worker else [],
    )  # fmt: skip
    shown = panel(
        "timeseries", text, size, targets(queries, prom.PromQueryFormat.TIME_SERIES, instant=False), options, defaults
    )
    return paint(shown)


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
    shown.max_data_points = 80
    return shown


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
        thresholds=limits, mappings=words(names), color=coloured("thresholds"),
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


def _legend() -> common.VizLegendOptions:
    return common.VizLegendOptions(
        common.LegendDisplayMode.LIST, common.LegendPlacement.BOTTOM, show_legend=True, calcs=[]
    )
