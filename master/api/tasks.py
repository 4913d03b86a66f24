"""What the paths of tasks answer."""

import re
from typing import Any
from urllib.parse import urlencode

import falcon
import gevent
import orjson
from pydantic import BaseModel, ConfigDict

from fleetpulse.master.api.problems import FieldProblem, InvalidRequest
from fleetpulse.master.api.queries import (
    AttemptListQuery,
    NoQuery,
    TaskListQuery,
    check_task_id,
    check_worker_id,
)
from fleetpulse.master.api.subscribers import Subscribers
from fleetpulse.master.api.task_logs import TaskLogs
from fleetpulse.master.api.task_views import assignment_view, details_view, task_view
from fleetpulse.master.api.validation import BodyReader, query_of, validated
from fleetpulse.master.tasks.records import Idempotency
from fleetpulse.master.tasks.request import SECRETS, Line, TaskRequest
from fleetpulse.master.tasks.service import TaskService

TASKS_IN_A_ROW = 64
"""Tasks of a page after which other greenlets have their turn."""

IDEMPOTENCY_KEY_PATTERN = r"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?"
_IDEMPOTENCY_KEY = re.compile(IDEMPOTENCY_KEY_PATTERN)


class DrainRequest(BaseModel):
    """The body, if there is one, of ``POST /api/workers/{worker_id}/drain``."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    reason: Line = ""
    """For people: why."""


class UndrainRequest(BaseModel):
    """The body, if there is one, of ``POST /api/workers/{worker_id}/undrain``: an empty object."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)


class Tasks:
    """``/api/tasks``: submit one, list them."""

    def __init__(self, tasks: TaskService, body: BodyReader) -> None:
        self._tasks = tasks
        self._body = body

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        query_of(req, NoQuery)
        request, idempotency = parse_request(self._body.json(req), req.get_header("Idempotency-Key"))
        task, is_new = self._tasks.submit(request, idempotency)
        if is_new:
            _answer(resp, task_view(task, None, self._tasks.queue_reason(task)), falcon.HTTP_201)
        else:
            _answer(resp, _details(self._tasks, task.task_id))
        resp.location = f"/api/tasks/{task.task_id}"

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        query = query_of(req, TaskListQuery)
        page = self._tasks.find(query.task_query())
        views = []
        for number, task in enumerate(page.tasks, start=1):
            if number % TASKS_IN_A_ROW == 0:
                gevent.sleep(0)
            views.append(task_view(task, page.attempts.get(task.task_id), self._tasks.queue_reason(task)))
        if page.next_cursor is not None:
            resp.append_link(_page_after(query, page.next_cursor), "next")
        _answer(resp, views)

    on_head = on_get


class OneTask:
    """``/api/tasks/{task_id}``: all that is known of one; cancel it."""

    def __init__(self, tasks: TaskService) -> None:
        self._tasks = tasks

    def on_get(self, req: falcon.Request, resp: falcon.Response, task_id: str) -> None:
        query_of(req, NoQuery)
        check_task_id(task_id)
        _answer(resp, _details(self._tasks, task_id))

    on_head = on_get

    def on_delete(self, req: falcon.Request, resp: falcon.Response, task_id: str) -> None:
        query_of(req, NoQuery)
        check_task_id(task_id)
        self._tasks.cancel(task_id)
        _answer(resp, _details(self._tasks, task_id), falcon.HTTP_202)


class WorkerTasks:
    """``/api/workers/{worker_id}/tasks``: what was assigned to a worker."""

    def __init__(self, tasks: TaskService) -> None:
        self._tasks = tasks

    def on_get(self, req: falcon.Request, resp: falcon.Response, worker_id: str) -> None:
        query = query_of(req, AttemptListQuery)
        check_worker_id(worker_id)
        found = self._tasks.worker_attempts(worker_id, query.limit)
        _answer(resp, [assignment_view(attempt, task) for attempt, task in found])

    on_head = on_get


class DrainedWorker:
    """``/api/workers/{worker_id}/drain``: give a worker no new tasks."""

    def __init__(self, tasks: TaskService, body: BodyReader) -> None:
        self._tasks = tasks
        self._body = body

    def on_post(self, req: falcon.Request, resp: falcon.Response, worker_id: str) -> None:
        query_of(req, NoQuery)
        body = self._body.optional_json(req)
        reason = "" if body is None else validated(DrainRequest, body).reason
        check_worker_id(worker_id)
        self._tasks.drain(worker_id, reason)
        _answer(resp, {"worker_id": worker_id, "draining": True, "reason": reason})


class UndrainedWorker:
    """``/api/workers/{worker_id}/undrain``: give it tasks again."""

    def __init__(self, tasks: TaskService, body: BodyReader) -> None:
        self._tasks = tasks
        self._body = body

    def on_post(self, req: falcon.Request, resp: falcon.Response, worker_id: str) -> None:
        query_of(req, NoQuery)
        if (body := self._body.optional_json(req)) is not None:
            validated(UndrainRequest, body)
        check_worker_id(worker_id)
        self._tasks.undrain(worker_id)
        _answer(resp, {"worker_id": worker_id, "draining": False, "reason": None})


def task_resources(tasks: TaskService, subscribers: Subscribers) -> dict[str, object]:
    """What answers at each path about tasks.

    ``subscribers`` are to be ended before the web server stops, or it would wait for them.
    """
    body = BodyReader()
    return {
        "/api/tasks": Tasks(tasks, body),
        "/api/tasks/{task_id}": OneTask(tasks),
        "/api/tasks/{task_id}/logs": TaskLogs(tasks, subscribers),
        "/api/workers/{worker_id}/tasks": WorkerTasks(tasks),
        "/api/workers/{worker_id}/drain": DrainedWorker(tasks, body),
        "/api/workers/{worker_id}/undrain": UndrainedWorker(tasks, body),
    }


def parse_request(body: object, idempotency_key: str | None) -> tuple[TaskRequest, Idempotency | None]:
    """Validates a body and a header. Raises ``InvalidRequest`` with every error of either."""
    errors = []
    if idempotency_key is not None and not _IDEMPOTENCY_KEY.fullmatch(idempotency_key):
        errors.append(FieldProblem("Idempotency-Key", "must be 1 to 128 printable ASCII characters"))
    if isinstance(body, dict) and len(body) > 2 * len(TaskRequest.model_fields):
        raise InvalidRequest([*errors, FieldProblem("(body)", f"has {len(body)} fields; most of them are not known")])
    request = validated(TaskRequest, body, errors, SECRETS)
    return request, None if idempotency_key is None else Idempotency(idempotency_key, request.digest())


def _details(tasks: TaskService, task_id: str) -> dict[str, Any]:
    details = tasks.details(task_id)
    return details_view(details, tasks.queue_reason(details.task))


def _page_after(query: TaskListQuery, cursor: str) -> str:
    said: list[tuple[str, object]] = [("status", status) for status in sorted(query.status)]
    said += [(name, value) for name in ("worker_id", "name") if (value := getattr(query, name)) is not None]
    return "/api/tasks?" + urlencode([*said, ("limit", query.limit), ("cursor", cursor)])


def _answer(resp: falcon.Response, body: object, status: str = falcon.HTTP_200) -> None:
    resp.status = status
    resp.cache_control = ("no-cache",)
    resp.content_type = falcon.MEDIA_JSON
    resp.data = orjson.dumps(body)
