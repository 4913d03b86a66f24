"""Links of dashboards and panels: to existing dashboards, with time and variables kept, and to the runbooks."""

import json
import re
from typing import Any

import pytest
import yaml

from grafana.builder.panels import RUNBOOKS
from tests.grafana.boards import UIDS, every_panel, load
from tests.tools import ROOT


@pytest.mark.parametrize("uid", UIDS)
def test_every_dashboard_links_the_others_and_the_runbooks(uid: str) -> None:
    *others, runbooks = load(uid)["links"]
    assert [link["url"] for link in others] == [f"/d/{other}" for other in UIDS if other != uid]
    assert all(link["keepTime"] and link["includeVars"] and link["type"] == "link" for link in others)
    assert runbooks["url"] == RUNBOOKS


def test_runbook_links_match_the_alerts() -> None:
    groups = [
        group
        for path in (ROOT / "monitoring" / "rules").glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    urls = {rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"] if "alert" in rule}
    assert {url.partition("#")[0] for url in urls} == {RUNBOOKS}


def urls_of(value: Any) -> list[str]:
    """Every URL in a panel."""
    return re.findall(r'"url": "([^"]*)"', json.dumps(value))


def test_panel_links_keep_time_and_data_source() -> None:
    urls = {url for _, panel in every_panel() for url in urls_of(panel)}
    inner = {url for url in urls if url.startswith("/d/")}
    assert urls - inner == {f"{RUNBOOKS}#${{__value.text}}"}
    for url in inner:
        uid, parameters = re.fullmatch(r"/d/([\w-]+)\?(.*)", url).groups()  # type: ignore[union-attr]  # fails if not
        assert uid in UIDS
        assert parameters.endswith("&${datasource:queryparam}&${__url_time_range}")
        names = {variable["name"] for variable in load(uid)["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", parameters)) <= names


def test_worker_columns_link_to_the_worker() -> None:
    tables = [panel for _, panel in every_panel() if panel["type"] == "table"]
    columns = [
        override for table in tables for override in table["fieldConfig"]["overrides"]
        if override["matcher"]["options"] == "Worker"
    ]  # fmt: skip
    assert len(columns) >= 5
    assert all("/d/fleetpulse-worker?var-worker=${__value.text}" in urls_of(column)[0] for column in columns)


def test_worker_lines_link_to_the_worker() -> None:
    drawn = [panel for _, panel in every_panel() if panel["type"] == "timeseries"]
    for panel in drawn:
        by_worker = any("{{worker_id}}" in target["legendFormat"] for target in panel["targets"])
        assert bool(urls_of(panel["fieldConfig"])) is by_worker, panel["title"]
