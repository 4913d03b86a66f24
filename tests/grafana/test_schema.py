"""Whether Grafana 11 to 13 accepts the files, and whether each panel is documented."""

import json
import re
from collections import Counter
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.grafana.boards import FOLDER, UIDS, every_panel, load, panels

CORE_PANELS = {"timeseries", "stat", "table", "heatmap", "state-timeline", "bargauge"}
"""Built into Grafana 11 to 13."""

UNITS = {
    "short",
    "none",
    "string",
    "percentunit",
    "bytes",
    "Bps",
    "s",
    "cps",
    "reqps",
    "celsius",
    "watt",
    "bool_yes_no",
}
"""In Grafana's list of value formats."""

EVERY_PANEL = [pytest.param(panel, id=f"{uid}-{panel['id']}") for uid, panel in every_panel()]

register_default_plugins()


def test_folder_has_exactly_these_dashboards() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(f"{uid}.json" for uid in UIDS)


@pytest.mark.parametrize("uid", UIDS)
def test_dashboard_settings(uid: str) -> None:
    board = load(uid)
    assert board["uid"] == uid
    assert re.fullmatch(r"FleetPulse / \w+", board["title"])
    assert board["tags"] == ["fleetpulse"]
    assert (board["timezone"], board["refresh"], board["editable"]) == ("browser", "30s", False)
    assert board["schemaVersion"] == 39
    assert board["time"] == {"from": "now-1h", "to": "now"}
    assert board["description"]
    # Left by an export "for sharing externally", which does not work when it is provisioned.
    assert not {"__inputs", "__requires", "__elements", "id", "version", "iteration"} & board.keys()
    assert "${DS_" not in json.dumps(board)


@pytest.mark.parametrize("uid", UIDS)
def test_sdk_round_trip_is_identical(uid: str) -> None:
    """The SDK's classes are generated from Grafana's schema for 11.0; unknown fields would be lost."""
    board = load(uid)
    again = json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))
    # The SDK knows no fields for how an annotation of Prometheus looks.
    for one in (board, again):
        del one["annotations"]
    assert again == board


@pytest.mark.parametrize("uid", UIDS)
def test_ids_are_unique_and_no_two_panels_overlap(uid: str) -> None:
    everything = load(uid)["panels"]
    assert [panel["id"] for panel in everything] == list(range(1, len(everything) + 1))
    taken: Counter[tuple[int, int]] = Counter()
    for panel in everything:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        taken.update(
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        )
    assert taken.most_common(1)[0][1] == 1


@pytest.mark.parametrize("uid", UIDS)
def test_no_two_panels_of_a_section_have_the_same_title(uid: str) -> None:
    section, titles = "", Counter[tuple[str, str]]()
    for panel in load(uid)["panels"]:
        section = panel["title"] if panel["type"] == "row" else section
        titles[section, panel["title"]] += 1
    assert [title for title, count in titles.items() if count > 1] == []


@pytest.mark.parametrize("panel", EVERY_PANEL)
def test_panels_have_description_and_unit(panel: dict[str, Any]) -> None:
    assert panel["type"] in CORE_PANELS
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["targets"]
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS - {"string"}
    for override in panel["fieldConfig"]["overrides"]:
        assert {prop["value"] for prop in override["properties"] if prop["id"] == "unit"} <= UNITS
    if panel["type"] == "heatmap":
        assert panel["options"]["yAxis"]["unit"] == panel["fieldConfig"]["defaults"]["unit"]
        assert panel["options"]["cellValues"]["unit"] in UNITS
    if panel["type"] == "table":
        titles = {o["matcher"]["options"] for o in panel["fieldConfig"]["overrides"]}
        assert titles == set(panel["transformations"][-1]["options"]["renameByName"].values())


@pytest.mark.parametrize("panel", EVERY_PANEL)
def test_panels_use_the_data_source_variable(panel: dict[str, Any]) -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["datasource"] == source
    forms = {"table": "table", "heatmap": "heatmap"}
    for target in panel["targets"]:
        assert target["datasource"] == source
        assert target["instant"] is not target["range"]
        assert target["format"] == forms.get(panel["type"], "time_series")
        assert target["expr"] == target["expr"].strip()
    ref_ids = [target["refId"] for target in panel["targets"]]
    assert len(set(ref_ids)) == len(ref_ids)


@pytest.mark.parametrize(("uid", "panel"), every_panel())
def test_fleet_panels_limit_data_points(uid: str, panel: dict[str, Any]) -> None:
    most = panel.get("maxDataPoints")
    assert (most is None) is (uid == "fleetpulse-worker")
    assert most is None or most <= 120


@pytest.mark.parametrize("uid", UIDS)
def test_variables(uid: str) -> None:
    variables = {variable["name"]: variable for variable in load(uid)["templating"]["list"]}
    source = variables.pop("datasource")
    assert (source["type"], source["query"], source["current"]["value"]) == ("datasource", "prometheus", "default")
    used = set(re.findall(r"\$\{?(\w+)", json.dumps([panel["targets"] for panel in panels(load(uid))])))
    assert used - {"datasource", "__rate_interval", "__range"} <= variables.keys()
    for variable in variables.values():
        assert variable["label"]
        assert variable["description"].endswith(".")
    if worker := variables.get("worker"):
        assert "search" in variables, "the box that narrows the list down"
        assert '{worker_id=~"$search"}' in worker["query"]["query"]
        assert worker["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert not worker["multi"] or (worker["includeAll"], worker["allValue"]) == (True, ".*")


@pytest.mark.parametrize("uid", UIDS)
def test_firing_alerts_are_marked(uid: str) -> None:
    (alerts,) = load(uid)["annotations"]["list"]
    assert alerts["enable"]
    assert alerts["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert alerts["target"]["expr"] == alerts["expr"]
    assert alerts["expr"].startswith("count by (alertname, severity) (ALERTS{")
    assert alerts["titleFormat"] == "{{alertname}}"
