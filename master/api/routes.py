"""The table of routes: every path that a master serves, who may use it, what it takes, what it answers.

``master.api.operations.add_routes`` adds it to the app, and refuses a path without a row, a row without a resource, and
a resource with other methods. The reference is made of it, and access is checked by it. To add a path:

1. Write its resource, with ``on_get`` and the like, and ``on_head = on_get`` where there is a ``GET``.
2. Add a row here. Queries and bodies are pydantic types (``master.api.queries``), answers ``msgspec`` types
   (``master.api.answers``); one that is not JSON is ``Answer(200, "…", {HTML: str})``. A new field in braces gets a
   line in ``PATH_FIELDS``.
3. Add the resource under its path in ``master.app.create_wsgi``.
4. Add a row and a curl line to ``docs/rest.md``. Tests hold the two to each other, and real answers to the types.
"""

from typing import Any

from fleetpulse.master.access.tokens import Role
from fleetpulse.master.api.access import SessionInfo, SignIn
from fleetpulse.master.api.audit import AuditListQuery
from fleetpulse.master.api.discovery import TargetGroup, TargetsQuery
from fleetpulse.master.api.history import History, HistoryQuery
from fleetpulse.master.api.operations import (
    EVENTS,
    HTML,
    JSON,
    TEXT,
    Answer,
    Body,
    Header,
    Operation,
    Route,
    answer,
)
from fleetpulse.master.api.page import Overview
from fleetpulse.master.api.queries import (
    EVENT_ID_PATTERN,
    AttemptListQuery,
    LogQuery,
    MetricsQuery,
    NoQuery,
    Query,
    StreamQuery,
    TaskListQuery,
)
from fleetpulse.master.api.task_answers import Assignment, DrainState, ListedTask, LogPart, Task, TaskDetails
from fleetpulse.master.api.tasks import IDEMPOTENCY_KEY_PATTERN, DrainRequest, UndrainRequest
from fleetpulse.master.api.worker_answers import (
    Health,
    WorkerDetails,
    WorkerMetrics,
    WorkerRecord,
    WorkerSummary,
)
from fleetpulse.master.audit.entries import AuditRecord
from fleetpulse.master.tasks.request import TaskRequest

OPENMETRICS = "application/openmetrics-text"

OPEN, READ, SUBMIT, ADMIN = Role

_BODY = (400, 408, 413, 415, 422)
"""The problems of a body."""

_ETAG = {"ETag": "to be sent back in `If-None-Match`"}
_IF_NONE_MATCH = Header("If-None-Match", "the `ETag` of the answer that the client has")
_EXAMPLE_TASK = {"docker_image": "busybox", "command": ["echo", "hi"]}

_AUDIT = """Every request that could change something, every refusal, and every worker that registered or said
goodbye. A page after which much of the trail was searched may be short or empty: continue while there is a `Link` with
`rel="next"`. The `Link` with `rel="prev"` leads to newer entries, oldest first; who follows it loses and repeats
nothing."""

_STREAM = """First `reset` and the fleet as it is (`snapshot`, in pieces), then at most twice a second the workers that
changed (`update`) or left (`removed`); `problem` when the master stops. A reader that reconnects with the last `id`
gets what changed since."""

_LOGS = """As JSON, at most 1 MiB; as text, all bytes unless there is a limit; with `follow=true` as server-sent events
(`status`, `attempt`, pieces of the log, and at last `end` or `problem`), from before the container starts, and over
retries unless an `attempt` is given."""

_LOG_HEADERS = {
    "X-Log-Attempt": "of text: which attempt's log it is",
    "X-Log-Offset": "of text: its first byte",
    "X-Log-Next-Offset": "of text: where to continue",
    "X-Log-Size": "of text: bytes that there are",
    "X-Log-Complete": "of text: `true` when nothing will come after this",
}


