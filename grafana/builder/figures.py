"""What is so now: a figure, a word, bars."""

from collections.abc import Mapping

from grafana_foundation_sdk.models import bargauge, common, stat
from grafana_foundation_sdk.models import dashboard as sdk
from grafana_foundation_sdk.models import prometheus as prom

from grafana.builder.limits import SHOWN, Limits
from grafana.builder.panels import HALF, SMALL, Size, Text, coloured, panel, targets, words
from grafana.builder.queries import Query


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
        thresholds=limits, mappings=words(names or {}), color=coloured("thresholds"), no_value="–"
    )
    return panel(
        "stat", text, SMALL, targets([Query(expr)], prom.PromQueryFormat.TIME_SERIES, instant=True), options, defaults
    )


def label(text: Text, query: Query, size: Size = SMALL) -> sdk.Panel:
    """What a label says: the legend of the query is shown in place of its value."""
    shown = number(text, query.expr)
    assert isinstance(shown.options, stat.Options)  # nosec B101 # for the type checker
    shown.options.text_mode = common.BigValueTextMode.NAME
    shown.targets = [*targets([query], prom.PromQueryFormat.TIME_SERIES, instant=True)]
    shown.grid_pos = sdk.GridPos(h=size.height, w=size.width)
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
    defaults = sdk.FieldConfig(min_val=0, max_val=most, thresholds=limits, color=coloured("thresholds"), no_value="–")
    return panel(
        "bargauge", text, size, targets(queries, prom.PromQueryFormat.TIME_SERIES, instant=True), options, defaults
    )


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions(values=False, calcs=["lastNotNull"], fields="")
