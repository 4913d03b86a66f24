"""The page: what it is made of, how it is served, and the numbers above it."""

import gzip
import re

import pytest

from fleetpulse.master.api.page import Assets, StaticFile, load_assets, render_page
from tests.master.requests import task_request
from tests.master.web import Web


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_page_has_a_strict_content_security_policy(web: Web, method: str) -> None:
    result = web.client.simulate_request(method, "/")
    assert (result.status_code, result.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = dict(rule.split(" ", 1) for rule in result.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src", "form-action")} == {"'self'"}
    assert {policy[name] for name in ("frame-ancestors", "base-uri")} == {"'none'"}
    assert result.headers["x-content-type-options"] == "nosniff"
    assert result.headers["referrer-policy"] == "no-referrer"


def test_unchanged_page_is_a_304(web: Web) -> None:
    etag = web.client.simulate_get("/").headers["etag"]
    again = web.client.simulate_get("/", headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")


def test_static_files_are_immutable_and_compressed(web: Web) -> None:
    path = re.findall(r'src="(/static/[^"]+/app\.js)"', web.client.simulate_get("/").text)[0]
    result = web.client.simulate_get(path, headers={"Accept-Encoding": "gzip"})
    assert (result.status_code, result.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert "immutable" in result.headers["cache-control"]
    assert b"import" in gzip.decompress(result.content)


@pytest.mark.parametrize("change", [("app.js", "nothing.js"), ("app.js", "..%2fassets.py"), ("/static/", "/static/f")])
def test_missing_file_and_file_of_another_version_are_a_404(web: Web, change: tuple[str, str]) -> None:
    path = re.findall(r'src="(/static/[^"]+/app\.js)"', web.client.simulate_get("/").text)[0]
    result = web.client.simulate_get(path.replace(*change))
    assert (result.status_code, result.headers["content-type"]) == (404, "application/problem+json")


def test_overview_counts_workers_by_state_and_tasks_by_status(web: Web) -> None:
    for worker_id in ("rack-1", "rack-2", "rack-3"):
        web.fleet.beat(worker_id)
    web.fleet.pass_time(web.fleet.manager.lease_config.inactivity_timeout_seconds + 1)
    web.fleet.beat("rack-3")
    web.tasks.drain("rack-3", "new disk")
    web.tasks.submit(task_request("busybox"))
    overview = web.json("/api/overview")
    assert overview["workers"] == {"active": 1, "inactive": 2, "draining": 1}
    assert overview["tasks"] == {
        "queued": 1, "pending": 0, "running": 0, "completed": 0, "failed": 0, "cancelled": 0
    }  # fmt: skip


def render(**values: object) -> str:
    return render_page(load_assets(), **{"version": "1.2.3", "grafana_url": "", **values}).decode()


def test_page_references_every_static_file() -> None:
    assets = load_assets()
    named = set(re.findall(r'(?:src|href)="/static/[0-9a-f]{12}/([^"]+)"', render()))
    assert named == assets.files.keys()


def test_every_javascript_import_resolves() -> None:
    assets = load_assets()
    modules = {name: file.content.decode() for name, file in assets.files.items() if name.endswith(".js")}
    assert len(modules) > 10
    for name, source in modules.items():
        imported = set(re.findall(r"from '\./([^']+)'", source))
        assert imported <= modules.keys(), name
        assert len(re.findall(r"^import ", source, re.MULTILINE)) == len(re.findall(r"from '\./", source)), name


def test_only_one_module_sends_requests() -> None:
    for name, file in load_assets().files.items():
        if name.endswith(".js") and name != "api.js":
            assert not re.search(r"\bfetch\(|new EventSource|XMLHttpRequest|WebSocket", file.content.decode()), name


def test_no_raw_markup_and_no_external_addresses() -> None:
    for name, file in load_assets().files.items():
        text = file.content.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), name
        assert not re.search(r"https?://|url\(|@import", text), name


def test_page_has_no_inline_script_or_style() -> None:
    html = render()
    assert re.findall(r"<script(?![^>]* src=)[^>]*>|<style|\son\w+=|\sstyle=", html) == []


def test_template_values_are_escaped() -> None:
    assert '<script>"' not in render(grafana_url='"><script>"')


def test_changed_content_changes_the_address() -> None:
    one, other = (Assets({"a.js": StaticFile(content, "text/javascript")}) for content in (b"1", b"2"))
    assert one.path("a.js") != other.path("a.js")
    assert Assets(dict(one.files)).path("a.js") == one.path("a.js")


def test_renamed_file_changes_the_address() -> None:
    file = StaticFile(b"1", "text/javascript")
    assert Assets({"a.js": file}).digest != Assets({"b.js": file}).digest
