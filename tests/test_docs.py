"""The documentation matches the code, and its links work."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from falcon.inspect import inspect_app

from fleetpulse.master.cli import master_command
from fleetpulse.master.instruments import Instruments
from fleetpulse.master.metrics.families import FAMILIES, Family
from fleetpulse.master.tasks.request import TaskRequest
from tests.master.web import running_web

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [*(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")), *sorted(DOCS.glob("*.md"))]


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_heading_resolves(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", page.read_text())
    assert [link for link in links if link[1] not in anchors_of(page.parent / link[0] if link[0] else page)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_example_puts_a_token_on_a_command_line(page: Path) -> None:
    """Every user of a machine sees the command lines of all; ``printf`` and ``export`` are the shell's own."""
    blocks = re.findall(r"^```(?:bash|sh|console)$(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = [
        line for block in blocks for line in block.splitlines() if not re.match(r"\(?(umask|printf|export|#)", line)
    ]
    wrong = r"Bearer|--(join-)?token[ =]|FLEETPULSE_(JOIN_)?TOKEN=|curl .*(-u|--user) "
    assert [line for line in lines if re.search(wrong, line)] == []


def rows_of(page: Path) -> dict[str, list[str]]:
    """The cells of every table row of a page, by the first cell, without backticks."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    rows = [[cell.strip().replace("`", "") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_resolves(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)[^)]*\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_source_file_named_in_the_docs_exists(page: Path) -> None:
    """Paths like `rpc/session.py`, relative to the repository or to one of the programs."""
    named = set(re.findall(r"`([a-z_]+(?:/[A-Za-z_.-]+)*\.(?:py|proto|js|sh))`", page.read_text()))
    programs = [ROOT / "master", ROOT / "worker"]
    folders = [folder for program in programs for folder in (program, *program.glob("*/"))]
    roots = [ROOT, DOCS, ROOT / "proto", ROOT / "master/page/static", *folders]
    missing = [name for name in named if not any((root / name).exists() for root in roots)]
    assert sorted(missing) == []


# docs/metrics.md


def check_metrics_page(tool: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("change", ["edited", "missing"])
def test_check_fails_when_the_metrics_page_is_outdated_or_missing(tmp_path: Path, change: str) -> None:
    for folder in ("tools", "docs"):
        (tmp_path / folder).mkdir()
    tool = Path(shutil.copy(ROOT / "tools" / "metrics_reference.py", tmp_path / "tools"))
    if change == "edited":
        (tmp_path / "docs" / "metrics.md").write_text((DOCS / "metrics.md").read_text().replace("gauge", "counter", 1))
    result = check_metrics_page(tool)
    assert result.returncode == 1
    assert "make docs" in result.stderr


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_metrics_page_lists_every_worker_family(family: Family) -> None:
    kind, labels, unit, text = rows_of(DOCS / "metrics.md")[family.name]
    assert (kind, unit, text) == (family.kind, family.unit, family.help)
    assert labels.split(", ") == ["worker_id", *family.labels]


def test_metrics_page_lists_every_master_metric_and_label() -> None:
    rows = rows_of(DOCS / "metrics.md")
    families = list(Instruments().registry.collect())
    assert len(families) > 20
    for family in families:
        kind, labels, _, _ = rows[f"{family.name}_total" if family.type == "counter" else family.name]
        assert kind == family.type
        sampled = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert sampled <= set(labels.split(", "))
        assert all(label in rows for label in labels.split(", ") if label)
    assert rows["fleetpulse_http_requests_total"][1] == "route, method, status"
    assert rows["fleetpulse_http_request_duration_seconds"][:3] == ["histogram", "route", "seconds"]


# docs/rest.md

PATH_VALUES = {
    "worker_id": "worker-1",
    "task_id": "task-123",
    "page_version": "0123456789ab",
    "page_file": "app.js",
}


def test_rest_page_has_every_path_with_a_curl_line() -> None:
    text = (DOCS / "rest.md").read_text()
    curl_lines = [line for line in text.splitlines() if "curl -s" in line]
    with running_web() as web:
        routes = inspect_app(web.app).routes
    assert len(routes) > 5
    for route in routes:
        path = re.escape("localhost:8080" + route.path.format(**PATH_VALUES))
        assert any(re.search(rf"{path}(\s|'|$)", line) for line in curl_lines), route.path
        for method in {method.method for method in route.methods if not method.internal} - {"HEAD"}:
            assert f"`{method} {route.path}`" in text


def test_rest_page_explains_every_field_of_a_record() -> None:
    explained = {name for names in rows_of(DOCS / "rest.md") for name in names.split(", ")}
    with running_web() as web:
        web.fleet.beat("rack-7")
        assert web.json("/telemetry/rack-7").keys() <= explained


def test_rest_page_explains_every_field_of_tasks_and_workers() -> None:
    explained = {name for names in rows_of(DOCS / "rest.md") for name in names.split(", ")}
    text = (DOCS / "rest.md").read_text()
    with running_web() as web:
        web.fleet.beat("rack-7")
        task = web.client.simulate_post("/api/tasks", json={"docker_image": "busybox"}).json
        details = web.json(f"/api/tasks/{task['task_id']}")
        assert details.keys() <= explained
        assert details["events"][0].keys() <= set(re.findall(r"`(\w+)`", text))
        assert web.json("/api/workers/rack-7").keys() <= set(re.findall(r"`(\w+)`", text))


def test_rest_page_explains_every_submit_field_with_its_default() -> None:
    text = (DOCS / "rest.md").read_text()
    for name, field in TaskRequest.model_fields.items():
        default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
        assert f"| `{name}` | {'what the image says' if name == 'command' else default} | " in text


# docs/operations.md


SETTINGS = [option for option in master_command.params if option.name != "has_shell"]
"""All options except the flag for a prompt, which is not a setting."""


@pytest.mark.parametrize("option", SETTINGS, ids=lambda option: option.name)
def test_operations_page_lists_every_master_setting_with_its_default(option: click.Option) -> None:
    assert isinstance(option.envvar, str)
    rows = rows_of(DOCS / "operations.md")
    assert option.opts[0] in " ".join([option.envvar, *rows[option.envvar]])
    default = option.show_default if isinstance(option.show_default, str) else str(option.default)
    assert default in rows[option.envvar]
