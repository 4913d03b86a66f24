"""Panels of the kinds that Grafana brings along, each with a unit, a description and limits."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from grafana_foundation_sdk.models import dashboard as sdk
from grafana_foundation_sdk.models import prometheus as prom

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
    """The queries of a panel, over the time range or, with ``instant``, at its end."""
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
    """What all kinds have in common. The board gives it its place and its id."""
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


def paint(shown: sdk.Panel) -> sdk.Panel:
    """Give the series whose legends are in ``COLOURS``, or may be, their colours."""
    named = {target.legend_format for target in shown.targets or [] if isinstance(target, prom.Dataquery)}
    by_label = any(legend in {"{{status}}", "{{state}}"} for legend in named)
    assert shown.field_config is not None  # nosec B101 # for the type checker
    shown.field_config.overrides += [
        sdk.DashboardFieldConfigSourceOverrides(
            sdk.MatcherConfig("byName", name),
            [sdk.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})],
        )
        for name, colour in COLOURS.items()
        if by_label or name in named
    ]
    return shown


def words(names: Mapping[int, str]) -> list[sdk.ValueMapping]:
    """Words for values."""
    if not names:
        return []
    return [sdk.ValueMap({str(value): sdk.ValueMappingResult(text=text) for value, text in names.items()})]


def coloured(mode: str) -> sdk.FieldColor:
    """Where the colour of a series comes from."""
    return sdk.FieldColor(sdk.FieldColorModeId(mode))
