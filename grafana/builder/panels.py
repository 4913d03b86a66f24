"""Panels of Grafana's built-in kinds, each with a unit, a description and thresholds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from grafana_foundation_sdk.models import bargauge, common, stat, statetimeline, timeseries
from grafana_foundation_sdk.models import dashboard as sdk
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models import prometheus as prom
from grafana_foundation_sdk.models import table as tables

from grafana.builder.queries import Query, alerts
from monitoring.thresholds import THRESHOLDS

SOURCE = sdk.DataSourceRef("prometheus", "${datasource}")
RUNBOOKS = "https://fleetpulse.example/docs/runbooks.md"

GREEN, BLUE, ORANGE, RED, GREY = "green", "blue", "orange", "red", "text"
BY_SEVERITY = {"info": BLUE, "warning": ORANGE, "critical": RED}

SERIES_COLOURS = {
    "queued": "yellow", "pending": "light-blue", "running": "blue", "completed": "green", "failed": "red",
    "cancelled": "text", "lost": "purple", "stopped": "text", "active": "green", "inactive": "red",
    "used": "blue", "allocated": "orange", "total": "text",
}  # fmt: skip
"""By legend, the same in every panel."""

Thresholds = sdk.ThresholdsConfig


def thresholds(*steps: tuple[float, str], base: str = GREEN) -> Thresholds:
    """``steps`` are values and the colours that begin there."""
    levels = [sdk.Threshold(None, base), *(sdk.Threshold(value, colour) for value, colour in sorted(steps))]
    return Thresholds(sdk.ThresholdsMode.ABSOLUTE, levels)


def alert_thresholds(*names: str) -> Thresholds:
    """The thresholds and colours of these alerts. ``names`` are keys of ``THRESHOLDS``; raises ``KeyError``."""
    return thresholds(*((THRESHOLDS[name].value, BY_SEVERITY[THRESHOLDS[name].severity]) for name in names))


GREY_ALWAYS = thresholds(base=GREY)
BLUE_ALWAYS = thresholds(base=BLUE)
RED_FROM_1 = thresholds((1, RED))
ORANGE_FROM_1 = thresholds((1, ORANGE))
GREEN_FROM_1 = thresholds((1, GREEN), base=RED)


class Text(NamedTuple):
    """The title, description and unit of a panel."""

    title: str
    description: str
    unit: str


class Size(NamedTuple):
    """In units of the grid; a row has 24."""

    width: int
    height: int


SMALL, WIDE = Size(4, 4), Size(24, 9)
HALF, THIRD, QUARTER = Size(12, 8), Size(8, 8), Size(6, 8)


def worker_url(worker_id: str) -> str:
    """The dashboard of a worker, with time and data source kept. ``worker_id`` is an expression of Grafana."""
    return f"/d/fleetpulse-worker?var-worker={worker_id}&${{datasource:queryparam}}&${{__url_time_range}}"


def stat_panel(
    text: Text, expr: str, limits: Thresholds = BLUE_ALWAYS, names: Mapping[int, str] | None = None
) -> sdk.Panel:
    """One current value. ``names`` are words for values."""
    options = stat.Options(
        graph_mode=common.BigValueGraphMode.NONE,
        color_mode=common.BigValueColorMode.VALUE,
        justify_mode=common.BigValueJustifyMode.AUTO,
        text_mode=common.BigValueTextMode.VALUE,
        reduce_options=_last_value(),
        orientation=common.VizOrientation.AUTO,
    )
    defaults = sdk.FieldConfig(
        thresholds=limits, mappings=_value_mappings(names or {}), color=_colour("thresholds"), no_value="–"
    )
    return _panel("stat", text, SMALL, _targets([Query(expr)], instant=True), options, defaults)


def label_panel(text: Text, query: Query) -> sdk.Panel:
    """The current legend of a query, in place of its value."""
    panel = stat_panel(text, query.expr)
    assert isinstance(panel.options, stat.Options)  # nosec B101 # for the type checker
    panel.options.text_mode = common.BigValueTextMode.NAME
    panel.targets = [*_targets([query], instant=True)]
    return panel


def bar_gauge(
    text: Text, *queries: Query, limits: Thresholds = BLUE_ALWAYS, size: Size = HALF, maximum: float | None = None
) -> sdk.Panel:
    """A bar for the current value of each series."""
    options = bargauge.Options(
        display_mode=common.BarGaugeDisplayMode.BASIC,
        value_mode=common.BarGaugeValueMode.TEXT,
        name_placement=common.BarGaugeNamePlacement.AUTO,
        sizing=common.BarGaugeSizing.AUTO,
        reduce_options=_last_value(),
        orientation=common.VizOrientation.HORIZONTAL,
    )
    defaults = sdk.FieldConfig(min_val=0, max_val=maximum, thresholds=limits, color=_colour("thresholds"), no_value="–")
    return _panel("bargauge", text, size, _targets(queries, instant=True), options, defaults)


def graph(
    text: Text,
    *queries: Query,
    limits: Thresholds = GREY_ALWAYS,
    size: Size = HALF,
    stacked: bool = False,
    maximum: float | None = None,
    per_worker: bool = False,
) -> sdk.Panel:
    """Lines over time. With ``per_worker`` each line links to its worker."""
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
        legend=_legend(), tooltip=common.VizTooltipOptions(common.TooltipDisplayMode.MULTI, common.SortOrder.DESCENDING)
    )
    worker_id = "${__field.labels.worker_id}"
    links = [sdk.DashboardLink(title=f"Worker {worker_id}", url=worker_url(worker_id))] if per_worker else []
    defaults = sdk.FieldConfig(
        min_val=0, max_val=maximum, thresholds=limits, color=_colour("palette-classic"), custom=custom, links=links
    )
    panel = _panel("timeseries", text, size, _targets(queries), options, defaults)
    _set_series_colours(panel, {query.legend for query in queries})
    return panel


def heatmap(text: Text, query: Query, cell_unit: str, size: Size = HALF) -> sdk.Panel:
    """Buckets with the label ``le`` over time. ``cell_unit`` is that of the counts."""
    options = heat.Options(
        calculate=False,
        color=heat.HeatmapColorOptions(heat.HeatmapColorMode.SCHEME, "Oranges", "dark-orange", None, 0.5, 64),
        cell_gap=1,
        cell_values=heat.CellValues(unit=cell_unit, decimals=0),
        y_axis=heat.YAxisConfig(unit=text.unit, axis_placement=common.AxisPlacement.LEFT, reverse=False),
        show_value=common.VisibilityMode.NEVER,
        legend=heat.HeatmapLegend(show=True),
        tooltip=heat.HeatmapTooltip(common.TooltipDisplayMode.SINGLE, y_histogram=False, show_color_scale=True),
    )
    hidden = common.HideSeriesConfig(tooltip=False, legend=False, viz=False)
    custom = heat.FieldConfig(common.ScaleDistributionConfig(common.ScaleDistribution.LINEAR), hidden)
    targets = _targets([query], prom.PromQueryFormat.HEATMAP)
    panel = _panel("heatmap", text, size, targets, options, sdk.FieldConfig(custom=custom))
    panel.max_data_points = 80
    return panel


def state_timeline(
    text: Text, *queries: Query, limits: Thresholds, names: Mapping[int, str], size: Size = HALF
) -> sdk.Panel:
    """A band for each series, coloured by ``limits`` and with ``names`` for the values."""
    options = statetimeline.Options(
        show_value=common.VisibilityMode.AUTO,
        row_height=0.8,
        merge_values=True,
        legend=_legend(),
        tooltip=common.VizTooltipOptions(common.TooltipDisplayMode.SINGLE, common.SortOrder.NONE),
        align_value=common.TimelineValueAlignment.LEFT,
    )
    defaults = sdk.FieldConfig(
        thresholds=limits,
        mappings=_value_mappings(names),
        color=_colour("thresholds"),
        custom=statetimeline.FieldConfig(line_width=0, fill_opacity=70),
    )
    return _panel("state-timeline", text, size, _targets(queries), options, defaults)


class Column(NamedTuple):
    """``source`` is a label or, with a unit, an expression. ``limits`` colours the cell, ``share`` adds a bar to 1."""

    title: str
    source: str
    unit: str = ""
    link: str = ""
    limits: Thresholds | None = None
    share: bool = False


WORKER = Column("Worker", "worker_id", link=worker_url("${__value.text}"))


def table(text: Text, *columns: Column, size: Size = HALF, sort: str = "") -> sdk.Panel:
    """A row for each set of labels that the expressions share, the highest of the column ``sort`` first."""
    numbers = [column for column in columns if column.unit]
    targets = _targets([Query(column.source) for column in numbers], prom.PromQueryFormat.TABLE, instant=True)
    # Grafana calls a single value "Value", and several after their queries.
    values = ["Value"] if len(numbers) == 1 else [f"Value #{target.ref_id}" for target in targets]
    value_of = dict(zip((column.title for column in numbers), values, strict=True))
    fields = {value_of.get(column.title, column.source): column.title for column in columns}
    options = tables.Options(
        show_header=True,
        cell_height=common.TableCellHeight.SM,
        footer=common.TableFooterOptions(show=False, reducer=["sum"], enable_pagination=True),
        sort_by=[common.TableSortByFieldState(sort, desc=True)] if sort else [],
    )
    custom = common.TableFieldOptions(
        align=common.FieldTextAlignment.AUTO, cell_options=common.TableAutoCellOptions(), inspect=False, filterable=True
    )
    panel = _panel("table", text, size, targets, options, sdk.FieldConfig(thresholds=GREY_ALWAYS, custom=custom))
    order = {
        "excludeByName": {"Time": True},
        "indexByName": {field: place for place, field in enumerate(fields)},
        "renameByName": fields,
    }
    panel.transformations = [
        sdk.DataTransformerConfig("merge", options={}),
        sdk.DataTransformerConfig("organize", options=order),
    ]
    assert panel.field_config is not None  # nosec B101 # for the type checker
    panel.field_config.overrides = [_column_override(column) for column in columns]
    return panel


def alerts_table(matchers: dict[str, str], size: Size, about: str, *, of_workers: bool = True) -> sdk.Panel:
    """The firing alerts with matching labels. ``of_workers`` adds the column of the worker."""
    text = Text(
        "Firing alerts",
        f"Alerts of FleetPulse that fire now{about}; a click on one opens its runbook. Also empty if Prometheus "
        "has not loaded the rules of monitoring/.",
        "short",
    )
    columns = (
        Column("Alert", "alertname", link=f"{RUNBOOKS}#${{__value.text}}"),
        Column("Severity", "severity"),
        *([WORKER] if of_workers else []),
        Column("About", "about"),
        Column("Active for", alerts(matchers), "s"),
    )
    return table(text, *columns, size=size, sort="Active for")


def _panel(
    kind: str, text: Text, size: Size, queries: Sequence[prom.Dataquery], options: object, defaults: sdk.FieldConfig
) -> sdk.Panel:
    """A panel without id and position, which the dashboard adds."""
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


def _targets(
    queries: Sequence[Query], form: prom.PromQueryFormat = prom.PromQueryFormat.TIME_SERIES, *, instant: bool = False
) -> list[prom.Dataquery]:
    """Queries over the time range or, with ``instant``, at its end."""
    return [
        prom.Dataquery(
            query.expr, instant=instant, range_val=not instant, editor_mode=prom.QueryEditorMode.CODE, format_val=form,
            legend_format=query.legend or "__auto", ref_id=chr(ord("A") + number), datasource=SOURCE,
        )
        for number, query in enumerate(queries)
    ]  # fmt: skip


def _set_series_colours(panel: sdk.Panel, legends: set[str]) -> None:
    by_label = bool(legends & {"{{status}}", "{{state}}"})
    assert panel.field_config is not None  # nosec B101 # for the type checker
    panel.field_config.overrides += [
        sdk.DashboardFieldConfigSourceOverrides(
            sdk.MatcherConfig("byName", name),
            [sdk.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})],
        )
        for name, colour in SERIES_COLOURS.items()
        if by_label or name in legends
    ]


def _column_override(column: Column) -> sdk.DashboardFieldConfigSourceOverrides:
    properties = [sdk.DynamicConfigValue("unit", column.unit or "string")]
    if column.link:
        properties.append(sdk.DynamicConfigValue("links", [{"title": "Open", "url": column.link}]))
    if column.share:
        gauge = common.TableBarGaugeCellOptions(common.BarGaugeDisplayMode.BASIC)
        properties += [sdk.DynamicConfigValue("min", 0), sdk.DynamicConfigValue("max", 1)]
        properties.append(sdk.DynamicConfigValue("custom.cellOptions", gauge))
    elif column.limits:
        properties.append(sdk.DynamicConfigValue("custom.cellOptions", common.TableColorTextCellOptions()))
    if column.limits:
        properties.append(sdk.DynamicConfigValue("thresholds", column.limits))
    return sdk.DashboardFieldConfigSourceOverrides(sdk.MatcherConfig("byName", column.title), properties)


def _value_mappings(names: Mapping[int, str]) -> list[sdk.ValueMapping]:
    if not names:
        return []
    return [sdk.ValueMap({str(value): sdk.ValueMappingResult(text=text) for value, text in names.items()})]


def _colour(mode: str) -> sdk.FieldColor:
    return sdk.FieldColor(sdk.FieldColorModeId(mode))


def _last_value() -> common.ReduceDataOptions:
    return common.ReduceDataOptions(values=False, calcs=["lastNotNull"], fields="")


def _legend() -> common.VizLegendOptions:
    return common.VizLegendOptions(
        common.LegendDisplayMode.LIST, common.LegendPlacement.BOTTOM, show_legend=True, calcs=[]
    )
