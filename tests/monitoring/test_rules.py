"""The files of monitoring/ are valid and complete, and match each other, the code and the docs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from monitoring.thresholds import THRESHOLDS, Threshold
from tests.monitoring.mutants import LIMIT
from tests.monitoring.rules import ALERTS, EXPRESSIONS, MONITORING, ROOT, RULE_FILES, RULES, Alert, groups_of
from tests.test_docs import rows_of
from tests.tools import require_tool

DOCS = ROOT / "docs"
DASHBOARDS = {"fleetpulse-fleet", "fleetpulse-worker", "fleetpulse-tasks", "fleetpulse-gpus", "fleetpulse-master"}
RUNBOOKS = dict(
    re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", (DOCS / "runbooks.md").read_text(), re.MULTILINE | re.DOTALL)
)

every_alert = pytest.mark.parametrize("alert", ALERTS.values(), ids=lambda alert: alert.name)


def check(tool: str, *arguments: str | Path) -> None:
    command = [require_tool(tool), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus.compose.yml"])
def test_promtool_accepts_the_configuration_and_the_rules(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(MONITORING, tmp_path / "monitoring")
    if name == "prometheus.compose.yml":
        (folder / "credentials").mkdir()
        (folder / "credentials" / "token").write_text("a secret")
    check("promtool", "check", "config", "--lint-fatal", folder / name)
    check("promtool", "check", "rules", "--lint-fatal", *RULE_FILES)


def test_compose_configuration_differs_only_in_host_names_and_token() -> None:
    own = (MONITORING / "prometheus.yml").read_text()
    names = own.replace("localhost:8080", "master:8080").replace("localhost:9093", "alertmanager:9093")
    with_token = names.replace("# authorization:", "authorization:")
    assert (MONITORING / "prometheus.compose.yml").read_text() == with_token
    assert len({own, names, with_token}) == 3


# Alerts


@every_alert
def test_alert_is_complete(alert: Alert) -> None:
    assert re.fullmatch(r"FleetPulse([A-Z0-9][a-z0-9]+)+", alert.name)
    assert alert.labels.keys() == {"severity", "concern"}
    assert alert.labels["severity"] in {"critical", "warning", "info"}
    assert alert.labels["concern"] == alert.file.stem
    assert re.fullmatch(r"[1-9][0-9]*m", alert.pending)
    assert list(alert.annotations) == ["summary", "description", "command", "runbook_url", "dashboard_url"]
    assert all(text and text == " ".join(text.split()) for text in alert.annotations.values())
    assert alert.annotations["runbook_url"] == f"https://fleetpulse.example/docs/runbooks.md#{alert.name.lower()}"
    dashboard = re.match(r"http://localhost:3000/d/([a-z-]+)(?:\?var-worker=|$)", alert.annotations["dashboard_url"])
    assert dashboard is not None
    assert dashboard[1] in DASHBOARDS


EXAMPLES = {
    "{{ $labels.instance }}": "master.example:8080",
    "{{ $labels.worker_id }}": "rack-7",
    "{{ or $labels.hostname $labels.worker_id }}": "rack-7.example.com",
    "{{ $labels.mountpoint }}": "/data",
    "{{ $labels.uuid }}": "GPU-a",
}


@every_alert
def test_alert_has_a_runbook_with_its_command(alert: Alert) -> None:
    runbook = RUNBOOKS[alert.name]
    assert re.findall(r"^\*\*([A-Za-z ]+)\.\*\*", runbook, re.MULTILINE) == [
        "Meaning", "Impact", "First command", "Diagnosis", "Fix",
    ]  # fmt: skip
    command = alert.annotations["command"]
    for template, example in EXAMPLES.items():
        command = command.replace(template, example)
    assert f"```bash\n{command}\n```" in runbook


def test_every_runbook_has_an_alert() -> None:
    assert RUNBOOKS.keys() == ALERTS.keys()


def test_documented_command_replaces_the_links(tmp_path: Path) -> None:
    page = (DOCS / "monitoring.md").read_text()
    command = re.search(r"(sed -i .*?rules/\*\.yml)", page, re.DOTALL)
    assert command is not None
    shutil.copytree(RULES, tmp_path / "rules")
    subprocess.run(["bash", "-ec", command[1]], cwd=tmp_path, check=True)
    changed = "".join(path.read_text() for path in sorted((tmp_path / "rules").glob("*.yml")))
    assert "localhost:3000" not in changed
    assert "fleetpulse.example" not in changed
    assert changed.count("https://wiki.example.com/fleetpulse/runbooks#fleetpulse") == len(ALERTS)
    check("promtool", "check", "rules", *sorted((tmp_path / "rules").glob("*.yml")))


# Limits


@pytest.mark.parametrize("name", THRESHOLDS)
def test_threshold_matches_its_alert(name: str) -> None:
    limit = THRESHOLDS[name]
    alert = ALERTS[limit.alert]
    assert alert.labels["severity"] == limit.severity
    if name == "clock_skew_seconds":  # it is a bucket of the histogram
        assert 'le="5.0"' in (RULES / "recording.yml").read_text()
        assert limit.value == 5.0
    else:
        assert limit.value in limits_in(alert)


@every_alert
def test_every_limit_of_an_alert_is_a_threshold(alert: Alert) -> None:
    listed = {limit.value for limit in THRESHOLDS.values() if limit.alert == alert.name}
    # States, the lower bound of a counter, the result of predict_linear, and minimum amounts.
    plain = {0.0, 1.0} | {"FleetPulseClockSkew": {0.01}, "FleetPulseWorkerAnomalous": {5.0}}.get(alert.name, set())
    assert limits_in(alert) - plain - listed == set()


def limits_in(alert: Alert) -> set[float]:
    return {float(number) for number in LIMIT.findall(alert.expr)}


def test_monitoring_page_lists_every_threshold() -> None:
    rows = rows_of(DOCS / "monitoring.md")
    for name, limit in THRESHOLDS.items():
        assert rows[name] == [limit.alert, limit.severity, limit.of, shown(limit)]


def shown(limit: Threshold) -> str:
    if limit.unit == "ratio":
        return f"{limit.value:.0%}"
    unit = {"1": "", "1/s": "/s"}.get(limit.unit, f" {limit.unit}")
    return f"{limit.value:,.15g}{unit}"


# Metrics


RECORDED = {
    rule["record"] for file in RULE_FILES for group in groups_of(file) for rule in group["rules"] if "record" in rule
}
OF_PROMETHEUS = {"up", "scrape_duration_seconds", "scrape_samples_scraped"}
LABELS_OF_PROMETHEUS = {"job", "instance", "le"}
WORDS = {"or", "and", "unless", "by", "on", "group_left", "offset", "sum", "count", "max", "quantile"}


def bare(expr: str) -> str:
    return re.sub(r'"[^"]*"', '""', expr)


def names_in(expr: str) -> set[str]:
    """The metrics: words outside braces, brackets and lists of labels that are not functions or keywords."""
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]|(?:by|on|group_left) \([^)]*\)", " ", bare(expr))
    text = re.sub(r"offset \d+m", " ", text)
    return set(re.findall(r"\b[a-z_][a-z0-9_:]*\b(?!\s*\()", text)) - WORDS


def labels_in(expr: str) -> set[str]:
    lists = re.findall(r"(?:by|on|group_left) \(([^)]*)\)", expr)
    matchers = re.findall(r"\{([^}]*)\}", bare(expr))
    return {word for part in lists for word in re.split(r"[,\s]+", part) if word} | {
        label for part in matchers for label in re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", part)
    }


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_every_metric_and_label_of_a_rule_is_documented(expr: str) -> None:
    rows = rows_of(DOCS / "metrics.md")
    names = names_in(expr)
    assert names
    own = {re.sub(r"_(?:bucket|count|sum)$", "", name) for name in names - RECORDED - OF_PROMETHEUS}
    assert own - rows.keys() == set()
    recorded = {"reading"} if names & RECORDED else set()
    assert labels_in(expr) - rows.keys() - LABELS_OF_PROMETHEUS - recorded == set()


@every_alert
def test_templates_use_only_known_labels(alert: Alert) -> None:
    named = {label for text in alert.annotations.values() for label in re.findall(r"\$labels\.(\w+)", text)}
    known = rows_of(DOCS / "metrics.md").keys() | LABELS_OF_PROMETHEUS | {"reading"}
    assert named - known == set()


# Alertmanager


CONFIG = MONITORING / "alertmanager.yml"


def test_amtool_accepts_the_configuration() -> None:
    check("amtool", "check-config", CONFIG)


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "pager"), ("warning", "team"), ("info", "nobody")])
def test_severity_decides_the_receiver(severity: str, receiver: str) -> None:
    check("amtool", "config", "routes", "test", f"--config.file={CONFIG}", f"--verify.receivers={receiver}",
          "alertname=FleetPulseX", f"severity={severity}")  # fmt: skip


def test_inhibit_rules_name_existing_alerts() -> None:
    rules = yaml.safe_load(CONFIG.read_text())["inhibit_rules"]
    matchers = [matcher for rule in rules for side in ("source_matchers", "target_matchers") for matcher in rule[side]]
    for matcher in matchers:
        name, sign, pattern = re.split(r" (=~|=) ", matcher)
        pattern = pattern.strip('"')
        values = ALERTS if name == "alertname" else {alert.labels[name] for alert in ALERTS.values()}
        fitting = [value for value in values if (re.fullmatch(pattern, value) if sign == "=~" else value == pattern)]
        assert fitting, matcher
