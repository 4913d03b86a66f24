"""The paths of tasks, and those of a worker's tasks and drain."""

import re
from http import HTTPStatus
from urllib.parse import urlencode

import falcon

from fleetpulse.master.access.tokens import Identity
from fleetpulse.master.api.answers import send_array, send_json
from fleetpulse.master.api.problems import FieldProblem, InvalidRequest
from fleetpulse.master.api.queries import AttemptListQuery, NoQuery, TaskListQuery, check_task_id, check_worker_id
from fleetpulse.master.api.subscribers import Subscribers
from fleetpulse.master.api.task_answers import Assignment, DrainState, ListedTask, Task, TaskDetails
from fleetpulse.master.api.task_logs import TaskLogs
from fleetpulse.master.api.validation import RequestBody, query_of, read_json, validated
from fleetpulse.master.tasks import records
from fleetpulse.master.tasks.records import Idempotency, TaskPage
from fleetpulse.master.tasks.request import SECRETS, Line, TaskRequest
from fleetpulse.master.tasks.service import TaskService

IDEMPOTENCY_KEY_PATTERN = r"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?"
_IDEMPOTENCY_KEY = re.compile(IDEMPOTENCY_KEY_PATTERN)


class DrainRequest(RequestBody):
    """The body, if there is one, of ``POST /api/workers/{worker_id}/drain``."""

    reason: Line = ""
    """For people: why."""


class UndrainRequest(RequestBody):
    """The body, if there is one, of ``POST /api/workers/{worker_id}/undrain``: an empty object."""


class _Resource:
    def __init__(self, tasks: TaskService) -> None:
        self._tasks = tasks

    def _send_details(self, resp: falcon.Response, task_id: str, status: int = HTTPStatus.OK) -> None:
        details = self._tasks.details(task_id)
        send_json(resp, TaskDetails.of_details(details, self._tasks.queue_reason(details.task)), status=status)


class Tasks(_Resource):
    """``/api/tasks``: submit one, list them."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        query_of(req, NoQuery)
        request, idempotency = parse_request(read_json(req), req.get_header("Idempotency-Key"))
        identity: Identity | None = getattr(req.context, "identity", None)
        task, is_new = self._tasks.submit(request, idempotency, None if identity is None else identity.name)
        if is_new:
            send_json(resp, Task.of(task, None, self._tasks.queue_reason(task)), status=HTTPStatus.CREATED)
        else:
            self._send_details(resp, task.task_id)
        resp.location = f"/api/tasks/{task.task_id}"

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        query = query_of(req, TaskListQuery)
        page = self._tasks.find(query.task_query())
        if page.next_cursor is not None:
            resp.append_link(_page_after(query, page.next_cursor), "next")
        send_array(resp, (self._listed(page, task) for task in page.tasks))

    on_head = on_get

    def _listed(self, page: TaskPage, task: records.Task) -> ListedTask:
        truncated = page.truncated.get(task.task_id, ())
        return ListedTask.of(task, page.attempts.get(task.task_id), self._tasks.queue_reason(task), truncated)


class OneTask(_Resource):
    """``/api/tasks/{task_id}``: everything about one; cancel it."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, task_id: str) -> None:
        query_of(req, NoQuery)
        check_task_id(task_id)
        self._send_details(resp, task_id)

    on_head = on_get

    def on_delete(self, req: falcon.Request, resp: falcon.Response, task_id: str) -> None:
        query_of(req, NoQuery)
        check_task_id(task_id)
        self._tasks.cancel(task_id)
        self._send_details(resp, task_id, HTTPStatus.ACCEPTED)


class WorkerTasks(_Resource):
    """``/api/workers/{worker_id}/tasks``: the attempts that were assigned to a worker."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, worker_id: str) -> None:
        query = query_of(req, AttemptListQuery)
        check_worker_id(worker_id)
        found = self._tasks.worker_attempts(worker_id, query.limit)
        send_array(resp, (Assignment.of_task(attempt, task) for attempt, task in found))

    on_head = on_get


class DrainWorker(_Resource):
    """``/api/workers/{worker_id}/drain``: give a worker no new tasks."""

    def on_post(self, req: falcon.Request, resp: falcon.Response, worker_id: str) -> None:
        query_of(req, NoQuery)
        body = read_json(req, is_optional=True)
        reason = "" if body is None else validated(DrainRequest, body).reason
        check_worker_id(worker_id)
        self._tasks.drain(worker_id, reason)
        send_json(resp, DrainState(worker_id, draining=True, reason=reason))


class UndrainWorker(_Resource):
    """``/api/workers/{worker_id}/undrain``: give it tasks again."""

    def on_post(self, req: falcon.Request, resp: falcon.Response, worker_id: str) -> None:
        query_of(req, NoQuery)
        if (body := read_json(req, is_optional=True)) is not None:
            validated(UndrainRequest, body)
        check_worker_id(worker_id)
        self._tasks.undrain(worker_id)
        send_json(resp, DrainState(worker_id, draining=False, reason=None))


def task_resources(tasks: TaskService, subscribers: Subscribers) -> dict[str, object]:
    """Returns the resource of each path about tasks.

    ``subscribers`` must be closed before the web server stops, or it would wait for them.
    """
    return {
        "/api/tasks": Tasks(tasks),
        "/api/tasks/{task_id}": OneTask(tasks),
        "/api/tasks/{task_id}/logs": TaskLogs(tasks, subscribers),
        "/api/workers/{worker_id}/tasks": WorkerTasks(tasks),
        "/api/workers/{worker_id}/drain": DrainWorker(tasks),
        "/api/workers/{worker_id}/undrain": UndrainWorker(tasks),
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


def _page_after(query: TaskListQuery, cursor: str) -> str:
    parameters: list[tuple[str, object]] = [("status", status) for status in sorted(query.status)]
    parameters += [(name, value) for name in ("worker_id", "name") if (value := getattr(query, name)) is not None]
    return "/api/tasks?" + urlencode([*parameters, ("limit", query.limit), ("cursor", cursor)])
