"""Tables: each column has a name, and a unit where it has numbers."""

from typing import NamedTuple

from grafana_foundation_sdk.models import common, table
from grafana_foundation_sdk.models import dashboard as sdk
from grafana_foundation_sdk.models import prometheus as prom

from grafana.builder.limits import PLAIN, Limits
from grafana.builder.links import RUNBOOK_OF_ROW, WORKER_OF_ROW
from grafana.builder.panels import HALF, Size, Text, panel, targets
from grafana.builder.queries import Query, alerts


class Column(NamedTuple):
    """``source`` is a label, or with a unit an expression; ``limits`` colours the cell, ``share`` draws a bar to 1."""

    title: str
    source: str
    unit: str = ""
    link: str = ""
    limits: Limits | None = None
    share: bool = False

    @property
    def is_label(self) -> bool:
        return not self.unit


def rows(text: Text, *columns: Column, size: Size = HALF, sort: str = "") -> sdk.Panel:
    """One row for each set of labels that the expressions share. The highest of the column ``sort`` stand first."""
    numbers = [column for column in columns if not column.is_label]
    queries = targets([Query(column.source) for column in numbers], prom.PromQueryFormat.TABLE, instant=True)
    # Grafana calls the one value of a table so, and of several each after its query.
    values = ["Value"] if len(numbers) == 1 else [f"Value #{query.ref_id}" for query in queries]
    value_of = dict(zip((column.title for column in numbers), values, strict=True))
    fields = {value_of.get(column.title, column.source): column.title for column in columns}
    options = table.Options(
        show_header=True,
        cell_height=common.TableCellHeight.SM,
        footer=common.TableFooterOptions(show=False, reducer=["sum"], enable_pagination=True),
        sort_by=[common.TableSortByFieldState(sort, desc=True)] if sort else [],
    )
    custom = common.TableFieldOptions(
        align=common.FieldTextAlignment.AUTO, cell_options=common.TableAutoCellOptions(), inspect=False, filterable=True
    )
    shown = panel("table", text, size, queries, options, sdk.FieldConfig(thresholds=PLAIN, custom=custom))
    shown.transformations = [
        sdk.DataTransformerConfig("merge", options={}),
        sdk.DataTransformerConfig(
            "organize",
            options={
                "excludeByName": {"Time": True},
                "indexByName": {field: place for place, field in enumerate(fields)},
                "renameByName": fields,
            },
        ),
    ]
    assert shown.field_config is not None  # nosec B101 # for the type checker
    shown.field_config.overrides = [_override(column) for column in columns]
    return shown


def _override(column: Column) -> sdk.DashboardFieldConfigSourceOverrides:
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


WORKER = Column("Worker", "worker_id", link=WORKER_OF_ROW)


def firing(matchers: dict[str, str], size: Size, about: str, *, of_workers: bool = True) -> sdk.Panel:
    """The alerts that fire, of those whose labels match; only those of workers name one."""
    text = Text(
        "Alerts that fire",
        f"Alerts of FleetPulse that fire now{about}; a click on one opens its runbook. Empty is good, or Prometheus "
        "has not loaded the rules of monitoring/.",
        "short",
    )
    columns = (
        Column("Alert", "alertname", link=RUNBOOK_OF_ROW),
        Column("Severity", "severity"),
        *([WORKER] if of_workers else []),
        Column("About", "about"),
        Column("Active for", alerts(matchers), "s"),
    )
    return rows(text, *columns, size=size, sort="Active for")
