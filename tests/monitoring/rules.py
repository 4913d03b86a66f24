"""The rule files, parsed."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
MONITORING = ROOT / "monitoring"
RULES = MONITORING / "rules"
RULE_FILES = sorted(RULES.glob("*.yml"))


class Alert(NamedTuple):
    """An alerting rule and its file."""

    file: Path
    name: str
    expr: str
    pending: str
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def rule_files(self) -> list[Path]:
        """The files that are needed to evaluate it."""
        return sorted({RULES / "recording.yml", self.file})


def groups_of(file: Path) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(file.read_text())["groups"]
    return groups


ALERTS = {
    rule["alert"]: Alert(
        file, rule["alert"], rule["expr"], rule.get("for", ""), rule.get("labels", {}), rule.get("annotations", {})
    )
    for file in RULE_FILES
    for group in groups_of(file)
    for rule in group["rules"]
    if "alert" in rule
}

EXPRESSIONS = [rule["expr"] for file in RULE_FILES for group in groups_of(file) for rule in group["rules"]]

GROUP_ORDER = ["fleetpulse-recording"] + [
    group["name"] for file in RULE_FILES for group in groups_of(file) if group["name"] != "fleetpulse-recording"
]
"""Recording rules come first, so that a test does not need a second evaluation."""
