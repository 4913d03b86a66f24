"""Cases for alerts, and `promtool test rules`, which runs them.

A case has one sample per minute, from minute 0, in promtool's notation. Rules are evaluated every minute. All series
belong to one master, whose job and instance are added here.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.monitoring.rules import GROUP_ORDER
from tests.tools import require_tool

MASTER = {"job": "fleetpulse", "instance": "master:8080"}
RUNBOOKS = "https://fleetpulse.example/docs/runbooks.md#"
DASHBOARDS = "http://localhost:3000/d/"


class Firing(NamedTuple):
    """A firing alert with its exact texts. ``labels`` are those beside severity, concern, job and instance."""

    severity: str
    concern: str
    summary: str
    description: str
    command: str
    dashboard: str
    labels: Mapping[str, str] = {}
    master: Mapping[str, str] = MASTER


class Case(NamedTuple):
    """``alert`` does not fire at the ``quiet`` minutes, and fires as ``fires`` at minute ``at``."""

    alert: str
    name: str
    series: Mapping[str, str]
    quiet: Sequence[int]
    at: int | None = None
    fires: Sequence[Firing] = ()


def flat(value: float, minutes: int = 120) -> str:
    """The same value for ``minutes`` + 1 samples."""
    return f"{value}+0x{minutes}"


def rising(by: float, start: float = 0, minutes: int = 120) -> str:
    """A value that grows steadily."""
    return f"{start}+{by}x{minutes}"


def turning(*values: tuple[float | str, int]) -> str:
    """Values, each with its number of minutes; ``_`` means no sample, ``stale`` the end of a series."""
    return " ".join(
        "stale" if value == "stale" else f"_x{count}" if value == "_" else f"{value}+0x{count - 1}"
        for value, count in values
    )


def run(tests: Sequence[dict[str, Any]], folder: Path, rule_files: Sequence[Path]) -> subprocess.CompletedProcess[str]:
    """Runs promtool with the rule files. Its output names each failed test."""
    file = folder / "test.yml"
    whole = {
        "rule_files": [str(rules) for rules in rule_files],
        "evaluation_interval": "1m",
        "group_eval_order": GROUP_ORDER,
        "tests": tests,
    }
    file.write_text(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True))
    return subprocess.run(
        [require_tool("promtool"), "test", "rules", file], capture_output=True, text=True, check=False, timeout=100
    )


def as_test(case: Case, rules: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the case in promtool's format, for the alerts in ``rules`` if there are any."""
    expected: list[tuple[int, list[Any]]] = [(minute, []) for minute in case.quiet]
    if case.at is not None:
        expected.append((case.at, [_expected(case.alert, firing) for firing in case.fires]))
    return {
        "name": f"{case.alert} {case.name}",
        "interval": "1m",
        "input_series": [{"series": with_master(name), "values": values} for name, values in case.series.items()],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": rule, "exp_alerts": alerts}
            for rule in rules or [case.alert]
            for minute, alerts in expected
        ],
    }


def _expected(alert: str, firing: Firing) -> dict[str, Any]:
    return {
        "exp_labels": {
            "severity": firing.severity, "concern": firing.concern, **firing.master, **firing.labels,
        },
        "exp_annotations": {
            "summary": firing.summary,
            "description": firing.description,
            "command": firing.command,
            "runbook_url": f"{RUNBOOKS}{alert.lower()}",
            "dashboard_url": f"{DASHBOARDS}{firing.dashboard}",
        },
    }  # fmt: skip


def with_master(series: str) -> str:
    """Returns the series with the job and instance labels that it lacks."""
    name, _, labels = series.rstrip("}").partition("{")
    own = [f"{label}={json.dumps(value)}" for label, value in MASTER.items() if f"{label}=" not in labels]
    return f"{name}{{{','.join([*own, labels] if labels else own)}}}"
