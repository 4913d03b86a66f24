"""master.api.tasks: the paths of tasks, over tasks that a test moves"""

import re
from typing import Any
from urllib.parse import urlencode

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetpulse.master import errors
from fleetpulse.master.api.answers import PIECE_BYTES
from tests.master.api.task_api import JSON, TaskApi
from tests.master.api.test_problems import problem
from tests.master.hostile import BAD_WORKER_IDS

GIVEN = {
    "docker_image": "busybox",
    "name": "one",
    "command": ["echo", "hi"],
    "env": {"A": "1"},
    "cpu_required": 2.0,
    "memory_required": 64,
    "gpu_required": 1,
    "priority": 7,
    "max_retries": 1,
    "timeout_seconds": 60.0,
    "labels": {"team": "a"},
    "constraints": {"zone": ["eu"]},
    "read_only": True,
    "user": "1000",
    "network": "none",
}


# One task


def test_new_task_is_answered_with_every_field(tasks: TaskApi) -> None:
    task_id = tasks.submit(**GIVEN)
    details = tasks.get(f"/api/tasks/{task_id}")
    assert details == {
        "task_id": task_id,
        "status": "queued",
        "queue_reason": "no worker is there",
        "worker_id": None,
        "attempt": 0,
        "retries_used": 0,
        "exit_code": None,
        "oom_killed": None,
        "reason": None,
        "error": None,
        "created_at": 1_700_000_000.0,
        "pending_at": None,
        "running_at": None,
        "finished_at": None,
        "cancel_requested_at": None,
        "not_before": None,
        **GIVEN,
        "env": {"A": None},
        "attempts": [],
        "events": [{"time": 1_700_000_000.0, "kind": "submitted", "message": "busybox", "attempt": None}],
    }


def test_task_through_all_its_statuses(tasks: TaskApi) -> None:
    task_id = tasks.submit(**GIVEN)
    path = f"/api/tasks/{task_id}"
    tasks.fake.place(task_id, "rack-7", ("GPU-a",))
    pending = tasks.get(path)
    assert (pending["status"], pending["worker_id"], pending["attempt"]) == ("pending", "rack-7", 1)
    assert pending["queue_reason"] is None
    tasks.fake.run(task_id)
    assert tasks.get(path)["status"] == "running"
    tasks.fake.end(task_id, 137, oom_killed=True, reason="out_of_memory", error="it took more than 64 MiB")
    again = tasks.get(path)
    # What has happened to the attempt is not what has become of the task.
    assert (again["status"], again["worker_id"], again["exit_code"], again["retries_used"]) == ("queued", None, None, 1)
    assert again["attempts"] == [
        {
            "attempt": 1,
            "worker_id": "rack-7",
            "status": "failed",
            "gpu_uuids": ["GPU-a"],
            "container_id": "c0ffee",
            "assigned_at": 1_700_000_000.25,
            "preparing_at": None,
            "running_at": 1_700_000_000.5,
            "finished_at": 1_700_000_000.75,
            "exit_code": 137,
            "oom_killed": True,
            "reason": "out_of_memory",
            "error": "it took more than 64 MiB",
        }
    ]
    tasks.fake.place(task_id, "rack-8")
    tasks.fake.run(task_id)
    tasks.fake.end(task_id, 0, oom_killed=False)
    done = tasks.get(path)
    assert (done["status"], done["worker_id"], done["exit_code"], done["oom_killed"]) == (
        "completed",
        "rack-8",
        0,
        False,
    )
    assert done["created_at"] < done["pending_at"] < done["running_at"] < done["finished_at"]
    assert [attempt["attempt"] for attempt in done["attempts"]] == [1, 2]
    assert [event["kind"] for event in done["events"]] == [
        "submitted", "assigned", "running", "failed", "requeued", "assigned", "running", "completed",
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["/api/tasks/task-123", "/api/tasks/task-123/logs"])
def test_unknown_task_is_not_found(tasks: TaskApi, path: str) -> None:
    assert problem(tasks.client.simulate_get(path), 404)["detail"] == "no task has the id 'task-123'"
    assert problem(tasks.client.simulate_get(f"{path}?follow=true" if "logs" in path else path), 404)


