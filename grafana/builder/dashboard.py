"""A whole dashboard: sections, variables, links, and firing alerts as annotations."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from grafana_foundation_sdk.models import dashboard as sdk

from grafana.builder.panels import RED, RUNBOOKS, SOURCE
from grafana.builder.queries import FIRING

COLUMNS = 24

MAX_POINTS = 120
"""Maximum points of a graph about many workers: Prometheus needs milliseconds per point for 10,000 workers."""

SCHEMA_VERSION = 39
"""The schema of Grafana 11.0. Later versions migrate it at loading."""

TITLES: Mapping[str, str] = {
    "fleetpulse-fleet": "Fleet",
    "fleetpulse-worker": "Worker",
    "fleetpulse-tasks": "Tasks",
    "fleetpulse-gpus": "GPUs",
    "fleetpulse-master": "Master",
}
"""Titles by uid, in the order of the links."""


class Section(NamedTuple):
    """A row with a heading; its panels wrap from left to right."""

    title: str
    panels: Sequence[sdk.Panel]


class _AlertAnnotations(sdk.AnnotationQuery):
    """An annotation with the fields of a Prometheus query, which the SDK lacks."""

    def to_json(self) -> dict[str, object]:
        target = {"refId": "Alerts", "expr": self.expr, "interval": "1m", "range": True, "editorMode": "code"}
        formats = {"titleFormat": "{{alertname}}", "textFormat": "{{severity}}", "tagKeys": "severity"}
        return {**super().to_json(), "target": target, **formats, "useValueForTime": False}


def dashboard(
    uid: str,
    description: str,
    sections: Sequence[Section],
    variables: Sequence[sdk.VariableModel],
    firing: str = FIRING,
    max_points: int | None = MAX_POINTS,
) -> sdk.Dashboard:
    """``firing`` selects the alerts of the annotations. ``max_points``: of a line; ``None`` is the panel's width."""
    for panel in (panel for section in sections for panel in section.panels):
        panel.max_data_points = panel.max_data_points or max_points
    annotations = _AlertAnnotations(
        name="Firing alerts", datasource=SOURCE, enable=True, hide=False, icon_color=RED,
        expr=f"count by (alertname, severity) ({firing})",
    )  # fmt: skip
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
        panels=_lay_out(sections),
        templating=sdk.DashboardDashboardTemplating([_data_source_variable(), *variables]),
        annotations=sdk.AnnotationContainer([annotations]),
        links=_links(uid),
    )


def _lay_out(sections: Sequence[Section]) -> list[sdk.Panel | sdk.RowPanel]:
    """Sets the id and the grid position of every panel."""
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


def _links(uid: str) -> list[sdk.DashboardLink]:
    """Links to the other dashboards, which keep time and variables, and to the runbooks."""
    kind = sdk.DashboardLinkType.LINK
    others = [
        sdk.DashboardLink(
            title, kind, icon="dashboard", tooltip=f"{title}, at the same time", url=f"/d/{other}",
            keep_time=True, include_vars=True,
        )
        for other, title in TITLES.items()
        if other != uid
    ]  # fmt: skip
    runbooks = sdk.DashboardLink(
        "Runbooks", kind, icon="doc", tooltip="Instructions for each alert", url=RUNBOOKS, target_blank=True
    )
    return [*others, runbooks]


def _data_source_variable() -> sdk.VariableModel:
    return sdk.VariableModel(
        sdk.VariableType.DATASOURCE,
        "datasource",
        label="Data source",
        description="The Prometheus that scrapes the master.",
        query="prometheus",
        current=sdk.VariableOption(selected=False, text="default", value="default"),
        refresh=sdk.VariableRefresh.ON_DASHBOARD_LOAD,
    )


def search_variable() -> sdk.VariableModel:
    """A text box for ``$search``, which stays fast with many workers."""
    every = sdk.VariableOption(selected=True, text=".*", value=".*")
    return sdk.VariableModel(
        sdk.VariableType.TEXTBOX,
        "search",
        label="Worker filter",
        description="A regular expression for the whole worker id; rack-7-.* selects all that begin with rack-7-.",
        query=".*",
        current=every,
        options=[every],
    )


def worker_variable(*, several: bool) -> sdk.VariableModel:
    """A list of the workers that match ``$search``, to select one or ``several``."""
    settings: dict[str, Any] = {}
    if several:
        every = sdk.VariableOption(selected=True, text=["All"], value=["$__all"])
        settings = {"multi": True, "include_all": True, "all_value": ".*", "current": every}
    query = 'label_values(fleetpulse_worker_up{worker_id=~"$search"}, worker_id)'
    return sdk.VariableModel(
        sdk.VariableType.QUERY,
        "worker",
        label="Worker",
        description="In a large fleet, narrow the list with the worker filter.",
        query={"query": query, "refId": "worker", "qryType": 1},
        datasource=SOURCE,
        refresh=sdk.VariableRefresh.ON_TIME_RANGE_CHANGED,
        sort=sdk.VariableSort.NATURAL_ASC,
        regex="",
        **settings,
    )
