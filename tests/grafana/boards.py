"""The committed JSON of the dashboards, as Grafana reads it."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parents[2] / "grafana" / "dashboards"

UIDS = ("fleetpulse-fleet", "fleetpulse-worker", "fleetpulse-tasks", "fleetpulse-gpus", "fleetpulse-master")


def load(uid: str) -> dict[str, Any]:
    board = json.loads((FOLDER / f"{uid}.json").read_text(encoding="utf-8"))
    assert isinstance(board, dict)
    return board


def panels(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every panel but the headings of rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def every_panel() -> list[tuple[str, dict[str, Any]]]:
    """Uid and panel."""
    return [(uid, panel) for uid in UIDS for panel in panels(load(uid))]


class Target(NamedTuple):
    """One query of one panel."""

    uid: str
    panel: str
    ref_id: str
    expr: str
    is_instant: bool
    kind: str

    def __str__(self) -> str:
        return f"{self.uid.removeprefix('fleetpulse-')}: {self.panel}, {self.ref_id}"


def every_target() -> Iterator[Target]:
    """Without annotations and the queries of variables."""
    for uid, panel in every_panel():
        for target in panel["targets"]:
            yield Target(uid, panel["title"], target["refId"], target["expr"], target["instant"], panel["type"])


def filled_in(text: str, variables: Mapping[str, str]) -> str:
    """Replaces variables as Grafana does. Raises ``KeyError`` for a variable without a value."""
    for name in sorted(variables, key=len, reverse=True):
        text = text.replace(f"${{{name}}}", variables[name]).replace(f"${name}", variables[name])
    if left := re.search(r"\$\{?\w+", text):
        raise KeyError(f"no value for {left.group()} in {text}")
    return text