@pytest.mark.parametrize("task_id", ["%00", "a%00b", "%ff", "..", "-", "a b", "a" * 129, "%F0%9F%92%A9", "%0a"])
@pytest.mark.parametrize("suffix", ["", "/logs", "/logs?follow=true"])
def test_malformed_task_id_is_not_found(tasks: TaskApi, task_id: str, suffix: str) -> None:
    path, _, query = f"/api/tasks/{task_id}{suffix}".partition("?")
    problem(tasks.client.simulate_get(path, query_string=query), 404)
    assert tasks.fake.asked_for == set()  # no store need cope with it


# Cancelling


def test_queued_task_is_cancelled_at_once(tasks: TaskApi) -> None:
    task_id = tasks.submit()
    result = tasks.client.simulate_delete(f"/api/tasks/{task_id}")
    assert result.status_code == 202
    assert result.json["status"] == "cancelled"
    assert result.json == tasks.get(f"/api/tasks/{task_id}")
    assert "cancelled" in problem(tasks.client.simulate_delete(f"/api/tasks/{task_id}"), 409)["detail"]


def test_running_task_is_cancelled_later(tasks: TaskApi) -> None:
    task_id = tasks.submit()
    tasks.fake.place(task_id)
    tasks.fake.run(task_id)
    for _ in range(2):
        result = tasks.client.simulate_delete(f"/api/tasks/{task_id}")
        assert (result.status_code, result.json["status"]) == (202, "running")
        assert result.json["cancel_requested_at"] is not None


def test_unknown_task_cannot_be_cancelled(tasks: TaskApi) -> None:
    problem(tasks.client.simulate_delete("/api/tasks/task-123"), 404)
    problem(tasks.client.simulate_delete("/api/tasks/a%00"), 404)


# The list


def ids(tasks: TaskApi, query: str = "") -> list[str]:
    return [task["task_id"] for task in tasks.get("/api/tasks", query_string=query)]


def test_newest_tasks_come_first(tasks: TaskApi) -> None:
    assert ids(tasks) == []
    first, second = tasks.submit(), tasks.submit()
    assert ids(tasks) == [second, first]
    (view, _) = tasks.get("/api/tasks")
    assert view.keys() == tasks.get(f"/api/tasks/{second}").keys() - {"attempts", "events"} | {"truncated"}
    assert view["truncated"] == []


def test_tasks_are_filtered(tasks: TaskApi) -> None:
    queued, running, cancelled = tasks.submit(name="a-1"), tasks.submit(name="a-2"), tasks.submit(name="b")
    tasks.fake.place(running)
    tasks.fake.run(running)
    tasks.client.simulate_delete(f"/api/tasks/{cancelled}")
    assert ids(tasks, "status=queued") == [queued]
    assert ids(tasks, "status=queued,running") == [running, queued]
    assert ids(tasks, "status=queued&status=cancelled") == [cancelled, queued]
    assert ids(tasks, "status=queued,running&status=cancelled") == [cancelled, running, queued]
    assert ids(tasks, "status=completed") == []
    assert ids(tasks, "name=a-") == [running, queued]
    assert ids(tasks, "worker_id=rack-7") == [running]
    assert ids(tasks, "worker_id=rack-7&status=queued") == []
    (view,) = tasks.get("/api/tasks", query_string="worker_id=rack-7")
    assert view["worker_id"] == "rack-7"


def test_links_lead_through_all_pages(tasks: TaskApi) -> None:
    submitted = [tasks.submit(name="a &=?") for _ in range(7)]
    found = []
    query = "limit=3&name=a%20%26&status=queued,failed"
    while True:
        result = tasks.client.simulate_get("/api/tasks", query_string=query)
        found += [task["task_id"] for task in result.json]
        link = re.fullmatch(r"</api/tasks\?(.*)>; rel=\"?next\"?", result.headers.get("Link", ""))
        if link is None:
            break
        query = link[1]
    assert found == submitted[::-1]
    assert "status=queued" in query


def test_rendering_a_large_page_yields_to_other_greenlets(tasks: TaskApi) -> None:
    for _ in range(130):
        tasks.submit()
    assert len(tasks.get("/api/tasks")) == 100
    assert len(tasks.get("/api/tasks", query_string="limit=1000")) == 130


def test_encoding_of_large_tasks_yields_by_their_size(tasks: TaskApi) -> None:
    count, size = 50, 32 * 1024
    for _ in range(count):
        tasks.submit(command=["x" * size])
    turns = 0

    def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    greenlet = gevent.spawn(other)
    try:
        assert len(tasks.get("/api/tasks", query_string=f"limit={count}")) == count
    finally:
        greenlet.kill()
    assert turns >= count * size // (2 * PIECE_BYTES)


