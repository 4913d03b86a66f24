"""Colours of panels change where alerts fire."""

import re
from typing import Any

import pytest

from grafana.builder.panels import BY_SEVERITY, alert_thresholds
from monitoring.thresholds import THRESHOLDS
from tests.grafana.boards import every_panel

NOT_OF_ALERTS = {("red", 1), ("orange", 1), ("green", 1)}
"""Thresholds of counts and states."""

NOT_DRAWN = {
    "fleet_gone_workers": "a second condition of an alert whose first is drawn",
    "filesystem_fills_guard_ratio": "a second condition of an alert that is drawn as a full filesystem in 4 hours",
    "task_failures": "a second condition of an alert whose first is drawn",
    "anomaly_peer_z": "a second condition of an alert whose first is drawn",
}


def thresholds_of(panel: dict[str, Any]) -> set[tuple[str, float]]:
    """Colour and value of every threshold of a panel and its columns."""
    config = panel["fieldConfig"]
    levels = [config["defaults"].get("thresholds") or {"steps": []}]
    levels += [prop["value"] for one in config["overrides"] for prop in one["properties"] if prop["id"] == "thresholds"]
    return {(step["color"], step["value"]) for one in levels for step in one["steps"] if step["value"] is not None}


DRAWN = {step for _, panel in every_panel() for step in thresholds_of(panel)}


@pytest.mark.parametrize("name", sorted(THRESHOLDS.keys() - NOT_DRAWN.keys()))
def test_alert_thresholds_are_drawn_in_their_severity_colour(name: str) -> None:
    threshold = THRESHOLDS[name]
    assert (BY_SEVERITY[threshold.severity], threshold.value) in DRAWN


def test_only_alert_thresholds_are_drawn() -> None:
    assert {(BY_SEVERITY[one.severity], one.value) for one in THRESHOLDS.values()} >= DRAWN - NOT_OF_ALERTS
    assert NOT_DRAWN.keys() <= THRESHOLDS.keys()


def test_thresholds_are_sorted() -> None:
    levels = alert_thresholds("filesystem_full_ratio", "filesystem_ratio")
    values = [THRESHOLDS[name].value for name in ("filesystem_ratio", "filesystem_full_ratio")]
    assert [step.value for step in levels.steps] == [None, *values]
    with pytest.raises(KeyError):
        alert_thresholds("no_such_threshold")


@pytest.mark.parametrize(("uid", "panel"), every_panel())
def test_alerts_named_in_panels_exist(uid: str, panel: dict[str, Any]) -> None:
    alerts = {threshold.alert for threshold in THRESHOLDS.values()}
    assert set(re.findall(r"FleetPulse[A-Z]\w+", panel["description"])) <= alerts