def _cached(
    name: str,
    role: Role,
    summary: str,
    kind: Any,
    *problems: int,
    media_type: str = JSON,
    query: "type[Query] | None" = None,
) -> Operation:
    """A ``GET`` with an ``ETag``."""
    found, not_modified = Answer(200, summary, {media_type: kind}, _ETAG), Answer(304, "not modified", headers=_ETAG)
    return Operation(
        "GET", name, role, summary, found, not_modified, problems=problems, headers=(_IF_NONE_MATCH,), query=query
    )


ROUTES: tuple[Route, ...] = (
    Route("/health", "Master",
        Operation("GET", "get_health", OPEN, "whether every part of the master works",
            answer(Health, "all is well"), answer(Health, "something is not, and what", 503))),
    Route("/openapi.json", "Master",
        _cached("get_openapi", READ, "this reference for programs, as OpenAPI 3.1", dict[str, Any])),
    Route("/docs", "Master",
        _cached("get_docs", READ, "this reference for people", str, media_type=HTML)),
    Route("/api/audit", "Master",
        Operation("GET", "list_audit", ADMIN, "who changed what, and who was refused, newest first, in pages",
            answer(list[AuditRecord], "one page, perhaps not full",
                Link="`next`: older entries, if there are any; `prev`: newer entries, not with `cursor`"),
            problems=(422, 503), query=AuditListQuery, text=_AUDIT)),

    Route("/telemetry", "Workers",
        _cached("get_telemetry", READ, "map of worker id to record", dict[str, WorkerRecord])),
    Route("/telemetry/stream", "Workers",
        Operation("GET", "stream_telemetry", READ, "the records as they change: server-sent events",
            Answer(200, "its events", {EVENTS: str}), problems=(422, 503), query=StreamQuery, text=_STREAM,
            headers=(Header("Last-Event-ID", "where to continue: the last `id` seen, with the same query"),))),
    Route("/telemetry/{worker_id}", "Workers",
        _cached("get_worker_telemetry", READ, "one record", WorkerRecord, 404)),
    Route("/telemetry/{worker_id}/history", "Workers",
        Operation("GET", "get_worker_history", READ, "one worker's readings over time",
            answer(History, "its fields, a value a step"), problems=(404, 422, 503), query=HistoryQuery)),
    Route("/workers", "Workers",
        _cached("get_workers", READ, "map of worker id to a short form", dict[str, WorkerSummary])),
    Route("/api/workers", "Workers",
        _cached("list_workers", READ, "array of details, each with its record", list[WorkerDetails])),
    Route("/api/workers/{worker_id}", "Workers",
        _cached("get_worker", READ, "one worker's details", WorkerDetails, 404),
        Operation("DELETE", "forget_worker", ADMIN, "forget a worker that is gone",
            Answer(204, "it is forgotten"), problems=(404, 409), text="409 for an active worker.")),
    Route("/api/workers/{worker_id}/metrics", "Workers",
        _cached("get_worker_metrics", READ, "one worker's resource readings", WorkerMetrics, 404, 422,
            query=MetricsQuery)),
    Route("/api/workers/{worker_id}/drain", "Workers",
        Operation("POST", "drain_worker", ADMIN, "give the worker no new tasks; those that it has run on",
            answer(DrainState, "it gets none"), problems=(*_BODY, 404, 503), query=NoQuery,
            body=Body(DrainRequest, is_required=False, example={"reason": "new disk"}),
            text="A drain outlives restarts of the master and of the worker.")),
    Route("/api/workers/{worker_id}/undrain", "Workers",
        Operation("POST", "undrain_worker", ADMIN, "give it tasks again", answer(DrainState, "it gets tasks"),
            problems=(*_BODY, 404, 503), query=NoQuery, body=Body(UndrainRequest, is_required=False))),
    Route("/api/workers/{worker_id}/tasks", "Workers",
        Operation("GET", "list_worker_tasks", READ, "array of what was assigned to the worker, newest first",
            answer(list[Assignment], "attempts, each with something of its task"),
            problems=(404, 422, 503), query=AttemptListQuery)),

    Route("/api/tasks", "Tasks",
        Operation("POST", "submit_task", SUBMIT, "submit a task",
            answer(Task, "it is on disk", 201, Location="the path of the task"),
            answer(TaskDetails, "the task of an earlier request with this key", Location="the path of the task"),
            problems=(*_BODY, 409, 411, 503), query=NoQuery, body=Body(TaskRequest, example=_EXAMPLE_TASK),
            headers=(Header("Idempotency-Key", "makes it safe to try again", IDEMPOTENCY_KEY_PATTERN),),
            text="A task that no worker can run now waits. When too much is queued: 429 with the `limit`."),
        Operation("GET", "list_tasks", READ, "array of tasks, newest first, in pages",
            answer(list[ListedTask], "one page", Link="the next page, `<…>; rel=\"next\"`; absent on the last one"),
            problems=(422, 503), query=TaskListQuery,
            text="Of a `command`, `env`, `labels` or `constraints` over 4 KiB only the name is given, in `truncated`: "
                "`/api/tasks/{task_id}` has all of it.")),
    Route("/api/tasks/{task_id}", "Tasks",
        Operation("GET", "get_task", READ, "one task with its attempts and its events",
            answer(TaskDetails, "the task"), problems=(404, 422, 503), query=NoQuery),
        Operation("DELETE", "cancel_task", SUBMIT, "cancel it",
            answer(TaskDetails, "it is cancelled, or will be when its container is gone", 202),
            problems=(404, 409, 422, 503), query=NoQuery, text="409 when it has ended already.")),
    Route("/api/tasks/{task_id}/logs", "Tasks",
        Operation("GET", "get_task_logs", READ, "its output: JSON, the raw bytes, or as it comes",
            Answer(200, "a part of the log, or its events", {JSON: LogPart, TEXT: str, EVENTS: str}, _LOG_HEADERS),
            problems=(404, 410, 422, 503), query=LogQuery, text=_LOGS,
            headers=(Header("Last-Event-ID", "where to continue events: the last `id` seen", EVENT_ID_PATTERN),))),

    Route("/metrics", "Prometheus",
        Operation("GET", "get_metrics", READ, "Prometheus text, or OpenMetrics where `Accept` asks for it",
            Answer(200, "the fleet's series and the master's own", {TEXT: str, OPENMETRICS: str}),
            problems=(406,))),
    Route("/sd/targets", "Prometheus",
        Operation("GET", "get_targets", READ, "the active workers as scrape targets",
            answer(list[TargetGroup], "as Prometheus' HTTP service discovery has it"),
            problems=(422,), query=TargetsQuery)),

    Route("/", "Page",
        _cached("get_page", OPEN, "the page for people: the fleet, tasks and logs, live", str, media_type=HTML)),
    Route("/static/{page_version}/{page_file}", "Page",
        Operation("GET", "get_page_file", OPEN, "a file of the page; its address changes with its content",
            Answer(200, "the file", {"text/javascript": str, "text/css": str, "image/svg+xml": str}), problems=(404,))),
    Route("/api/session", "Page",
        Operation("GET", "get_session", OPEN, "whose token or session the request has",
            answer(SessionInfo, "the name, its role, and how it was shown")),
        Operation("POST", "sign_in", OPEN, "begin a session of the page with a token",
            answer(SessionInfo, "the session's cookie is set",
                Set_Cookie="`fleetpulse_session`: for `SameSite` requests alone, and for no script"),
            problems=(*_BODY, 411), query=NoQuery, body=Body(SignIn, example={"token": "fp_…"})),  # nosec B105 # an example
        Operation("DELETE", "sign_out", OPEN, "end the session", Answer(204, "there is none any more"))),
    Route("/api/overview", "Page",
        Operation("GET", "get_overview", READ, "the fleet in numbers: workers by state, tasks by status",
            answer(Overview, "as it is now"))),
)  # fmt: skip