BAD_QUERIES = [
    ("/api/tasks", "status=waiting", "status[0]", "must be one of"),
    ("/api/tasks", "status=queued,waiting", "status[1]", "must be one of"),
    ("/api/tasks", "status=queued&status=QUEUED", "status[1]", "must be one of"),
    ("/api/tasks", "status=", "status[0]", "must be one of"),
    ("/api/tasks", "limit=0", "limit", "at least 1"),
    ("/api/tasks", "limit=1001", "limit", "at most 1000"),
    ("/api/tasks", "limit=-1", "limit", "at least 1"),
    ("/api/tasks", "limit=ten", "limit", "whole number"),
    ("/api/tasks", "limit=1.5", "limit", "whole number"),
    ("/api/tasks", "limit=1_0", "limit", "whole number"),
    ("/api/tasks", "limit=%D9%A1", "limit", "whole number"),
    ("/api/tasks", "limit=" + "9" * 5000, "limit", "whole number"),
    ("/api/tasks", "limit=", "limit", "whole number"),
    ("/api/tasks", "limit=1&limit=2", "limit", "given once"),
    ("/api/tasks", "worker_id=a%00b", "worker_id", "must be 1 to 128"),
    ("/api/tasks", "worker_id=", "worker_id", "must be 1 to 128"),
    ("/api/tasks", "worker_id=a&worker_id=b", "worker_id", "given once"),
    ("/api/tasks", "name=a%00", "name", "printable"),
    ("/api/tasks", "name=" + "a" * 129, "name", "at most 128"),
    ("/api/tasks", "cursor=", "cursor", "Link header"),
    ("/api/tasks", "cursor=a%20b", "cursor", "Link header"),
    ("/api/tasks", "stauts=queued", "stauts", "is status meant?"),
    ("/api/tasks", "page=2", "page", "known are cursor, limit"),
    ("/api/tasks/task-1", "verbose=1", "verbose", "is not known"),
    ("/api/workers/rack-7/tasks", "limit=0", "limit", "at least 1"),
    ("/api/workers/rack-7/tasks", "status=queued", "status", "is not known"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "query", "field", "why"), BAD_QUERIES)
def test_invalid_query_is_refused(tasks: TaskApi, path: str, query: str, field: str, why: str) -> None:
    result = tasks.client.simulate_get(path, query_string=query)
    assert result.status_code == 422, result.text
    (error,) = result.json["errors"]
    assert error["field"] == field
    assert why in error["message"]


def test_all_errors_of_a_query_are_reported_at_once(tasks: TaskApi) -> None:
    result = tasks.client.simulate_get("/api/tasks", query_string="limit=0&status=x&name=%00")
    assert [error["field"] for error in result.json["errors"]] == ["status[0]", "name", "limit"]


def test_foreign_cursor_is_refused(tasks: TaskApi) -> None:
    problem(tasks.client.simulate_get("/api/tasks", query_string="cursor=made-up"), 422)


# Workers


def test_attempts_of_a_worker_are_listed(tasks: TaskApi) -> None:
    assert tasks.get("/api/workers/rack-7/tasks") == []
    task_id, other = tasks.submit(**GIVEN), tasks.submit()
    tasks.fake.place(task_id, "rack-7", ("GPU-a",))
    tasks.fake.run(task_id)
    tasks.fake.place(other)
    newer, older = tasks.get("/api/workers/rack-7/tasks")
    assert newer["task_id"] == other
    assert older["task_id"] == task_id
    assert older.items() >= {"task_status": "running", "status": "running", "attempt": 1, "name": "one"}.items()
    assert older["gpu_uuids"] == ["GPU-a"]
    assert tasks.get("/api/workers/rack-7/tasks", query_string="limit=1") == [newer]


def test_drain_and_undrain(tasks: TaskApi) -> None:
    drained = tasks.client.simulate_post("/api/workers/rack-7/drain", json={"reason": "new disk"})
    assert (drained.status_code, drained.json) == (
        200,
        {"worker_id": "rack-7", "draining": True, "reason": "new disk"},
    )
    assert tasks.fake.drained == {"rack-7": "new disk"}
    back = tasks.client.simulate_post("/api/workers/rack-7/undrain")
    assert (back.status_code, back.json) == (200, {"worker_id": "rack-7", "draining": False, "reason": None})
    assert tasks.fake.drained == {}
    for body in ({}, {"reason": ""}, None):
        kwargs: dict[str, Any] = {} if body is None else {"json": body}
        assert tasks.client.simulate_post("/api/workers/rack-7/drain", **kwargs).status_code == 200
        assert tasks.fake.drained == {"rack-7": ""}
    assert tasks.client.simulate_post("/api/workers/rack-7/undrain", json={}).status_code == 200


