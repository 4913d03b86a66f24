"""How the page is served, and the numbers above it."""

import gzip
import re

import pytest

from fleetpulse.master.tasks.records import TaskSpec
from tests.master.web import Web


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_page_is_html_under_a_strict_policy(web: Web, method: str) -> None:
    result = web.client.simulate_request(method, "/")
    assert (result.status_code, result.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = dict(rule.split(" ", 1) for rule in result.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src", "form-action")} == {"'self'"}
    assert {policy[name] for name in ("frame-ancestors", "base-uri")} == {"'none'"}
    assert result.headers["x-content-type-options"] == "nosniff"
    assert result.headers["referrer-policy"] == "no-referrer"


def test_a_page_that_has_not_changed_is_not_sent_again(web: Web) -> None:
    etag = web.client.simulate_get("/").headers["etag"]
    again = web.client.simulate_get("/", headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")


def test_files_may_be_kept_for_ever_and_are_compressed(web: Web) -> None:
    path = re.findall(r'src="(/static/[^"]+/app\.js)"', web.client.simulate_get("/").text)[0]
    result = web.client.simulate_get(path, headers={"Accept-Encoding": "gzip"})
    assert (result.status_code, result.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert "immutable" in result.headers["cache-control"]
    assert b"import" in gzip.decompress(result.content)


@pytest.mark.parametrize("change", [("app.js", "nothing.js"), ("app.js", "..%2fassets.py"), ("/static/", "/static/f")])
def test_a_file_that_is_not_there_and_one_of_another_version_are_a_404(web: Web, change: tuple[str, str]) -> None:
    path = re.findall(r'src="(/static/[^"]+/app\.js)"', web.client.simulate_get("/").text)[0]
    result = web.client.simulate_get(path.replace(*change))
    assert (result.status_code, result.headers["content-type"]) == (404, "application/problem+json")


def test_the_overview_counts_workers_by_state_and_tasks_by_status(web: Web) -> None:
    for worker_id in ("rack-1", "rack-2", "rack-3"):
        web.fleet.beat(worker_id)
    web.fleet.pass_time(web.fleet.manager.lease_config.inactivity_timeout_seconds + 1)
    web.fleet.beat("rack-3")
    web.tasks.drain("rack-3", "new disk")
    web.tasks.submit(TaskSpec("busybox"))
    overview = web.json("/api/overview")
    assert overview["workers"] == {"active": 1, "inactive": 2, "draining": 1}
    assert overview["tasks"] == {
        "queued": 1, "pending": 0, "running": 0, "completed": 0, "failed": 0, "cancelled": 0
    }  # fmt: skip
