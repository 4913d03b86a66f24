"""A whole dashboard: sections one below the other, variables, links, and the alerts that fired as annotations."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from grafana_foundation_sdk.models import dashboard as sdk

from grafana.builder.limits import RED
from grafana.builder.links import TITLES, board_links
from grafana.builder.panels import SOURCE
from grafana.builder.queries import FIRING

COLUMNS = 24

POINTS = 120
"""Of a graph about many workers. A product over 10,000 of them takes Prometheus some milliseconds a point."""

SCHEMA_VERSION = 39
"""Of Grafana 11.0. Later ones bring it up to their own when they load it."""


class Section(NamedTuple):
    """A heading, and its panels from left to right, as many in a row as fit."""

    title: str
    panels: Sequence[sdk.Panel]


class _Alerts(sdk.AnnotationQuery):
    """An annotation by a query of Prometheus; the SDK has no fields for it."""

    def to_json(self) -> dict[str, object]:
        target = {"refId": "Alerts", "expr": self.expr, "interval": "1m", "range": True, "editorMode": "code"}
        shown = {"titleFormat": "{{alertname}}", "textFormat": "{{severity}}", "tagKeys": "severity"}
        return {**super().to_json(), "target": target, **shown, "useValueForTime": False}


def board(
    uid: str,
    description: str,
    sections: Sequence[Section],
    variables: Sequence[sdk.VariableModel],
    firing: str = FIRING,
    points: int | None = POINTS,
) -> sdk.Dashboard:
    """The dashboard with this uid. ``firing`` is the selector of the alerts to mark on its graphs.

    ``points`` is how many each line has at most; ``None`` leaves it to the width of the screen.
    """
    for panel in (panel for section in sections for panel in section.panels):
        panel.max_data_points = panel.max_data_points or points
    return sdk.Dashboard(
        uid=uid,
        title=f"FleetPulse / {TITLES[uid]}",
        description=description,
        tags=["fleetpulse"],
        timezone="browser",
        editable=False,
        graph_tooltip=sdk.DashboardCursorSync.CROSSHAIR,
        time=sdk.DashboardDashboardTime("now-1h", "now"),
        refresh="30s",
        schema_version=SCHEMA_VERSION,
        panels=laid_out(sections),
        templating=sdk.DashboardDashboardTemplating([_source(), *variables]),
        annotations=sdk.AnnotationContainer([_firing(firing)]),
        links=list(board_links(uid)),
    )


def laid_out(sections: Sequence[Section]) -> list[sdk.Panel | sdk.RowPanel]:
    """Every panel with an id and a place in the grid."""
    placed: list[sdk.Panel | sdk.RowPanel] = []
    top = 0
    for section in sections:
        heading = sdk.RowPanel(title=section.title, grid_pos=sdk.GridPos(h=1, w=COLUMNS, x=0, y=top), panels=[])
        placed += [heading, *section.panels]
        left, top, below = 0, top + 1, top + 1
        for panel in section.panels:
            assert panel.grid_pos is not None  # nosec B101 # for the type checker
            if left + panel.grid_pos.w > COLUMNS:
                left, top = 0, below
            panel.grid_pos.x, panel.grid_pos.y = left, top
            left, below = left + panel.grid_pos.w, max(below, top + panel.grid_pos.h)
        top = below
    for number, panel_or_row in enumerate(placed, start=1):
        panel_or_row.id_val = number
    return placed


def _source() -> sdk.VariableModel:
    return sdk.VariableModel(
        sdk.VariableType.DATASOURCE,
        "datasource",
        label="Data source",
        description="The Prometheus that scrapes the master.",
        query="prometheus",
        current=sdk.VariableOption(selected=False, text="default", value="default"),
        refresh=sdk.VariableRefresh.ON_DASHBOARD_LOAD,
    )


def search() -> sdk.VariableModel:
    """A text box: cheap however many workers there are."""
    every = sdk.VariableOption(selected=True, text=".*", value=".*")
    return sdk.VariableModel(
        sdk.VariableType.TEXTBOX,
        "search",
        label="Workers that match",
        description="A regular expression for the whole worker id: rack-7-.* for all that begin with rack-7-.",
        query=".*",
        current=every,
        options=[every],
    )


def worker(*, several: bool) -> sdk.VariableModel:
    """The workers that match ``$search``, to choose one of, or several."""
    chosen: dict[str, Any] = {}
    if several:
        every = sdk.VariableOption(selected=True, text=["All"], value=["$__all"])
        chosen = {"multi": True, "include_all": True, "all_value": ".*", "current": every}
    query = 'label_values(fleetpulse_worker_up{worker_id=~"$search"}, worker_id)'
    return sdk.VariableModel(
        sdk.VariableType.QUERY,
        "worker",
        label="Worker",
        description="Narrow the list down by the box before it when there are very many.",
        query={"query": query, "refId": "worker", "qryType": 1},
        datasource=SOURCE,
        refresh=sdk.VariableRefresh.ON_TIME_RANGE_CHANGED,
        sort=sdk.VariableSort.NATURAL_ASC,
        regex="",
        **chosen,
    )


def _firing(selector: str) -> sdk.AnnotationQuery:
    expr = f"count by (alertname, severity) ({selector})"
    return _Alerts(name="Firing alerts", datasource=SOURCE, enable=True, hide=False, icon_color=RED, expr=expr)