@pytest.mark.parametrize(
    ("verb", "body", "field"),
    [
        ("drain", {"reason": 5}, "reason"),
        ("drain", {"reason": None}, "reason"),
        ("drain", {"reason": "a\nb"}, "reason"),
        ("drain", {"reason": "a" * 257}, "reason"),
        ("drain", {"why": "x"}, "why"),
        ("drain", [], "(body)"),
        ("undrain", {"reason": "x"}, "reason"),
        ("undrain", "x", "(body)"),
    ],
)
def test_invalid_drain_request_is_rejected(tasks: TaskApi, verb: str, body: object, field: str) -> None:
    result = tasks.client.simulate_post(f"/api/workers/rack-7/{verb}", json=body)
    assert result.status_code == 422
    assert [error["field"] for error in result.json["errors"]] == [field]
    assert tasks.fake.drained == {}


@pytest.mark.parametrize(
    "worker_id", ["stranger", *[text for text in BAD_WORKER_IDS if text and "/" not in text]], ids=ascii
)
def test_unknown_worker_is_not_found(tasks: TaskApi, worker_id: str) -> None:
    for method, suffix in (("GET", "tasks"), ("POST", "drain"), ("POST", "undrain")):
        environ_path = f"/api/workers/{worker_id}/{suffix}".encode("utf-8", "surrogateescape").decode("latin-1")
        result = tasks.client.simulate_request(method, "/", extras={"PATH_INFO": environ_path})
        assert "\n" not in problem(result, 404)["detail"]


# Everywhere


PATHS = ["/api/tasks", "/api/tasks/task-1", "/api/tasks/task-1/logs", "/api/workers/rack-7/tasks"]


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_the_body(tasks: TaskApi, path: str) -> None:
    tasks.submit()
    get, head = tasks.client.simulate_get(path), tasks.client.simulate_head(path)
    assert head.content == b""
    assert (head.status, dict(head.headers)) == (get.status, dict(get.headers))
    assert get.headers["Content-Type"] == "application/json"
    assert get.headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("path", [*PATHS, "/api/workers/rack-7/drain", "/api/workers/rack-7/undrain"])
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_unsupported_method_is_rejected(tasks: TaskApi, method: str, path: str) -> None:
    problem(tasks.client.simulate_request(method, path), 405)


@pytest.mark.parametrize(
    ("error", "status"),
    [(errors.StoreUnavailable("the disk is full"), 503), (errors.MasterStopping("on its way out"), 503)],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/tasks"), *[("GET", path) for path in PATHS], ("DELETE", "/api/tasks/task-1"),
        ("POST", "/api/workers/rack-7/drain"), ("POST", "/api/workers/rack-7/undrain"),
    ],
)  # fmt: skip
def test_unavailable_store_is_reported(
    tasks: TaskApi, method: str, path: str, error: errors.FleetPulseError, status: int
) -> None:
    tasks.submit()
    tasks.fake.failing = error
    body = b'{"docker_image":"busybox"}' if path == "/api/tasks" else b""
    result = tasks.client.simulate_request(method, path, body=body, headers=JSON if body else {})
    assert problem(result, status)["detail"] == str(error)
    assert result.headers["Retry-After"] == "5"


NAMES = st.sampled_from(["status", "worker_id", "name", "limit", "cursor", "attempt", "offset", "tail", "format", "x"])
VALUES = st.text(max_size=10) | st.integers().map(str) | st.sampled_from(["queued", "queued,failed", "text", "\x00"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(PATHS), st.lists(st.tuples(NAMES, VALUES), max_size=4).map(urlencode) | st.text(max_size=20))
def test_no_query_is_too_much_for_the_master(tasks: TaskApi, path: str, query: str) -> None:
    if not tasks.fake._tasks:
        tasks.submit()
    environ_query = query.encode("utf-8", "surrogateescape").decode("latin-1")
    result = tasks.client.simulate_get(path, extras={"QUERY_STRING": environ_query})
    assert result.status_code in {200, 404, 422}
